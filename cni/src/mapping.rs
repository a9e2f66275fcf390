//! Host ports of pods. The reference plugin portmap maps them; this plugin runs it, as the runtime may run it in the chain behind
//! this one for ports that the pod names itself. portmap's chains are named after network and container, so the network has a name
//! of its own here.
//!
//! What is mapped is recorded before it is, one file per attachment in a folder of the run folder, with all that portmap needs for
//! its DEL: no agent is needed for that, and none can forget it. The agent reads the records too. It gives a recorded port to
//! nobody else, and names the records of attachments that are gone to the next ADD.

use std::ffi::OsStr;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::host_ports::{HostPort, mapping_network};
use types::{EndpointId, InterfaceName};

use crate::args::Attachment;
use crate::delegate::{DelegateError, Plugin};
use crate::plan::Pairing;
use crate::records;
use crate::result::Attached;
use crate::spec::{CniError, CniVersion, Code};

/// The plugin that maps ports.
const PLUGIN: &str = "portmap";

/// The version that is spoken with it: every portmap that is in use knows it.
const VERSION: CniVersion = CniVersion::V0_4_0;

/// An attachment's host ports, mapped or about to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    /// The attachment.
    pub id: EndpointId,
    /// The host ports.
    pub host_ports: Vec<HostPort>,
    /// The pod's addresses, which they lead to.
    pub addresses: Vec<IpAddr>,
    /// The folders in which the runtime had its plugins at the ADD.
    plugins: Vec<PathBuf>,
    /// The configuration that portmap gets.
    config: Value,
}

impl Mapping {
    /// What is to be mapped to a pod.
    pub fn new(
        id: &EndpointId,
        attachment: &Attachment,
        attached: &Attached<'_>,
        host_ports: Vec<HostPort>,
    ) -> Result<Self, CniError> {
        let previous: Value = serde_json::from_str(&attached.to_json(VERSION, None)?)
            .map_err(|error| CniError::new(Code::Protocol, format!("the result for {PLUGIN}: {error}")))?;
        let Pairing { addresses, .. } = attached.pairing;
        let mapping = |port: &HostPort| {
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.to_string().to_ascii_lowercase(),
            })
        };
        let config = json!({
            "cniVersion": VERSION,
            "name": mapping_network(&id.network, &id.host_interface()),
            "type": PLUGIN,
            "capabilities": { "portMappings": true },
            "runtimeConfig": { "portMappings": host_ports.iter().map(mapping).collect::<Vec<_>>() },
            "prevResult": previous,
        });
        let (id, addresses, plugins) = (id.clone(), addresses.clone(), attachment.plugins.clone());
        Ok(Self { id, host_ports, addresses, plugins, config })
    }

    /// Records it, then maps the ports. What of it there is after a failure, [`unmap`] takes away.
    pub fn make(&self, folder: &Path, netns: &Path) -> Result<(), CniError> {
        let plugin = Plugin::find(PLUGIN, &self.plugins).map_err(|error| error.into_cni("host ports"))?;
        let record = serde_json::to_vec(self).map_err(io::Error::from);
        record.and_then(|record| records::write(folder, &self.id, &record)).map_err(|error| {
            CniError::new(
                Code::Io,
                format!("cannot record the host ports of {} in {}: {error}", self.id, folder.display()),
            )
        })?;
        self.run(&plugin, "ADD", netns.as_os_str()).map_err(|error| error.into_cni("host ports cannot be mapped"))
    }

    /// Whether this is the error of older portmaps (1.1.1 is one), which look for the rules of IPv4 in the tables of IPv6 as well:
    /// their CHECK fails on every node that has ip6tables. Those of IPv4 are right then, as they are looked at first.
    fn is_sought_in_vain(&self, error: &DelegateError) -> bool {
        let DelegateError::Refused { msg, .. } = error else { return false };
        let mut of_ipv4 = self.addresses.iter().filter(|address| address.is_ipv4());
        msg.starts_with("could not check ipv6 dnat") && of_ipv4.any(|address| msg.contains(&format!("{address}/32")))
    }

    fn run(&self, plugin: &Plugin, command: &str, netns: &OsStr) -> Result<(), DelegateError> {
        let plugins = self.plugins.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":");
        let variables = [
            ("CNI_COMMAND", OsStr::new(command)),
            ("CNI_CONTAINERID", OsStr::new(self.id.container.as_str())),
            ("CNI_IFNAME", OsStr::new(self.id.interface.as_str())),
            ("CNI_NETNS", netns),
            ("CNI_PATH", OsStr::new(&plugins)),
        ];
        plugin.run(&variables, &self.config)
    }
}

/// Takes away what is mapped for an attachment; nothing mapped is success, and costs a look at a file. `plugins` are folders to look
/// for portmap in before those of the ADD. Gives what was mapped.
pub fn unmap(folder: &Path, id: &EndpointId, plugins: &[PathBuf]) -> Result<Option<Mapping>, UnmapError> {
    let path = records::path(folder, id);
    let Some(mapping) = read(&path)? else { return Ok(None) };
    let folders: Vec<_> = plugins.iter().chain(&mapping.plugins).cloned().collect();
    let unmapped = Plugin::find(PLUGIN, &folders).and_then(|plugin| mapping.run(&plugin, "DEL", OsStr::new("")));
    match unmapped {
        Ok(()) => {
            records::remove(&path).map_err(|error| UnmapError::Record { path, error })?;
            Ok(Some(mapping))
        }
        Err(error) => Err(UnmapError::Plugin { mapping: Box::new(mapping), error }),
    }
}

/// What is wrong with the host ports of an attachment: portmap's own CHECK of what is recorded. `given` is what the agent has given
/// it. `plugins` are folders to look for portmap in before those of the ADD.
pub fn check(
    folder: &Path,
    id: &EndpointId,
    given: &[HostPort],
    netns: &Path,
    plugins: &[PathBuf],
) -> Result<Checked, UnmapError> {
    let mapping = read(&records::path(folder, id))?;
    let mapped = mapping.as_ref().map_or(&[][..], |mapping| &mapping.host_ports);
    let missing: Vec<_> =
        given.iter().filter(|port| !mapped.contains(port)).map(|port| port.host_port.to_string()).collect();
    let mut checked = Checked::default();
    if !missing.is_empty() {
        checked.wrong.push(format!("host ports {} are the pod's and not mapped to it", missing.join(", ")));
    }
    if let Some(mapping) = mapping {
        let folders: Vec<_> = plugins.iter().chain(&mapping.plugins).cloned().collect();
        let outcome =
            Plugin::find(PLUGIN, &folders).and_then(|plugin| mapping.run(&plugin, "CHECK", netns.as_os_str()));
        match outcome {
            Ok(()) => {}
            Err(error) if mapping.is_sought_in_vain(&error) => checked.unknown = Some(format!("host ports: {error}")),
            Err(error) => checked.wrong.push(format!("host ports: {error}")),
        }
    }
    Ok(checked)
}

/// What a CHECK of host ports has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// All that is wrong.
    pub wrong: Vec<String>,
    /// What portmap could not tell.
    pub unknown: Option<String>,
}

/// Takes away what is mapped for all attachments that are meant, by the plugins of their ADDs; what stays is given back.
pub fn unmap_all(folder: &Path, is_meant: impl Fn(&EndpointId) -> bool) -> io::Result<Vec<UnmapError>> {
    let meant = list(folder, |_| true)?.into_iter().filter(|mapping| is_meant(&mapping.id));
    Ok(meant.filter_map(|mapping| unmap(folder, &mapping.id, &[]).err()).collect())
}

/// Takes the record of an attachment away: what it says is not mapped any more. None there is success.
pub fn forget(folder: &Path, id: &EndpointId) -> io::Result<()> {
    records::remove(&records::path(folder, id))
}

/// Whether there is a record of the attachment.
pub fn is_recorded(folder: &Path, id: &EndpointId) -> bool {
    records::path(folder, id).exists()
}

/// Why host ports stay mapped.
#[derive(Debug, thiserror::Error)]
pub enum UnmapError {
    /// portmap does not take them away.
    #[error("host ports of {} stay mapped: {error}", mapping.id)]
    Plugin {
        /// The host ports with what they lead to.
        mapping: Box<Mapping>,
        /// The reason.
        error: DelegateError,
    },
    /// The record cannot be read, or not be removed.
    #[error("{}: {error}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

impl UnmapError {
    /// In the terms of CNI.
    pub fn into_cni(self) -> CniError {
        match self {
            Self::Plugin { mapping, error } => error.into_cni(&format!("host ports of {} stay mapped", mapping.id)),
            Self::Record { .. } => CniError::new(Code::Io, self.to_string()),
        }
    }

    /// Whether a host port leads, or may lead, to one of these addresses.
    pub fn concerns(&self, addresses: &[IpAddr]) -> bool {
        match self {
            Self::Plugin { mapping, .. } => mapping.addresses.iter().any(|address| addresses.contains(address)),
            Self::Record { .. } => true,
        }
    }
}

/// What is recorded in the folder of attachments whose host interface is `wanted`; where there is no folder there is nothing. A
/// record that makes no sense is left out.
pub fn list(folder: &Path, wanted: impl Fn(&InterfaceName) -> bool) -> io::Result<Vec<Mapping>> {
    let mut found = Vec::new();
    for (_, path) in records::list(folder)?.into_iter().filter(|(name, _)| wanted(name)) {
        // One that is not there any more was unmapped in this moment.
        let text = records::read(&path)?;
        found.extend(text.and_then(|text| serde_json::from_slice::<Mapping>(&text).ok()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Option<Mapping>, UnmapError> {
    let unreadable = |error: io::Error| UnmapError::Record { path: path.to_owned(), error };
    let Some(text) = records::read(path).map_err(unreadable)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(error.into()))
}
