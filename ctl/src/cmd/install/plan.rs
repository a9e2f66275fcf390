//! What a node needs before an agent runs on it, decided from what it has.
//!
//! The agent changes nothing of this by itself, and would have to be privileged if it did.

use std::path::{Path, PathBuf};

use kernel::SysctlKey;
use types::InterfaceName;

/// The folder where runtimes look for CNI binaries.
pub(crate) const CNI_BIN: &str = "opt/cni/bin";

/// systemd's configuration; a host without this folder has no systemd.
pub(crate) const SYSTEMD: &str = "etc/systemd";

/// Our part of systemd-networkd's configuration.
pub(crate) const NETWORKD: &str = "etc/systemd/networkd.conf.d/50-manx.conf";

/// systemd-networkd deletes routes and rules that it has not made, unless it is told not to.
pub(crate) const NETWORKD_TEXT: &str = "\
# Made by Manx: routes and rules of other programs stay when systemd-networkd restarts.
[Network]
ManageForeignRoutes=no
ManageForeignRoutingPolicyRules=no
";

/// The modules that the agent's requests need in the kernel. Most are loaded by the kernel itself when they are first asked
/// for, unless the host forbids that to containers.
const MODULES: [&str; 10] = [
    "nf_tables",
    "nft_compat",
    "xt_set",
    "ip_set",
    "ip_set_hash_ip",
    "ip_set_hash_net",
    "ip_set_hash_ipport",
    "ip_set_hash_netiface",
    "nf_conntrack_netlink",
    "nfnetlink_log",
];

/// The binary that other networks bring along, too: one that is there already stays.
const SHARED: &str = "portmap";

/// The state that the node is in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// `net/ipv4/ip_forward`; none where the kernel has no such key.
    pub(crate) ipv4_forwarding: Option<String>,
    /// The value of `net/ipv6/conf/all/forwarding`.
    pub(crate) ipv6_forwarding: Option<String>,
    pub(crate) interfaces: Vec<InterfaceSeen>,
    /// Whether the legacy iptables are in use.
    pub(crate) legacy_iptables: bool,
    /// Whether the host has systemd.
    pub(crate) systemd: bool,
    /// The contents of [`NETWORKD`].
    pub(crate) networkd: Option<String>,
    /// Our CNI binaries, and what is in their places.
    pub(crate) binaries: Vec<BinarySeen>,
}

/// An interface's IPv6 settings.
#[derive(Debug, Clone)]
pub(crate) struct InterfaceSeen {
    pub(crate) name: InterfaceName,
    pub(crate) accept_ra: String,
    pub(crate) forwarding: String,
}

/// A binary to be installed.
#[derive(Debug, Clone)]
pub(crate) struct BinarySeen {
    pub(crate) name: String,
    pub(crate) there: There,
}

/// What is found where a file is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    Nothing,
    /// A file that nobody may execute.
    Unusable,
    Same,
    Other,
}

/// One change to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InstallStep {
    /// Load a kernel module, if there is one of that name.
    Module(&'static str),
    /// Set a sysctl.
    Sysctl { key: SysctlKey, value: &'static str },
    /// Write a file below the host's root; a host whose file cannot be written goes on without.
    Write { path: &'static str, text: &'static str },
    /// Put a CNI binary in its place.
    Binary(String),
}

impl std::fmt::Display for InstallStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Module(name) => write!(f, "module {name}: loaded"),
            Self::Sysctl { key, value } => write!(f, "sysctl {key}: {value}"),
            Self::Write { path, .. } => write!(f, "/{path}: written"),
            Self::Binary(name) => write!(f, "/{CNI_BIN}/{name}: installed"),
        }
    }
}

/// What is to be done on a node, in this order, given what it has.
pub(crate) fn plan(seen: &Seen) -> Vec<InstallStep> {
    let mut steps: Vec<_> = MODULES.into_iter().map(InstallStep::Module).collect();
    if seen.legacy_iptables {
        // The module of the other family may not be loaded yet: iptables would load it, and is not allowed to.
        steps.extend(["ip_tables", "ip6_tables"].map(InstallStep::Module));
    }
    if seen.systemd && seen.networkd.as_deref() != Some(NETWORKD_TEXT) {
        steps.push(InstallStep::Write { path: NETWORKD, text: NETWORKD_TEXT });
    }
    if off(seen.ipv6_forwarding.as_ref()) {
        // A router does not listen to routers: one that did, and that may have its default route from them, is told to
        // go on (RFC 4861 section 6.2.5; accept_ra in the kernel's ip-sysctl).
        let listens = |interface: &&InterfaceSeen| {
            interface.accept_ra == "1" && interface.forwarding == "0" && !interface.name.is_ours()
        };
        let key = |interface: &InterfaceSeen| SysctlKey::ipv6_conf(&interface.name, "accept_ra");
        let listening = seen.interfaces.iter().filter(listens);
        steps.extend(listening.map(|interface| InstallStep::Sysctl { key: key(interface), value: "2" }));
        steps.push(InstallStep::Sysctl { key: SysctlKey::global("ipv6/conf/all/forwarding"), value: "1" });
    }
    if off(seen.ipv4_forwarding.as_ref()) {
        steps.push(InstallStep::Sysctl { key: SysctlKey::global("ipv4/ip_forward"), value: "1" });
    }
    // Binaries come last: once they are in place, a runtime may start pods.
    let wanted = |binary: &&BinarySeen| match binary.there {
        There::Nothing | There::Unusable => true,
        There::Same => false,
        There::Other => binary.name != SHARED,
    };
    steps.extend(seen.binaries.iter().filter(wanted).map(|binary| InstallStep::Binary(binary.name.clone())));
    steps
}

fn off(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "0")
}

/// Where a binary goes, below the host's root.
pub(crate) fn place(host: &Path, binary: &str) -> PathBuf {
    host.join(CNI_BIN).join(binary)
}

/// Where a file is while it is being written, beside its place.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

#[cfg(test)]
mod tests;
