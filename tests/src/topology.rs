//! Containerlab's topology files, as far as the lab carries them out.
//!
//! A file is read, checked and flattened into a [`Topology`]: what stands under `defaults`, `kinds` and `groups` is merged
//! into each node as containerlab merges it (the nearest level wins; `env` and `sysctls` merge by key, `binds` by
//! destination, `exec` adds up). A key or kind that the lab does not carry out is an error that names it: a topology that
//! comes up here but means something else under containerlab would prove nothing. Keys that only describe (`labels`) are
//! accepted; a Kubernetes node gets them, elsewhere they have no effect.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use types::{Family, InterfaceName, Prefix};

/// A topology, checked and flattened.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    /// The management network: every node's `eth0`.
    pub management: Management,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeSpec>,
    /// The links between them.
    pub links: Vec<LinkSpec>,
}

/// The management network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Management {
    /// The IPv4 subnet; its first address is the gateway.
    pub ipv4: Prefix,
    /// The IPv6 subnet; its first address is the gateway.
    pub ipv6: Prefix,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// What the lab runs in the node.
    pub role: Role,
    /// Commands that run once the node and its links exist. They are words as a shell splits them, without a shell.
    pub exec: Vec<Vec<String>>,
    /// Files and folders of the host seen inside.
    pub binds: Vec<Bind>,
    /// Environment of everything that runs in the node.
    pub env: BTreeMap<String, String>,
    /// The labels of the node; a machine's become the labels of its Kubernetes node.
    pub labels: BTreeMap<String, String>,
    /// Kernel settings of the node's network namespace.
    pub sysctls: BTreeMap<String, String>,
    /// The command that replaces what the image runs. A router of FRR that has one starts no daemons: its `exec` does.
    pub command: Option<Vec<String>>,
    /// The IPv4 address of `eth0`, if the file fixes it.
    pub management_ipv4: Option<Ipv4Addr>,
    /// The IPv6 address of `eth0`, if the file fixes it.
    pub management_ipv6: Option<Ipv6Addr>,
}

/// What a node runs, read off its image's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `manx/agent`: a Manx node, with the agent, the CNI binary and manxctl.
    Manx,
    /// `.../frr`: the FRR daemons that `/etc/frr/daemons` asks for.
    Frr,
    /// `.../etcd`: etcd.
    Etcd,
    /// `kindest/node`: a machine that containers run on. A [`crate::Cluster`] makes it a Kubernetes node.
    Machine,
    /// `.../kube-apiserver`: where a [`crate::Cluster`] has its control plane.
    ControlPlane,
    /// Any other image: a plain host. The lab has no images: commands are those of this machine.
    Host,
}

impl Role {
    fn of_image(image: &str) -> Self {
        let repository = match image.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => image,
        };
        let mut parts = repository.rsplit('/');
        match (parts.next(), parts.next()) {
            (Some("agent"), Some("manx")) => Self::Manx,
            (Some("frr"), _) => Self::Frr,
            (Some("etcd"), _) => Self::Etcd,
            (Some("node"), Some("kindest")) => Self::Machine,
            (Some("kube-apiserver"), _) => Self::ControlPlane,
            _ => Self::Host,
        }
    }
}

/// A file or folder of the host, seen inside a node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct Bind {
    /// The path on the host; absolute.
    pub source: PathBuf,
    /// The path at which the node sees it; absolute.
    pub target: PathBuf,
    /// Whether the node may not write to it.
    pub read_only: bool,
}

/// A point-to-point link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Its two ends.
    pub ends: [LinkEnd; 2],
    /// Its MTU in bytes (default: the kernel's 1500).
    pub mtu: Option<u32>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkEnd {
    /// The node's name.
    pub node: String,
    /// The interface's name in that node.
    pub interface: InterfaceName,
}

/// Why a topology is refused.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file cannot be read.
    #[error("topology {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why the file cannot be read.
        source: std::io::Error,
    },
    /// The file is not YAML, or has a key that the lab does not know (the message names it and where it stands).
    #[error("topology {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// The file has a value that makes no sense or that the lab cannot carry out.
    #[error("topology {}: {at}: {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The node or link that has the value.
        at: String,
        /// What is wrong with the value.
        problem: String,
    },
}

/// What containerlab knows as the other end of a link, so that a node of this name is never reached.
const NOT_NODES: [&str; 3] = ["host", "mgmt-net", "macvlan"];

impl Topology {
    /// Reads a topology file. Relative paths in it are relative to its folder.
    pub fn read(path: &Path) -> Result<Self, TopologyError> {
        let read = |source| TopologyError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let path = path.canonicalize().map_err(read)?;
        Self::parse(&text, &path)
    }

    /// Reads a topology from text; `path` is where it would stand (for messages and relative paths).
    pub fn parse(text: &str, path: &Path) -> Result<Self, TopologyError> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| TopologyError::Syntax { path: path.to_owned(), message: error.to_string() })?;
        let fault =
            |at: &str, problem: String| TopologyError::Value { path: path.to_owned(), at: at.to_owned(), problem };
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));

        if !valid_name(&file.name) {
            return Err(fault("name", format!("{:?} is not a lab's name: letters, digits and '-'", file.name)));
        }
        let mut nodes = BTreeMap::new();
        for (name, own) in &file.topology.nodes {
            if !valid_name(name) {
                return Err(fault(name, "a node's name has letters, digits and '-'".to_owned()));
            }
            if NOT_NODES.contains(&name.as_str()) {
                return Err(fault(
                    name,
                    "containerlab takes this name in a link for something of its own, not for a node".to_owned(),
                ));
            }
            let node = file.topology.flatten(own).and_then(|merged| merged.check(folder));
            nodes.insert(name.clone(), node.map_err(|problem| fault(name, problem))?);
        }
        let mut links = Vec::new();
        let mut taken = BTreeMap::new();
        for (number, link) in file.topology.links.iter().enumerate() {
            let at = format!("link {}", number + 1);
            let link = link.check(&nodes).map_err(|problem| fault(&at, problem))?;
            for end in &link.ends {
                if let Some(other) = taken.insert(end.clone(), number + 1) {
                    return Err(fault(
                        &at,
                        format!("{}:{} is an end of link {other} already", end.node, end.interface),
                    ));
                }
            }
            links.push(link);
        }
        let management = file.mgmt.unwrap_or_default().check().map_err(|problem| fault("mgmt", problem))?;
        for (name, node) in &nodes {
            let fixed = [node.management_ipv4.map(IpAddr::V4), node.management_ipv6.map(IpAddr::V6)];
            for address in fixed.into_iter().flatten() {
                let subnet = match address {
                    IpAddr::V4(_) => management.ipv4,
                    IpAddr::V6(_) => management.ipv6,
                };
                if !subnet.contains(address) {
                    return Err(fault(name, format!("{address} is not in the management network {subnet}")));
                }
            }
        }
        Ok(Self { name: file.name, management, nodes, links })
    }

    /// Leaves out nodes, with their links.
    pub(crate) fn without(mut self, left_out: impl Fn(&str, &NodeSpec) -> bool) -> Self {
        self.nodes.retain(|name, node| !left_out(name, node));
        self.links.retain(|link| link.ends.iter().all(|end| self.nodes.contains_key(&end.node)));
        self
    }

    /// The nodes of a role, by name.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(move |(_, node)| node.role == role).map(|(name, _)| name.as_str())
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    mgmt: Option<MgmtSection>,
    topology: Body,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MgmtSection {
    /// The name that Docker would give the network; the lab's has none.
    #[serde(rename = "network")]
    _network: Option<String>,
    ipv4_subnet: Option<String>,
    ipv6_subnet: Option<String>,
}

impl MgmtSection {
    fn check(&self) -> Result<Management, String> {
        let subnet = |key: &str, text: Option<&String>, default: &str, family: Family| {
            let text = text.map_or(default, String::as_str);
            let prefix: Prefix = text.parse().map_err(|error| format!("{key}: {error}"))?;
            let fits = prefix.family() == family && u32::from(prefix.len()) + 4 <= u32::from(family.bits());
            if fits { Ok(prefix) } else { Err(format!("{key}: {text} is not an {family} subnet with room for a lab")) }
        };
        Ok(Management {
            ipv4: subnet("ipv4-subnet", self.ipv4_subnet.as_ref(), "172.20.20.0/24", Family::Ipv4)?,
            ipv6: subnet("ipv6-subnet", self.ipv6_subnet.as_ref(), "3fff:172:20:20::/64", Family::Ipv6)?,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    defaults: NodeSection,
    #[serde(default)]
    kinds: BTreeMap<String, NodeSection>,
    #[serde(default)]
    groups: BTreeMap<String, NodeSection>,
    nodes: BTreeMap<String, NodeSection>,
    #[serde(default)]
    links: Vec<LinkSection>,
}

impl Body {
    /// A node with everything that it inherits.
    fn flatten(&self, own: &NodeSection) -> Result<NodeSection, String> {
        let group_name = own.group.as_ref().or(self.defaults.group.as_ref());
        let group = group_name.and_then(|name| self.groups.get(name));
        let kind = [Some(own), group, Some(&self.defaults)]
            .into_iter()
            .flatten()
            .find_map(|level| level.kind.as_deref())
            .ok_or("no kind: neither the node, its group nor defaults has one")?;
        let levels = [Some(&self.defaults), self.kinds.get(kind), group, Some(own)];
        let mut merged = levels.into_iter().flatten().fold(NodeSection::default(), NodeSection::overlaid);
        merged.kind = Some(kind.to_owned());
        Ok(merged)
    }
}

/// What may stand under a node, a kind, a group or the defaults.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NodeSection {
    kind: Option<String>,
    image: Option<String>,
    group: Option<String>,
    cmd: Option<String>,
    network_mode: Option<String>,
    startup_config: Option<String>,
    mgmt_ipv4: Option<Ipv4Addr>,
    mgmt_ipv6: Option<Ipv6Addr>,
    #[serde(default)]
    exec: Vec<String>,
    #[serde(default)]
    binds: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    #[serde(default)]
    sysctls: BTreeMap<String, Scalar>,
    #[serde(default)]
    labels: BTreeMap<String, Scalar>,
}

/// A value that people write with or without quotation marks.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

impl NodeSection {
    /// This level with a nearer one laid over it.
    fn overlaid(mut self, nearer: &Self) -> Self {
        let over = |far: Option<String>, near: &Option<String>| near.clone().or(far);
        self.image = over(self.image, &nearer.image);
        self.cmd = over(self.cmd, &nearer.cmd);
        self.network_mode = over(self.network_mode, &nearer.network_mode);
        self.startup_config = over(self.startup_config, &nearer.startup_config);
        self.mgmt_ipv4 = nearer.mgmt_ipv4.or(self.mgmt_ipv4);
        self.mgmt_ipv6 = nearer.mgmt_ipv6.or(self.mgmt_ipv6);
        self.exec.extend(nearer.exec.iter().cloned());
        for bind in &nearer.binds {
            self.binds.retain(|far| bind_target(far) != bind_target(bind));
            self.binds.push(bind.clone());
        }
        self.env.extend(nearer.env.clone());
        self.sysctls.extend(nearer.sysctls.clone());
        self.labels.extend(nearer.labels.clone());
        self
    }

    fn check(&self, folder: &Path) -> Result<NodeSpec, String> {
        match self.kind.as_deref() {
            Some("linux") => {}
            Some(other) => return Err(format!("kind {other:?} is not supported by the lab, which has linux only")),
            None => return Err("no kind".to_owned()),
        }
        self.check_lacking()?;
        let role = Role::of_image(self.image.as_deref().ok_or("no image")?);
        let command = match (&self.cmd, role) {
            (None, _) => None,
            (Some(line), Role::Etcd | Role::Frr | Role::Host) => {
                Some(split_words(line).map_err(|why| format!("cmd: {why}"))?)
            }
            (Some(_), Role::Manx | Role::Machine | Role::ControlPlane) => {
                return Err("cmd is not supported by the lab for this image".to_owned());
            }
        };
        let exec = self.exec.iter().map(|line| split_words(line).map_err(|why| format!("exec {line:?}: {why}")));
        let binds = self.binds.iter().map(|text| check_bind(text, folder));
        let mut sysctls: BTreeMap<_, _> = self.sysctls.iter().map(|(key, value)| (key.clone(), value.text())).collect();
        if role == Role::Frr {
            // Docker's containers have it from Docker's host, which forwards; example routers rely on that. IPv6's they have not.
            sysctls.entry("net.ipv4.ip_forward".to_owned()).or_insert_with(|| "1".to_owned());
        }
        Ok(NodeSpec {
            role,
            exec: exec.collect::<Result<_, _>>()?,
            binds: binds.collect::<Result<_, _>>()?,
            env: self.env.iter().map(|(key, value)| (key.clone(), value.text())).collect(),
            labels: self.labels.iter().map(|(key, value)| (key.clone(), value.text())).collect(),
            sysctls,
            command,
            management_ipv4: self.mgmt_ipv4,
            management_ipv6: self.mgmt_ipv6,
        })
    }
}

impl NodeSection {
    /// Keys that containerlab has and that mean nothing here, or nothing in containerlab either.
    fn check_lacking(&self) -> Result<(), String> {
        if let Some(mode) = self.network_mode.as_deref().filter(|mode| *mode != "bridge") {
            return Err(format!(
                "network-mode {mode:?} is not supported by the lab: every node has a network namespace of its own with eth0 \
                 in the management network, which is `bridge`; give the node's links to the node whose namespace it shares"
            ));
        }
        if let Some(file) = &self.startup_config {
            return Err(format!(
                "startup-config {file:?} is not supported by the lab, and containerlab itself gives it to no node of kind \
                 linux: bind the file to where its program reads it, such as {file}:/etc/frr/frr.conf"
            ));
        }
        Ok(())
    }
}

fn bind_target(bind: &str) -> Option<&str> {
    bind.split(':').nth(1)
}

fn check_bind(text: &str, folder: &Path) -> Result<Bind, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(format!("bind {text:?} is not SOURCE:TARGET or SOURCE:TARGET:ro")),
    };
    if source.contains("__clab") || source.starts_with('~') {
        return Err(format!("bind {text:?}: variables in paths are not supported by the lab"));
    }
    let target = PathBuf::from(target);
    if !target.is_absolute() || target.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("bind {text:?}: the target is not a plain absolute path"));
    }
    Ok(Bind { source: folder.join(source), target, read_only })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkSection {
    endpoints: Vec<String>,
    mtu: Option<u32>,
}

impl LinkSection {
    fn check(&self, nodes: &BTreeMap<String, NodeSpec>) -> Result<LinkSpec, String> {
        let [left, right] = self.endpoints.as_slice() else {
            return Err(format!("a link has {} endpoints, not 2", self.endpoints.len()));
        };
        let end = |text: &str| {
            let (node, interface) = text.split_once(':').ok_or_else(|| format!("{text:?} is not NODE:INTERFACE"))?;
            if !nodes.contains_key(node) {
                return Err(format!("{text:?}: there is no node {node:?}"));
            }
            if interface == "eth0" {
                return Err(format!("{text:?}: eth0 is the management interface"));
            }
            let interface = InterfaceName::new(interface).map_err(|error| error.to_string())?;
            Ok(LinkEnd { node: node.to_owned(), interface })
        };
        Ok(LinkSpec { ends: [end(left)?, end(right)?], mtu: self.mtu })
    }
}

fn valid_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.len() <= 40 && text.chars().all(plain) && !text.starts_with('-')
}

/// Splits a line into words as a shell does: white space separates, quotation marks and backslashes keep together.
pub(crate) fn split_words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or("ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("the {open} is not closed"));
    }
    words.extend(word);
    if words.is_empty() { Err("is empty".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
name: small
topology:
  defaults: { kind: linux, env: { A: far, B: 1 } }
  groups:
    agents: { image: 'registry.example:5000/manx/agent:1.0', exec: [ip link] }
  nodes:
    n1: { group: agents, env: { A: near }, binds: ['x/agent.yaml:/etc/manx/agent.yaml:ro'], exec: [\"sh -c 'echo a b'\"] }
    r1: { image: quay.io/frrouting/frr }
  links:
    - endpoints: ['n1:eth1', 'r1:eth1']
";

    fn parse(text: &str) -> Result<Topology, TopologyError> {
        Topology::parse(text, Path::new("/labs/small.clab.yml"))
    }

    fn refusal(text: &str) -> String {
        parse(text).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn a_node_inherits_from_its_group_and_the_defaults_and_the_nearest_level_wins() {
        let topology = parse(SMALL).unwrap();
        let node = &topology.nodes["n1"];
        assert_eq!(node.role, Role::Manx);
        assert_eq!(node.env["A"], "near");
        assert_eq!(node.env["B"], "1");
        assert_eq!(node.exec, [vec!["ip", "link"], vec!["sh", "-c", "echo a b"]]);
        assert_eq!(node.command, None);
        let bind = Bind { source: "/labs/x/agent.yaml".into(), target: "/etc/manx/agent.yaml".into(), read_only: true };
        assert_eq!(node.binds, [bind]);
        assert_eq!(topology.nodes["r1"].role, Role::Frr);
        assert_eq!(topology.nodes["r1"].sysctls["net.ipv4.ip_forward"], "1");
        assert_eq!(node.sysctls.len(), 0);
    }

    #[test]
    fn an_unknown_key_or_kind_is_refused_by_name() {
        for (from, to, culprit) in [
            ("group: agents,", "group: agents, startup-config: n1/frr.conf,", "n1/frr.conf:/etc/frr/frr.conf"),
            ("group: agents,", "group: agents, startup-delay: 5,", "startup-delay"),
            ("kind: linux", "kind: linux, network-mode: none", "network-mode \"none\""),
            ("group: agents,", "group: agents, network-mode: 'container:r1',", "network-mode \"container:r1\""),
            ("group: agents,", "group: agents, cmd: bash,", "cmd"),
            ("    n1: {", "    host: { group: agents }\n    n1: {", "host"),
            ("name: small", "name: small\nprefix: p", "prefix"),
            ("kind: linux", "kind: nokia_srlinux", "nokia_srlinux"),
            ("'r1:eth1'", "'r2:eth1'", "r2"),
            ("'r1:eth1'", "'n1:eth1'", "n1:eth1"),
            ("'r1:eth1'", "'r1:eth0'", "eth0"),
            ("'r1:eth1'", "'r1:a-very-long-interface'", "a-very-long-interface"),
            ("agent.yaml:ro", "agent.yaml:rx", "agent.yaml:rx"),
            ("'echo a b'", "'echo a b", "not closed"),
            ("name: small", "name: small\nmgmt: { ipv4-subnet: 10.0.0.0/31 }", "ipv4-subnet"),
        ] {
            let text = SMALL.replace(from, to);
            assert_ne!(text, SMALL, "{from}");
            let message = refusal(&text);
            assert!(message.contains(culprit), "{culprit} is not named: {message}");
            assert!(message.contains("small.clab.yml"), "{message}");
        }
    }

    #[test]
    fn a_router_may_be_started_and_configured_by_its_commands_alone() {
        let text =
            SMALL.replace("{ image: quay.io/frrouting/frr }", "{ image: frrouting/frr:v8.2.2, network-mode: bridge }");
        let text = text
            .replace("  groups:", "  kinds: { linux: { cmd: bash } }\n  groups:")
            .replace("group: agents,", "image: a/host,");
        let topology = parse(&text).unwrap();
        assert_eq!(topology.nodes["r1"].role, Role::Frr);
        assert_eq!(topology.nodes["r1"].command, Some(vec!["bash".to_owned()]));
        assert_eq!(topology.nodes["n1"].command, Some(vec!["bash".to_owned()]));
    }
}
