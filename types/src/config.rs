//! The agent's settings: from `/etc/manx/agent.yaml` and the environment, into one checked value.
//!
//! Every key of the file is also a variable: `etcd.endpoints` is `MANX_ETCD_ENDPOINTS`, `bgp.listenPort` is
//! `MANX_BGP_LISTEN_PORT`. The variable wins. A key that does not exist is an error naming it; a variable that does not
//! exist is ignored, as Kubernetes itself sets some (`MANX_ETCD_SERVICE_HOST`). Reading the file is the caller's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

use crate::resource::{BlockSizeError, IpPoolSpec};
use crate::{InterfaceName, NodeName, Prefix};

/// Where the file lies unless a flag says otherwise.
pub const FILE: &str = "/etc/manx/agent.yaml";

/// The settings of one node's agent; what `manxctl` needs of them, it reads from the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `nodeName`: this node's name; the host's name where it is not set.
    pub node_name: NodeName,
    /// `etcd`: absent for a node that works alone.
    pub etcd: Option<EtcdSettings>,
    /// `addressDetection.ipv4` and `.ipv6`: how the node finds the address it peers from.
    pub address_detection: AddressDetection,
    /// `bgp.listenPort`: overrides the port of BGPConfiguration for this node.
    pub listen_port: Option<u16>,
    /// `bgp.importPrefixes`: what is accepted from peers beside the pools. `0.0.0.0/0` and `::/0` mean the default route.
    pub import_prefixes: Vec<Prefix>,
    /// `bgp.restartTime`: how long peers keep this node's routes while the agent restarts (RFC 4724 section 3).
    pub restart_time: Duration,
    /// `initialPools`: written as IPPools when there is no pool at all.
    pub initial_pools: Vec<IpPoolSpec>,
    /// `mtu`: of pods' interfaces; found out where it is not set.
    pub mtu: Option<u32>,
    /// `coolDown`: how long a released address rests before it is given out again.
    pub cool_down: Duration,
    /// `reclaimGrace`: how long the blocks of a deleted node stay its own; a node that etcd does not confirm gives out
    /// addresses for half as long.
    pub reclaim_grace: Duration,
    /// `stateDir`: what outlives the agent.
    pub state_dir: PathBuf,
    /// `runDir`: sockets and tombstones.
    pub run_dir: PathBuf,
    /// `healthAddress`: where health and metrics are served.
    pub health_address: SocketAddr,
    /// `kernel`: the numbers that mark what is ours.
    pub kernel: KernelMarks,
    /// `kubernetes`: where policies, namespaces and this node's pods come from; from the store where there is none.
    pub kubernetes: Option<KubernetesAccess>,
    /// `cniConfDir`: where the agent puts the CNI configuration when it can serve ADD; nowhere where it is not set.
    pub cni_conf_dir: Option<PathBuf>,
    /// `policy`: how policies are enforced.
    pub policy: PolicySettings,
}

/// `kubernetes`: how the API server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesAccess {
    /// `in-cluster`: by the service account that a pod is given.
    InCluster,
    /// Anything else: the path of a kubeconfig.
    Kubeconfig(PathBuf),
}

/// `policy`: how policies are enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// `policy.endpointToHost`: what becomes of a pod's traffic to its own node.
    pub endpoint_to_host: EndpointToHost,
    /// `policy.cutConnections`: whether a tightened policy ends the connections that it forbids.
    pub cut_connections: bool,
    /// `policy.iptables`: the variant to use; found out where it is not set.
    pub iptables: Option<IptablesVariant>,
    /// `policy.logGroup`: the NFLOG group that denied packets are shown on while somebody looks.
    pub log_group: u16,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { endpoint_to_host: EndpointToHost::Accept, cut_connections: true, iptables: None, log_group: 77 }
    }
}

/// What becomes of traffic from a pod to the node that it is on. From the node to its pods everything is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointToHost {
    /// `accept`: it is let through, whatever policies say, as Kubernetes documents it.
    Accept,
    /// `policed`: the pod's egress policies decide.
    Policed,
    /// `drop`: it is dropped.
    Drop,
}

impl FromStr for EndpointToHost {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "accept" => Ok(Self::Accept),
            "policed" => Ok(Self::Policed),
            "drop" => Ok(Self::Drop),
            _ => Err("not accept, policed or drop"),
        }
    }
}

/// The two implementations of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IptablesVariant {
    /// `nft`: `iptables-nft`, over nftables.
    Nft,
    /// `legacy`: `iptables-legacy`, the older tables, changed as a whole under a lock.
    Legacy,
}

/// `policy.iptables` as written.
#[derive(Debug, Clone, Copy)]
struct IptablesChoice(Option<IptablesVariant>);

impl FromStr for IptablesChoice {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self(None)),
            "nft" => Ok(Self(Some(IptablesVariant::Nft))),
            "legacy" => Ok(Self(Some(IptablesVariant::Legacy))),
            _ => Err("not auto, nft or legacy"),
        }
    }
}

/// `etcd`: how to reach the datastore.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `etcd.endpoints`: at least one URL.
    pub endpoints: Vec<String>,
    /// `etcd.ca`: a file with the certificates that the servers' are checked against.
    pub ca: Option<PathBuf>,
    /// `etcd.cert`: the client's certificate; goes with `etcd.key`.
    pub cert: Option<PathBuf>,
    /// `etcd.key`: the client's key.
    pub key: Option<PathBuf>,
    /// `etcd.username`; goes with `etcd.password`.
    pub username: Option<String>,
    /// `etcd.password`.
    pub password: Option<String>,
    /// `etcd.prefix`: all keys lie under it.
    pub prefix: String,
}

impl std::fmt::Debug for EtcdSettings {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdSettings").field("endpoints", &self.endpoints).field("prefix", &self.prefix).finish()
    }
}

/// `addressDetection`, per family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressDetection {
    /// For IPv4.
    pub ipv4: DetectionMethod,
    /// For IPv6.
    pub ipv6: DetectionMethod,
}

/// How an address is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectionMethod {
    /// `none`: the node has no address of this family.
    None,
    /// `first-found`: the first global address of an interface that is up, is not the loopback, and is not ours.
    FirstFound,
    /// `interface=NAME`: the first global address of this interface.
    Interface(InterfaceName),
    /// `cidr=PREFIX`: the first address within.
    Cidr(Prefix),
    /// `can-reach=ADDRESS`: the source address that the kernel would use towards it.
    CanReach(std::net::IpAddr),
    /// `kubernetes-internal-ip`: what the node's Node object has as InternalIP; none where it has none of this family.
    KubernetesInternalIp,
    /// An address, said outright.
    Address(std::net::IpAddr),
}

impl FromStr for DetectionMethod {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "{text:?} is not none, first-found, interface=NAME, cidr=PREFIX, can-reach=ADDRESS, \
                 kubernetes-internal-ip or an address"
            )
        };
        match text.split_once('=') {
            None if text == "none" => Ok(Self::None),
            None if text == "first-found" => Ok(Self::FirstFound),
            None if text == "kubernetes-internal-ip" => Ok(Self::KubernetesInternalIp),
            None => text.parse().map(Self::Address).map_err(|_| malformed()),
            Some(("interface", name)) => name.parse().map(Self::Interface).map_err(|error| format!("{error}")),
            Some(("cidr", prefix)) => prefix.parse().map(Self::Cidr).map_err(|error| format!("{error}")),
            Some(("can-reach", address)) => address.parse().map(Self::CanReach).map_err(|_| malformed()),
            Some(_) => Err(malformed()),
        }
    }
}

/// `kernel`: the numbers that mark what is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMarks {
    /// `kernel.linkGroup`: the group that detached links wait in.
    pub link_group: u32,
    /// `kernel.protocols`, first: routes to local pods and unreachable routes of own blocks.
    pub local_protocol: u8,
    /// `kernel.protocols`, second: routes learned by BGP.
    pub bgp_protocol: u8,
    /// `kernel.markMask`: the bits of the packet mark that policy uses.
    pub mark_mask: u32,
}

impl Default for KernelMarks {
    fn default() -> Self {
        Self { link_group: 77, local_protocol: 77, bgp_protocol: 78, mark_mask: 0x00ff_0000 }
    }
}

/// Every key, in the order in which the documentation lists them.
pub const KEYS: &[&str] = &[
    "nodeName",
    "etcd.endpoints",
    "etcd.ca",
    "etcd.cert",
    "etcd.key",
    "etcd.username",
    "etcd.password",
    "etcd.prefix",
    "addressDetection.ipv4",
    "addressDetection.ipv6",
    "bgp.listenPort",
    "bgp.importPrefixes",
    "bgp.restartTime",
    "initialPools",
    "mtu",
    "coolDown",
    "reclaimGrace",
    "stateDir",
    "runDir",
    "healthAddress",
    "kernel.linkGroup",
    "kernel.protocols",
    "kernel.markMask",
    "kubernetes",
    "cniConfDir",
    "policy.endpointToHost",
    "policy.cutConnections",
    "policy.iptables",
    "policy.logGroup",
];

impl Config {
    /// Checks and types what the file (null where there is none) and the environment say; `host_name` names the node
    /// where neither does.
    pub fn new(file: &Value, environment: &BTreeMap<String, String>, host_name: &str) -> Result<Self, ConfigError> {
        let source = Source::new(file, environment)?;
        let config = Self {
            node_name: source.or_else("nodeName", || {
                host_name.to_ascii_lowercase().parse::<NodeName>().map_err(|e| e.to_string())
            })?,
            etcd: source.etcd()?,
            address_detection: AddressDetection {
                ipv4: source.or("addressDetection.ipv4", DetectionMethod::FirstFound)?,
                ipv6: source.or("addressDetection.ipv6", DetectionMethod::FirstFound)?,
            },
            listen_port: source.parse("bgp.listenPort")?,
            import_prefixes: source.list("bgp.importPrefixes")?,
            restart_time: source.duration("bgp.restartTime", Duration::from_secs(120))?,
            initial_pools: source.pools("initialPools")?,
            mtu: source.parse("mtu")?,
            cool_down: source.duration("coolDown", Duration::from_secs(30))?,
            reclaim_grace: source.duration("reclaimGrace", Duration::from_secs(24 * 3_600))?,
            state_dir: source.or("stateDir", PathBuf::from("/var/lib/manx"))?,
            run_dir: source.or("runDir", PathBuf::from("/run/manx"))?,
            health_address: source.or("healthAddress", SocketAddr::from(([127, 0, 0, 1], 9179)))?,
            kernel: source.marks()?,
            kubernetes: source.text("kubernetes")?.and_then(|text| match text.as_str() {
                "none" => None,
                "in-cluster" => Some(KubernetesAccess::InCluster),
                path => Some(KubernetesAccess::Kubeconfig(path.into())),
            }),
            cni_conf_dir: source.text("cniConfDir")?.filter(|folder| !folder.is_empty()).map(PathBuf::from),
            policy: source.policy()?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key: &'static str, problem: &str| Err(ConfigError::new(key, problem));
        let detection = [&self.address_detection.ipv4, &self.address_detection.ipv6];
        if self.kubernetes.is_none() && detection.contains(&&DetectionMethod::KubernetesInternalIp) {
            return bad("addressDetection", "kubernetes-internal-ip needs the key kubernetes");
        }
        if self.listen_port == Some(0) {
            return bad("bgp.listenPort", "0 is not a port");
        }
        if !(1..=4_095).contains(&self.restart_time.as_secs()) {
            return bad("bgp.restartTime", "must be 1s to 4095s (RFC 4724 section 3)");
        }
        if self.reclaim_grace < Duration::from_secs(1) {
            return bad("reclaimGrace", "must be at least 1s");
        }
        if self.mtu.is_some_and(|mtu| !(1_280..=65_535).contains(&mtu)) {
            return bad("mtu", "must be 1280 to 65535 (RFC 8200 section 5)");
        }
        Ok(())
    }
}

/// A setting that cannot be used. The key says where to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {problem}")]
pub struct ConfigError {
    /// The key; `(file)` for the file as a whole.
    pub key: Cow<'static, str>,
    /// What is wrong with its value.
    pub problem: String,
}

impl ConfigError {
    fn new(key: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    let mut name = String::from("MANX_");
    for c in key.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => {
                name.push('_');
                name.push(c);
            }
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// File and environment as one look-up from key to value.
struct Source {
    values: BTreeMap<&'static str, Value>,
}

impl Source {
    fn new(file: &Value, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        flatten("", file, &mut values)?;
        for key in KEYS {
            if let Some(text) = environment.get(&variable(key)).filter(|text| !text.is_empty()) {
                values.insert(*key, Value::String(text.clone()));
            }
        }
        Ok(Self { values })
    }

    /// The value as the text that its type parses from.
    fn text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(ConfigError::new(key, "must be a single value")),
        }
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&self, key: &'static str) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let parsed = text.trim().parse();
        parsed.map(Some).map_err(|error| ConfigError::new(key, format!("{text:?}: {error}")))
    }

    fn or<T: FromStr<Err: std::fmt::Display>>(&self, key: &'static str, default: T) -> Result<T, ConfigError> {
        Ok(self.parse(key)?.unwrap_or(default))
    }

    fn or_else<T: FromStr<Err: std::fmt::Display>>(
        &self,
        key: &'static str,
        default: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        match self.parse(key)? {
            Some(value) => Ok(value),
            None => default().map_err(|problem| ConfigError::new(key, problem)),
        }
    }

    /// A YAML list, or a text with commas.
    fn texts(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        let Some(Value::Array(items)) = self.values.get(key) else {
            let text = self.text(key)?.unwrap_or_default();
            return Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect());
        };
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(ConfigError::new(key, "must be a list of texts")),
        };
        items.iter().map(text).collect()
    }

    fn list<T: FromStr<Err: std::fmt::Display>>(&self, key: &'static str) -> Result<Vec<T>, ConfigError> {
        let parse = |text: String| text.parse().map_err(|error| ConfigError::new(key, format!("{text:?}: {error}")));
        self.texts(key)?.into_iter().map(parse).collect()
    }

    fn duration(&self, key: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(default) };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = match unit {
            "ms" => Some(Duration::from_millis(1)),
            "s" => Some(Duration::from_secs(1)),
            "m" => Some(Duration::from_secs(60)),
            "h" => Some(Duration::from_secs(3_600)),
            _ => None,
        };
        let duration =
            unit.zip(number.parse().ok()).and_then(|(unit, number): (Duration, u32)| unit.checked_mul(number));
        duration
            .ok_or_else(|| ConfigError::new(key, format!("{text:?} is not a duration such as 500ms, 30s, 2m or 24h")))
    }

    fn etcd(&self) -> Result<Option<EtcdSettings>, ConfigError> {
        let endpoints = self.texts("etcd.endpoints")?;
        if endpoints.is_empty() {
            return match KEYS.iter().find(|key| key.starts_with("etcd.") && self.values.contains_key(*key)) {
                Some(key) => Err(ConfigError::new(*key, "is set, but etcd.endpoints is not")),
                None => Ok(None),
            };
        }
        for endpoint in &endpoints {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if host.is_none_or(|host| host.is_empty() || host.starts_with(':')) {
                let problem = format!("{endpoint:?} is not a URL such as https://192.0.2.1:2379");
                return Err(ConfigError::new("etcd.endpoints", problem));
            }
        }
        let settings = EtcdSettings {
            endpoints,
            ca: self.parse("etcd.ca")?,
            cert: self.parse("etcd.cert")?,
            key: self.parse("etcd.key")?,
            username: self.text("etcd.username")?,
            password: self.text("etcd.password")?,
            prefix: self.text("etcd.prefix")?.unwrap_or_else(|| "/manx/v1/".to_owned()),
        };
        let alone = |key, with| Err(ConfigError::new(key, format!("goes with {with}, which is not set")));
        match (&settings.cert, &settings.key, &settings.username, &settings.password) {
            (Some(_), None, ..) => alone("etcd.cert", "etcd.key"),
            (None, Some(_), ..) => alone("etcd.key", "etcd.cert"),
            (.., Some(_), None) => alone("etcd.username", "etcd.password"),
            (.., None, Some(_)) => alone("etcd.password", "etcd.username"),
            _ if !settings.prefix.starts_with('/') || !settings.prefix.ends_with('/') => {
                Err(ConfigError::new("etcd.prefix", "must begin and end with '/'"))
            }
            _ => Ok(Some(settings)),
        }
    }

    /// A list of `{cidr, blockSize}`, or texts `CIDR` and `CIDR=BLOCKSIZE`.
    fn pools(&self, key: &'static str) -> Result<Vec<IpPoolSpec>, ConfigError> {
        let bad = |problem: String| ConfigError::new(key, problem);
        let pool = |cidr: &str, size: Option<u8>| {
            let pool = IpPoolSpec::new(cidr.parse().map_err(|error| bad(format!("{error}")))?, size);
            pool.block_len().map_err(|error: BlockSizeError| bad(error.to_string()))?;
            Ok(pool)
        };
        match self.values.get(key) {
            Some(Value::Array(items)) if items.iter().any(Value::is_object) => items
                .iter()
                .map(|item| {
                    let Some(Value::String(cidr)) = item.get("cidr") else {
                        return Err(bad("every pool needs a cidr".to_owned()));
                    };
                    let mut fields = item.as_object().into_iter().flat_map(|item| item.keys());
                    if let Some(field) = fields.find(|field| *field != "cidr" && *field != "blockSize") {
                        return Err(bad(format!("{field} is not cidr or blockSize")));
                    }
                    let size = item.get("blockSize").map(|size| {
                        size.as_u64()
                            .and_then(|size| u8::try_from(size).ok())
                            .ok_or_else(|| bad(format!("blockSize {size}")))
                    });
                    pool(cidr, size.transpose()?)
                })
                .collect(),
            _ => self
                .texts(key)?
                .iter()
                .map(|text| match text.split_once('=') {
                    None => pool(text, None),
                    Some((cidr, size)) => {
                        pool(cidr, Some(size.parse().map_err(|_| bad(format!("{text:?} is not CIDR=BLOCKSIZE")))?))
                    }
                })
                .collect(),
        }
    }

    fn policy(&self) -> Result<PolicySettings, ConfigError> {
        let default = PolicySettings::default();
        Ok(PolicySettings {
            endpoint_to_host: self.or("policy.endpointToHost", default.endpoint_to_host)?,
            cut_connections: self.or("policy.cutConnections", default.cut_connections)?,
            iptables: self.or("policy.iptables", IptablesChoice(None))?.0,
            log_group: self.or("policy.logGroup", default.log_group)?,
        })
    }

    fn marks(&self) -> Result<KernelMarks, ConfigError> {
        let mut marks = KernelMarks::default();
        marks.link_group = self.or("kernel.linkGroup", marks.link_group)?;
        if marks.link_group == 0 {
            let problem = "0 is the group of every interface on the host".to_owned();
            return Err(ConfigError::new("kernel.linkGroup", problem));
        }
        match self.list::<u8>("kernel.protocols")?.as_slice() {
            [] => {}
            // Up to 4 the kernel's own, RFC-less but fixed in rtnetlink.h.
            [local, bgp] if local != bgp && *local > 4 && *bgp > 4 => {
                (marks.local_protocol, marks.bgp_protocol) = (*local, *bgp);
            }
            _ => {
                let problem = "must be two different numbers of 5 to 255 (local, bgp)".to_owned();
                return Err(ConfigError::new("kernel.protocols", problem));
            }
        }
        if let Some(text) = self.text("kernel.markMask")? {
            let mask =
                text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
            let adjacent = |mask: u32| (mask >> mask.trailing_zeros()).trailing_ones() == mask.count_ones();
            let fits = |mask: &u32| (8..=14).contains(&mask.count_ones()) && adjacent(*mask) && mask & 0xe000 == 0;
            marks.mark_mask = mask.filter(fits).ok_or_else(|| {
                let rule = "8 to 14 bits next to each other that keep clear of 0x2000, 0x4000 and 0x8000";
                ConfigError::new("kernel.markMask", format!("{text:?} is not a mask of {rule}"))
            })?;
        }
        Ok(marks)
    }
}

/// Turns the nested file into dotted keys; a key that does not exist is an error.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<&'static str, Value>) -> Result<(), ConfigError> {
    let unknown = || ConfigError::new(path.to_owned(), "does not exist");
    if let Some(key) = KEYS.iter().find(|key| **key == path) {
        into.insert(key, value.clone());
        return Ok(());
    }
    let group =
        path.is_empty() || KEYS.iter().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
    match value {
        Value::Object(object) if group => object.iter().try_for_each(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            flatten(&path, value, into)
        }),
        Value::Null if group => Ok(()),
        _ if path.is_empty() => Err(ConfigError::new("(file)", "must be a mapping")),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(file: Value, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::new(&file, &environment, "Node-A").map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_configuration_is_one_node_alone_with_the_documented_defaults() {
        let config = config(Value::Null, &[]).unwrap();
        assert_eq!(config.node_name.as_str(), "node-a");
        assert_eq!(config.etcd, None);
        assert_eq!(config.restart_time, Duration::from_secs(120));
        assert_eq!(config.kernel, KernelMarks::default());
    }

    #[test]
    fn every_key_has_a_variable_which_wins_over_the_file() {
        assert_eq!(variable("etcd.endpoints"), "MANX_ETCD_ENDPOINTS");
        assert_eq!(variable("bgp.listenPort"), "MANX_BGP_LISTEN_PORT");
        let file = json!({"etcd": {"endpoints": ["http://192.0.2.1:2379"]}, "mtu": 1500, "initialPools": [{"cidr": "10.65.0.0/16", "blockSize": 28}]});
        let environment = [
            ("MANX_ETCD_ENDPOINTS", "http://192.0.2.2:2379, http://192.0.2.3:2379"),
            ("MANX_INITIAL_POOLS", "10.66.0.0/16=20,fd00:66::/64"),
            ("MANX_BGP_IMPORT_PREFIXES", "0.0.0.0/0"),
            ("MANX_ADDRESS_DETECTION_IPV4", "interface=eth1"),
            ("MANX_COOL_DOWN", "500ms"),
            ("MANX_ETCD_SERVICE_HOST", "set by Kubernetes"),
        ];
        let config = config(file, &environment).unwrap();
        assert_eq!(config.etcd.unwrap().endpoints.len(), 2);
        assert_eq!(config.initial_pools[0].block_len().unwrap().len(), 20);
        assert_eq!(config.initial_pools[1].block_len().unwrap().len(), 122);
        assert_eq!(config.import_prefixes, [Prefix::default_route(crate::Family::Ipv4)]);
        assert_eq!(config.address_detection.ipv4, DetectionMethod::Interface("eth1".parse().unwrap()));
        assert_eq!((config.mtu, config.cool_down), (Some(1500), Duration::from_millis(500)));
    }

    #[test]
    fn every_bad_setting_is_an_error_that_names_its_key() {
        for (file, culprit) in [
            (json!({"etdc": {"endpoints": []}}), "etdc"),
            (json!({"etcd": {"endpoint": []}}), "etcd.endpoint"),
            (json!({"etcd": {"endpoints": ["192.0.2.1:2379"]}}), "etcd.endpoints: \"192.0.2.1:2379\""),
            (json!({"etcd": {"ca": "/x"}}), "etcd.ca"),
            (json!({"etcd": {"endpoints": ["http://a:1"], "cert": "/x"}}), "etcd.cert"),
            (json!({"etcd": {"endpoints": ["http://a:1"], "username": "u"}}), "etcd.username"),
            (json!({"etcd": {"endpoints": ["http://a:1"], "prefix": "x"}}), "etcd.prefix"),
            (json!({"nodeName": "Not A Name"}), "nodeName"),
            (json!({"addressDetection": {"ipv4": "guess"}}), "addressDetection.ipv4"),
            (json!({"bgp": {"listenPort": 0}}), "bgp.listenPort"),
            (json!({"bgp": {"listenPort": 65536}}), "bgp.listenPort"),
            (json!({"bgp": {"importPrefixes": ["10.0.0.1/8"]}}), "bgp.importPrefixes"),
            (json!({"bgp": {"restartTime": "2h"}}), "bgp.restartTime"),
            (json!({"bgp": {"restartTime": 120}}), "bgp.restartTime"),
            (
                json!({"initialPools": [{"cidr": "10.0.0.0/28", "blockSize": 26}]}),
                "initialPools: blockSize 26 does not fit",
            ),
            (json!({"initialPools": [{"cidr": "10.0.0.0/16", "size": 26}]}), "initialPools: size"),
            (json!({"mtu": 576}), "mtu"),
            (json!({"reclaimGrace": "0s"}), "reclaimGrace"),
            (json!({"coolDown": "soon"}), "coolDown"),
            (json!({"healthAddress": "9179"}), "healthAddress"),
            (json!({"kernel": {"linkGroup": 0}}), "kernel.linkGroup"),
            (json!({"kernel": {"protocols": [77, 77]}}), "kernel.protocols"),
            (json!({"kernel": {"markMask": "0x4000"}}), "kernel.markMask"),
            (json!(["x"]), "must be a mapping"),
        ] {
            let error = config(file.clone(), &[]).unwrap_err();
            assert!(error.contains(culprit), "{culprit} in {error}");
        }
        let error = config(Value::Null, &[("MANX_MTU", "big")]).unwrap_err();
        assert!(error.contains("configuration key mtu: \"big\""), "{error}");
    }
}
