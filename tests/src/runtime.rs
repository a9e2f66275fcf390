//! The container runtime's side of CNI: runs the plugins of a node's network as libcni does.
//!
//! The network is the first `*.conflist` of the node's `/etc/cni/net.d`, by name. Results are cached in the node's
//! `/var/lib/cni/results`, and DEL gets the cached one as `prevResult` (CNI spec section 3, "Deriving request
//! configuration from plugin configuration").

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::namespace::Namespace;
use crate::node::Node;
use crate::place::Output;

/// Where runtimes look for plugins.
const PLUGINS: &str = "/opt/cni/bin";

/// A runtime of one node with one network.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The node.
    node: Namespace,
    /// The network's name.
    pub network: String,
    /// The version of the CNI specification that the network asks for.
    pub version: String,
    /// The plugins' configurations, in the order in which ADD calls them.
    plugins: Vec<Map<String, Value>>,
}

/// One interface of one container: what ADD and DEL are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`, a path in the node. Runtimes leave it empty in the second DEL, after the namespace is gone.
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// The values that go to `runtimeConfig` of plugins that declare the capability.
    pub capabilities: Map<String, Value>,
    /// The values that go to `args.cni` of every plugin (CNI conventions, "Dynamic Plugin specific fields").
    #[serde(default)]
    pub cni_args: Map<String, Value>,
}

/// An attachment whose ADD succeeded, as it is cached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cached {
    pub(crate) attachment: Attachment,
    pub(crate) result: Value,
}

/// Why CNI failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// A plugin refused, as the spec has it (section 5).
    #[error("plugin {plugin} refuses {command}: code {code}: {msg}{}", details.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused {
        /// The plugin's name.
        plugin: String,
        /// The request: ADD, DEL, ...
        command: String,
        /// The error code, of the specification or of the plugin.
        code: u32,
        /// The plugin's message.
        msg: String,
        /// The plugin's details.
        details: Option<String>,
    },
    /// A plugin's answer is not what the spec has.
    #[error("plugin {plugin} answers {command} ({status}) with {stdout:?}; on standard error: {stderr}")]
    Senseless {
        /// The plugin's name.
        plugin: String,
        /// The request: ADD, DEL, ...
        command: String,
        /// The plugin's exit status.
        status: ExitStatus,
        /// The plugin's standard output.
        stdout: String,
        /// The plugin's standard error.
        stderr: String,
    },
    /// The network's configuration cannot be used.
    #[error("{}: {problem}", path.display())]
    Network {
        /// The file or folder, in the node.
        path: PathBuf,
        /// What is wrong with the configuration.
        problem: String,
    },
    /// A plugin cannot be run, or a result not be cached.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The underlying error.
        source: std::io::Error,
    },
}

impl CniError {
    /// The code with which a plugin refused.
    pub const fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// The addresses in the answer to an ADD.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

impl Runtime {
    pub(crate) fn of(node: &Node) -> Result<Self, crate::LabError> {
        let inside = "/etc/cni/net.d";
        let folder = node.path(inside);
        let fault = |problem: String| CniError::Network { path: inside.into(), problem };
        let entries = fs::read_dir(&folder).map_err(|error| fault(error.to_string()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "conflist"));
        files.sort();
        let file = files.first().ok_or_else(|| fault("has no *.conflist".to_owned()))?;
        let text = fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
        Ok(Self::from_conflist(node.namespace().clone(), &text).map_err(fault)?)
    }

    /// A runtime for a network that is given as the text of a conflist.
    pub fn from_conflist(node: Namespace, text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Conflist {
            cni_version: String,
            name: String,
            plugins: Vec<Map<String, Value>>,
        }
        let list: Conflist = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self { node, network: list.name, version: list.cni_version, plugins: list.plugins })
    }

    /// Calls ADD of every plugin; the result is the last plugin's. Nothing is undone on failure: runtimes call DEL
    /// then.
    pub fn add(&self, attachment: &Attachment) -> Result<Value, CniError> {
        let mut result = None;
        for plugin in &self.plugins {
            result = Some(self.call("ADD", plugin, attachment, result)?);
        }
        let result = result.unwrap_or(Value::Null);
        self.cache(&Cached { attachment: attachment.clone(), result: result.clone() })?;
        Ok(result)
    }

    /// Calls CHECK of every plugin, in the order of ADD, with the cached result.
    pub fn check(&self, attachment: &Attachment) -> Result<(), CniError> {
        let cached = read_cached(&self.cache_path(attachment)).map(|cached| cached.result);
        self.plugins.iter().try_for_each(|plugin| self.call("CHECK", plugin, attachment, cached.clone()).map(drop))
    }

    /// Calls DEL of every plugin in reverse, with the cached result, which is dropped on success.
    pub fn del(&self, attachment: &Attachment) -> Result<(), CniError> {
        let path = self.cache_path(attachment);
        let cached = read_cached(&path);
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", plugin, attachment, cached.as_ref().map(|cached| cached.result.clone()))?;
        }
        let _ = fs::remove_file(path);
        Ok(())
    }

    /// Calls STATUS of every plugin.
    pub fn status(&self) -> Result<(), CniError> {
        self.plugins.iter().try_for_each(|plugin| self.call_for_all("STATUS", plugin.clone()))
    }

    /// Calls DEL for every cached attachment that is not one of these, then GC of every plugin.
    pub fn gc(&self, valid: &[&Attachment]) -> Result<(), CniError> {
        let is_valid = |cached: &Cached| {
            let Attachment { container, interface, .. } = &cached.attachment;
            valid.iter().any(|valid| valid.container == *container && valid.interface == *interface)
        };
        for Cached { attachment, .. } in cached(&self.node).iter().filter(|cached| !is_valid(cached)) {
            self.del(attachment)?;
        }
        let names = valid.iter().map(|valid| json!({ "containerID": valid.container, "ifname": valid.interface }));
        let names: Value = names.collect();
        for plugin in &self.plugins {
            let mut plugin = plugin.clone();
            plugin.insert("cni.dev/valid-attachments".to_owned(), names.clone());
            self.call_for_all("GC", plugin)?;
        }
        Ok(())
    }

    /// A request that is about no container.
    fn call_for_all(&self, command: &str, mut plugin: Map<String, Value>) -> Result<(), CniError> {
        plugin.remove("capabilities");
        plugin.insert("cniVersion".to_owned(), json!(self.version));
        plugin.insert("name".to_owned(), json!(self.network));
        let name = plugin_type(&plugin).unwrap_or_default().to_owned();
        let output = self.run(&name, &[("CNI_COMMAND", command)], &Value::Object(plugin).to_string())?;
        answer(&name, command, output).map(drop)
    }

    /// Calls VERSION of the first plugin.
    pub fn plugin_versions(&self) -> Result<Value, CniError> {
        let name = self.plugins.first().and_then(plugin_type).unwrap_or_default();
        let config = json!({ "cniVersion": self.version }).to_string();
        let output = self.run(name, &[("CNI_COMMAND", "VERSION")], &config)?;
        answer(name, "VERSION", output)
    }

    /// Runs a plugin with any environment and standard input: for tests of what is malformed.
    pub fn run(&self, plugin: &str, env: &[(&str, &str)], stdin: &str) -> Result<Output, CniError> {
        let failed = |source| CniError::Io { doing: format!("running plugin {plugin}"), source };
        let mut command = self.node.command(&format!("{PLUGINS}/{plugin}"));
        command.env("CNI_PATH", PLUGINS).envs(env.iter().copied());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut pipe) = child.stdin.take() {
            // A plugin that refuses because of its environment may have ended before it has read this.
            match pipe.write_all(stdin.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(failed(error)),
                _ => {}
            }
        }
        let output = child.wait_with_output().map_err(failed)?;
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn call(
        &self,
        command: &str,
        plugin: &Map<String, Value>,
        attachment: &Attachment,
        previous: Option<Value>,
    ) -> Result<Value, CniError> {
        let name = plugin_type(plugin).unwrap_or_default();
        let config = self.request(plugin, attachment, previous);
        let args: Vec<String> = attachment.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let args = args.join(";");
        let env = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", attachment.container.as_str()),
            ("CNI_NETNS", attachment.netns.as_deref().unwrap_or_default()),
            ("CNI_IFNAME", attachment.interface.as_str()),
            ("CNI_ARGS", args.as_str()),
        ];
        answer(name, command, self.run(name, &env, &config.to_string())?)
    }

    /// The plugin's configuration for one request.
    fn request(&self, plugin: &Map<String, Value>, attachment: &Attachment, previous: Option<Value>) -> Value {
        let mut config = plugin.clone();
        config.insert("cniVersion".to_owned(), json!(self.version));
        config.insert("name".to_owned(), json!(self.network));
        if !attachment.cni_args.is_empty() {
            let args = config.entry("args").or_insert_with(|| json!({}));
            if let Value::Object(args) = args {
                args.insert("cni".to_owned(), Value::Object(attachment.cni_args.clone()));
            }
        }
        if let Some(Value::Object(declared)) = config.remove("capabilities") {
            let wanted = |key: &String| declared.get(key).and_then(Value::as_bool).unwrap_or(false);
            let given = attachment.capabilities.iter().filter(|(key, _)| wanted(key));
            let given: Map<String, Value> = given.map(|(key, value)| (key.clone(), value.clone())).collect();
            if !given.is_empty() {
                config.insert("runtimeConfig".to_owned(), Value::Object(given));
            }
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous);
        }
        Value::Object(config)
    }

    fn cache_path(&self, attachment: &Attachment) -> PathBuf {
        let file = format!("{}-{}-{}", self.network, attachment.container, attachment.interface);
        results(&self.node).join(file)
    }

    fn cache(&self, cached: &Cached) -> Result<(), CniError> {
        let path = self.cache_path(&cached.attachment);
        let failed = |source| CniError::Io { doing: format!("caching the result in {}", path.display()), source };
        fs::create_dir_all(results(&self.node)).map_err(failed)?;
        let text = serde_json::to_vec(cached).map_err(|error| failed(error.into()))?;
        fs::write(&path, text).map_err(failed)
    }
}

/// The attachments of a node that are cached now.
pub(crate) fn cached(node: &Namespace) -> Vec<Cached> {
    let entries = fs::read_dir(results(node)).into_iter().flatten();
    entries.filter_map(|entry| read_cached(&entry.ok()?.path())).collect()
}

fn results(node: &Namespace) -> PathBuf {
    node.root().join("var/lib/cni/results")
}

fn read_cached(path: &Path) -> Option<Cached> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn plugin_type(plugin: &Map<String, Value>) -> Option<&str> {
    plugin.get("type").and_then(Value::as_str)
}

/// What a plugin has answered: its result (null for none), or why it refuses.
fn answer(plugin: &str, command: &str, output: Output) -> Result<Value, CniError> {
    #[derive(Deserialize)]
    struct Refusal {
        code: u32,
        msg: String,
        #[serde(default)]
        details: Option<String>,
    }
    let (plugin, command) = (plugin.to_owned(), command.to_owned());
    if output.status.success() {
        if output.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        if let Ok(result) = serde_json::from_str(&output.stdout) {
            return Ok(result);
        }
    } else if let Ok(Refusal { code, msg, details }) = serde_json::from_str(&output.stdout) {
        let details = details.filter(|details| !details.is_empty());
        return Err(CniError::Refused { plugin, command, code, msg, details });
    }
    let Output { status, stdout, stderr } = output;
    Err(CniError::Senseless { plugin, command, status, stdout, stderr })
}
