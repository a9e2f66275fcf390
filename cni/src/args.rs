//! The environment in which the runtime calls a plugin (CNI spec section 2, Parameters).
//!
//! CNI_PATH is not asked for: only a pod with host ports needs another plugin, and then its absence is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use types::{ContainerId, InterfaceName, PodRef};

use crate::spec::{CniError, Code};

/// A command with what it needs from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// ADD: plug a pod in.
    Add {
        /// The pod's interface.
        attachment: Attachment,
        /// CNI_NETNS: the namespace to plug into.
        netns: PathBuf,
    },
    /// Unplug it. CNI_NETNS is not looked at: the pair goes by its host end, whatever became of the namespace.
    Del(Attachment),
    /// STATUS: say whether an ADD would be served.
    Status,
    /// VERSION: say which versions are spoken.
    Version,
    /// CHECK: say whether an attachment is as ADD left it.
    Check {
        /// The pod's interface.
        attachment: Attachment,
        /// CNI_NETNS: the namespace that it is in.
        netns: PathBuf,
    },
    /// GC: remove all attachments of the network that the runtime does not list.
    Gc,
}

/// One interface of one sandbox, and what CNI_ARGS says of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The value of CNI_CONTAINERID.
    pub container: ContainerId,
    /// The value of CNI_IFNAME.
    pub interface: InterfaceName,
    /// CNI_ARGS. Keys that this plugin does not know are kept and not minded, with and without `IgnoreUnknown`.
    pub args: BTreeMap<String, String>,
    /// The folders of CNI_PATH.
    pub plugins: Vec<PathBuf>,
}

impl Attachment {
    /// The pod as CNI_ARGS names it; outside Kubernetes, `default` and the container's id. A name that is longer than any that
    /// Kubernetes gives is refused: it would be kept, and told to the other nodes.
    pub fn pod(&self) -> Result<PodRef, CniError> {
        /// The most octets of a name (RFC 1123, as Kubernetes has it).
        const MOST: usize = 253;
        let arg = |key: &str| match self.args.get(key).filter(|value| !value.is_empty()) {
            Some(value) if value.len() > MOST => {
                Err(invalid(format!("CNI_ARGS {key}: {} octets are more than the {MOST} of a name", value.len())))
            }
            value => Ok(value.cloned()),
        };
        Ok(PodRef {
            namespace: arg("K8S_POD_NAMESPACE")?.unwrap_or_else(|| "default".to_owned()),
            name: arg("K8S_POD_NAME")?.unwrap_or_else(|| self.container.to_string()),
            uid: arg("K8S_POD_UID")?,
        })
    }
}

impl Command {
    /// Reads the command from variables, each looked up by name. What is missing is named in one message.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let mut environment = Environment { variable, missing: Vec::new() };
        let command = environment.required("CNI_COMMAND")?.map(|command| match command.as_str() {
            "ADD" => Ok(Verb::Add),
            "DEL" => Ok(Verb::Del),
            "STATUS" => Ok(Verb::Bare(Self::Status)),
            "VERSION" => Ok(Verb::Bare(Self::Version)),
            "CHECK" => Ok(Verb::Check),
            "GC" => Ok(Verb::Bare(Self::Gc)),
            unknown => Err(invalid(format!("CNI_COMMAND: {unknown:?} is not a command of CNI"))),
        });
        match command.transpose()? {
            Some(Verb::Add) => {
                let (attachment, netns) = environment.attachment_in_place()?;
                Ok(Self::Add { attachment, netns })
            }
            Some(Verb::Check) => {
                let (attachment, netns) = environment.attachment_in_place()?;
                Ok(Self::Check { attachment, netns })
            }
            Some(Verb::Del) => {
                let attachment = environment.attachment()?;
                environment.complete()?;
                attachment.map(Self::Del).ok_or_else(|| environment.missing())
            }
            Some(Verb::Bare(command)) => Ok(command),
            None => Err(environment.missing()),
        }
    }
}

/// How much of the environment a command needs.
enum Verb {
    Add,
    Check,
    Del,
    Bare(Command),
}

/// The variables, and the names of those that were wanted in vain.
struct Environment<F> {
    variable: F,
    missing: Vec<&'static str>,
}

impl<F: Fn(&str) -> Option<OsString>> Environment<F> {
    /// The variable's value; a missing or empty one is noted.
    fn required(&mut self, name: &'static str) -> Result<Option<String>, CniError> {
        let value = self.optional(name)?;
        if value.is_none() {
            self.missing.push(name);
        }
        Ok(value)
    }

    fn optional(&self, name: &'static str) -> Result<Option<String>, CniError> {
        match (self.variable)(name) {
            None => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
                Err(_) => Err(invalid(format!("{name} is not UTF-8"))),
            },
        }
    }

    /// The attachment, unless a variable for it is missing.
    fn attachment(&mut self) -> Result<Option<Attachment>, CniError> {
        let container = self.required("CNI_CONTAINERID")?;
        let interface = self.required("CNI_IFNAME")?;
        let args = arguments(&self.optional("CNI_ARGS")?.unwrap_or_default())?;
        let plugins = self.optional("CNI_PATH")?.unwrap_or_default();
        let plugins = plugins.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
        let (Some(container), Some(interface)) = (container, interface) else { return Ok(None) };
        let container = ContainerId::new(container).map_err(|error| invalid(format!("CNI_CONTAINERID: {error}")))?;
        let interface = InterfaceName::new(interface).map_err(|error| invalid(format!("CNI_IFNAME: {error}")))?;
        Ok(Some(Attachment { container, interface, args, plugins }))
    }

    /// The attachment, and the namespace that it is or will be in.
    fn attachment_in_place(&mut self) -> Result<(Attachment, PathBuf), CniError> {
        let attachment = self.attachment()?;
        let netns = self.required("CNI_NETNS")?;
        self.complete()?;
        match (attachment, netns) {
            (Some(attachment), Some(netns)) => Ok((attachment, netns.into())),
            _ => Err(self.missing()),
        }
    }

    fn complete(&self) -> Result<(), CniError> {
        if self.missing.is_empty() { Ok(()) } else { Err(self.missing()) }
    }

    fn missing(&self) -> CniError {
        invalid(format!("required env variables [{}] missing", self.missing.join(",")))
    }
}

/// Reads CNI_ARGS: `KEY=VALUE;KEY=VALUE`.
fn arguments(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE"))),
    };
    pairs.map(pair).collect()
}

fn invalid(msg: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, msg)
}

#[cfg(test)]
mod tests;
