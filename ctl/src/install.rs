//! What a node needs before an agent runs on it, decided from what it has.
//!
//! The agent changes nothing of this by itself, and would have to be privileged if it did.

use std::path::{Path, PathBuf};

use kernel::SysctlKey;
use types::InterfaceName;

/// Where runtimes look for CNI binaries.
pub(crate) const CNI_BIN: &str = "opt/cni/bin";

/// systemd's configuration; where it is not, there is no systemd.
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

/// What the agent's requests need in the kernel. Most come by themselves when first asked for, unless the host forbids
/// that to containers.
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

/// The binary that others bring along, too: where one is, it stays.
const SHARED: &str = "portmap";

/// What the node has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// `net/ipv4/ip_forward`; none where the kernel has no such key.
    pub(crate) ipv4_forwarding: Option<String>,
    /// `net/ipv6/conf/all/forwarding`.
    pub(crate) ipv6_forwarding: Option<String>,
    pub(crate) interfaces: Vec<InterfaceSeen>,
    /// The legacy iptables are in use.
    pub(crate) legacy_iptables: bool,
    pub(crate) systemd: bool,
    /// What is in [`NETWORKD`].
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

/// What is in a file's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    Nothing,
    Same,
    Other,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Load a kernel module, if there is one of that name.
    Module(&'static str),
    /// Set a sysctl.
    Sysctl { key: SysctlKey, value: &'static str },
    /// Write a file below the host's root; a host whose file cannot be written goes on without.
    Write { path: &'static str, text: &'static str },
    /// Put a CNI binary in its place.
    Binary(String),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Module(name) => write!(f, "module {name}: loaded"),
            Self::Sysctl { key, value } => write!(f, "sysctl {key}: {value}"),
            Self::Write { path, .. } => write!(f, "/{path}: written"),
            Self::Binary(name) => write!(f, "/{CNI_BIN}/{name}: installed"),
        }
    }
}

/// What is to be done on a node, given what it has.
pub(crate) fn plan(seen: &Seen) -> Vec<Step> {
    let mut steps: Vec<_> = MODULES.into_iter().map(Step::Module).collect();
    if seen.legacy_iptables {
        // The other family's, which may be used for the first time; the program would load it, and may not.
        steps.extend(["ip_tables", "ip6_tables"].map(Step::Module));
    }
    if seen.systemd && seen.networkd.as_deref() != Some(NETWORKD_TEXT) {
        steps.push(Step::Write { path: NETWORKD, text: NETWORKD_TEXT });
    }
    if off(seen.ipv6_forwarding.as_ref()) {
        // A router does not listen to routers: one that did, and that may have its default route from them, is told to
        // go on (RFC 4861 section 6.2.5; accept_ra in the kernel's ip-sysctl).
        let listens = |interface: &&InterfaceSeen| {
            interface.accept_ra == "1" && interface.forwarding == "0" && !interface.name.is_ours()
        };
        let key = |interface: &InterfaceSeen| SysctlKey::ipv6_conf(&interface.name, "accept_ra");
        let listening = seen.interfaces.iter().filter(listens);
        steps.extend(listening.map(|interface| Step::Sysctl { key: key(interface), value: "2" }));
        steps.push(Step::Sysctl { key: SysctlKey::global("ipv6/conf/all/forwarding"), value: "1" });
    }
    if off(seen.ipv4_forwarding.as_ref()) {
        steps.push(Step::Sysctl { key: SysctlKey::global("ipv4/ip_forward"), value: "1" });
    }
    // Last: where the binary is, a pod may come.
    let wanted = |binary: &&BinarySeen| match binary.there {
        There::Nothing => true,
        There::Same => false,
        There::Other => binary.name != SHARED,
    };
    steps.extend(seen.binaries.iter().filter(wanted).map(|binary| Step::Binary(binary.name.clone())));
    steps
}

fn off(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "0")
}

/// Where a binary goes, below the host's root.
pub(crate) fn place(host: &Path, binary: &str) -> PathBuf {
    host.join(CNI_BIN).join(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Seen {
        let interface = |name: &str, accept_ra: &str, forwarding: &str| InterfaceSeen {
            name: name.parse().unwrap(),
            accept_ra: accept_ra.to_owned(),
            forwarding: forwarding.to_owned(),
        };
        let binary = |name: &str| BinarySeen { name: name.to_owned(), there: There::Nothing };
        Seen {
            ipv4_forwarding: Some("0".to_owned()),
            ipv6_forwarding: Some("0".to_owned()),
            interfaces: vec![
                interface("eth0", "1", "0"),
                interface("eth1", "0", "0"),
                interface("eth2", "2", "0"),
                interface("eth3", "1", "1"),
                interface("mxabcdefghijkl2", "1", "0"),
            ],
            legacy_iptables: false,
            systemd: true,
            networkd: None,
            binaries: vec![binary("manx"), binary("portmap")],
        }
    }

    /// All but modules, which are asked for every time.
    fn words(seen: &Seen) -> Vec<String> {
        let steps = plan(seen).into_iter().filter(|step| !matches!(step, Step::Module(_)));
        steps.map(|step| step.to_string()).collect()
    }

    #[test]
    fn a_new_node_is_told_of_routers_before_it_becomes_one_and_gets_its_binaries_last() {
        assert_eq!(
            words(&node()),
            [
                "/etc/systemd/networkd.conf.d/50-manx.conf: written",
                "sysctl net/ipv6/conf/eth0/accept_ra: 2",
                "sysctl net/ipv6/conf/all/forwarding: 1",
                "sysctl net/ipv4/ip_forward: 1",
                "/opt/cni/bin/manx: installed",
                "/opt/cni/bin/portmap: installed",
            ]
        );
    }

    #[test]
    fn a_node_that_has_it_all_is_left_alone() {
        let mut seen = node();
        seen.ipv4_forwarding = Some("1".to_owned());
        seen.ipv6_forwarding = Some("1".to_owned());
        seen.networkd = Some(NETWORKD_TEXT.to_owned());
        seen.binaries.iter_mut().for_each(|binary| binary.there = There::Same);
        assert!(words(&seen).is_empty());
    }

    #[test]
    fn an_upgrade_replaces_what_is_ours_and_leaves_what_others_share() {
        let mut seen = node();
        seen.binaries.iter_mut().for_each(|binary| binary.there = There::Other);
        let binaries: Vec<_> = words(&seen).into_iter().filter(|words| words.ends_with("installed")).collect();
        assert_eq!(binaries, ["/opt/cni/bin/manx: installed"]);
    }

    #[test]
    fn what_the_host_does_not_have_is_not_missed() {
        let seen = Seen { ipv4_forwarding: Some("0".to_owned()), ..Seen::default() };
        assert_eq!(words(&seen), ["sysctl net/ipv4/ip_forward: 1"]);
    }

    #[test]
    fn the_legacy_modules_are_for_hosts_that_use_them() {
        let asked = |seen: &Seen| plan(seen).contains(&Step::Module("ip6_tables"));
        assert!(!asked(&node()));
        assert!(asked(&Seen { legacy_iptables: true, ..node() }));
    }
}
