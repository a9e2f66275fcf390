//! The form of the settings as they are written, and how the checked ones come of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use types::config::{
    AddressDetection, ClientCertificate, Config, ConfigError, Credentials, DetectionMethod, EndpointToHost,
    EtcdSettings, EtcdTls, IptablesVariant, KernelMarks, KeyPrefix, KubernetesAccess, NatOutgoingExclusions, Password,
    PolicySettings,
};
use types::host_ports::PortRange;
use types::{NameError, NodeName, Prefix};

use crate::keys::KEYS;
use crate::values::{List, Parsed, Pools, Span, Text};

/// Everything that can be written. Each field is a key of the file; what it means is said at its namesake in
/// [`types::config`].
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Shape {
    node_name: Option<Parsed<NodeName>>,
    etcd: Etcd,
    address_detection: Detection,
    bgp: Bgp,
    initial_pools: Option<Pools>,
    mtu: Option<Parsed<u32>>,
    cool_down: Option<Span>,
    reclaim_grace: Option<Span>,
    state_dir: Option<Parsed<PathBuf>>,
    run_dir: Option<Parsed<PathBuf>>,
    health_address: Option<Parsed<SocketAddr>>,
    kernel: Kernel,
    kubernetes: Option<Text>,
    cni_conf_dir: Option<Text>,
    cni_bin_dir: Option<Text>,
    host_ports: HostPorts,
    policy: Policy,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Etcd {
    endpoints: Option<List<String>>,
    ca: Option<Parsed<PathBuf>>,
    cert: Option<Parsed<PathBuf>>,
    key: Option<Parsed<PathBuf>>,
    username: Option<Text>,
    password: Option<Text>,
    prefix: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Detection {
    ipv4: Option<Parsed<DetectionMethod>>,
    ipv6: Option<Parsed<DetectionMethod>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Bgp {
    listen_port: Option<Parsed<u16>>,
    import_prefixes: Option<List<Prefix>>,
    restart_time: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Kernel {
    link_group: Option<Parsed<u32>>,
    protocols: Option<List<u8>>,
    mark_mask: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct HostPorts {
    range: Option<Parsed<PortRange>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Policy {
    endpoint_to_host: Option<Parsed<EndpointToHost>>,
    #[serde(rename = "allowVXLANPacketsFromWorkloads")]
    allow_vxlan: Option<Parsed<bool>>,
    #[serde(rename = "allowIPIPPacketsFromWorkloads")]
    allow_tunnels: Option<Parsed<bool>>,
    nat_outgoing_exclusions: Option<Parsed<NatOutgoingExclusions>>,
    cut_connections: Option<Parsed<bool>>,
    iptables: Option<Parsed<IptablesChoice>>,
    log_group: Option<Parsed<u16>>,
}

/// `policy.iptables` as written: a variant, or none for `auto`.
struct IptablesChoice(Option<IptablesVariant>);

impl std::str::FromStr for IptablesChoice {
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

impl Shape {
    /// Checks what the types of single values cannot, and puts the defaults in. `is_set` tells whether a key is written at all, be
    /// it with no value.
    pub(crate) fn checked(self, is_set: impl Fn(&str) -> bool, host_name: &str) -> Result<Config, ConfigError> {
        let address_detection = AddressDetection {
            ipv4: or(self.address_detection.ipv4, DetectionMethod::FirstFound),
            ipv6: or(self.address_detection.ipv6, DetectionMethod::FirstFound),
        };
        let kubernetes = self.kubernetes.and_then(|Text(text)| match text.as_str() {
            "none" => None,
            "in-cluster" => Some(KubernetesAccess::InCluster),
            path => Some(KubernetesAccess::Kubeconfig(path.into())),
        });
        let by_kubernetes = [&address_detection.ipv4, &address_detection.ipv6];
        if kubernetes.is_none() && by_kubernetes.contains(&&DetectionMethod::KubernetesInternalIp) {
            return refuse("addressDetection", "kubernetes-internal-ip needs the key kubernetes");
        }
        let node_name = match self.node_name {
            Some(Parsed(name)) => name,
            None => host_name
                .to_ascii_lowercase()
                .parse()
                .map_err(|error: NameError| ConfigError::new("nodeName", error.to_string()))?,
        };
        let (listen_port, import_prefixes, restart_time) = self.bgp.checked()?;
        let mtu = self.mtu.map(|Parsed(mtu)| mtu);
        if mtu.is_some_and(|mtu| !(1_280..=65_535).contains(&mtu)) {
            return refuse("mtu", "must be 1280 to 65535 (RFC 8200 section 5)");
        }
        let reclaim_grace = span_or(self.reclaim_grace, 24 * 3_600);
        if reclaim_grace < Duration::from_secs(1) {
            return refuse("reclaimGrace", "must be at least 1s");
        }
        Ok(Config {
            node_name,
            etcd: self.etcd.checked(is_set)?,
            address_detection,
            listen_port,
            import_prefixes,
            restart_time,
            initial_pools: self.initial_pools.map(|Pools(pools)| pools).unwrap_or_default(),
            mtu,
            cool_down: span_or(self.cool_down, 30),
            reclaim_grace,
            state_dir: or(self.state_dir, "/var/lib/manx".into()),
            run_dir: or(self.run_dir, "/run/manx".into()),
            health_address: or(self.health_address, ([127, 0, 0, 1], 9179).into()),
            kernel: self.kernel.checked()?,
            kubernetes,
            cni_conf_dir: self.cni_conf_dir.and_then(folder),
            cni_bin_dir: self.cni_bin_dir.and_then(folder),
            host_ports: self.host_ports.range.map(|Parsed(range)| range),
            policy: self.policy.checked(),
        })
    }
}

impl Etcd {
    fn checked(self, is_set: impl Fn(&str) -> bool) -> Result<Option<EtcdSettings>, ConfigError> {
        let endpoints = self.endpoints.map(|List(endpoints)| endpoints).unwrap_or_default();
        if endpoints.is_empty() {
            // A node whose settings speak of etcd shall not work alone because of a slip.
            return match KEYS.iter().find(|key| key.starts_with("etcd.") && is_set(key)) {
                Some(key) => refuse(key, "is set, but etcd.endpoints is not"),
                None => Ok(None),
            };
        }
        let path = |path: Option<Parsed<PathBuf>>| path.map(|Parsed(path)| path);
        let text = |text: Option<Text>| text.map(|Text(text)| text);
        let client = pair(("etcd.cert", path(self.cert)), ("etcd.key", path(self.key)))?
            .map(|(cert, key)| ClientCertificate { cert, key });
        let tls = match (path(self.ca), client) {
            (Some(ca), client) => Some(EtcdTls { ca, client }),
            (None, Some(_)) => return refuse("etcd.ca", "missing beside etcd.cert"),
            (None, None) => None,
        };
        let mut settings = EtcdSettings::new(endpoints, tls)?;
        settings.user = pair(("etcd.username", text(self.username)), ("etcd.password", text(self.password)))?
            .map(|(username, password)| Credentials { username, password: Password::new(password) });
        if let Some(Text(prefix)) = self.prefix {
            settings.prefix =
                prefix.parse::<KeyPrefix>().map_err(|problem| ConfigError::new("etcd.prefix", problem))?;
        }
        Ok(Some(settings))
    }
}

impl Bgp {
    fn checked(self) -> Result<(Option<u16>, Vec<Prefix>, Duration), ConfigError> {
        let listen_port = self.listen_port.map(|Parsed(port)| port);
        if listen_port == Some(0) {
            return refuse("bgp.listenPort", "0 is not a port");
        }
        let restart_time = span_or(self.restart_time, 120);
        if !(1..=4_095).contains(&restart_time.as_secs()) {
            return refuse("bgp.restartTime", "must be 1s to 4095s (RFC 4724 section 3)");
        }
        Ok((listen_port, self.import_prefixes.map(|List(prefixes)| prefixes).unwrap_or_default(), restart_time))
    }
}

impl Kernel {
    fn checked(self) -> Result<KernelMarks, ConfigError> {
        let mut marks = KernelMarks::DEFAULT;
        marks.link_group = or(self.link_group, marks.link_group);
        if marks.link_group == 0 {
            return refuse("kernel.linkGroup", "0 is the group of every interface on the host");
        }
        match self.protocols.map(|List(protocols)| protocols).unwrap_or_default().as_slice() {
            [] => {}
            // The kernel keeps the numbers up to 4 for itself (rtnetlink.h).
            [local, bgp] if local != bgp && *local > 4 && *bgp > 4 => {
                (marks.local_protocol, marks.bgp_protocol) = (*local, *bgp);
            }
            _ => return refuse("kernel.protocols", "must be two different numbers of 5 to 255 (local, bgp)"),
        }
        if let Some(Text(text)) = self.mark_mask {
            marks.mark_mask = text
                .parse()
                .map_err(|problem| ConfigError::new("kernel.markMask", format!("{text:?} is {problem}")))?;
        }
        Ok(marks)
    }
}

impl Policy {
    fn checked(self) -> PolicySettings {
        let default = PolicySettings::default();
        PolicySettings {
            endpoint_to_host: or(self.endpoint_to_host, default.endpoint_to_host),
            allow_vxlan: or(self.allow_vxlan, default.allow_vxlan),
            allow_tunnels: or(self.allow_tunnels, default.allow_tunnels),
            nat_outgoing_exclusions: or(self.nat_outgoing_exclusions, default.nat_outgoing_exclusions),
            cut_connections: or(self.cut_connections, default.cut_connections),
            iptables: or(self.iptables, IptablesChoice(default.iptables)).0,
            log_group: or(self.log_group, default.log_group),
        }
    }
}

fn or<T>(written: Option<Parsed<T>>, default: T) -> T {
    written.map_or(default, |Parsed(value)| value)
}

/// The folder that is named; an empty name is none.
fn folder(Text(name): Text) -> Option<PathBuf> {
    (!name.is_empty()).then(|| name.into())
}

fn span_or(written: Option<Span>, seconds: u64) -> Duration {
    written.map_or_else(|| Duration::from_secs(seconds), |Span(duration)| duration)
}

/// Two keys that are written together or not at all. The error names the one that is written alone and the missing one.
fn pair<T>(
    (key, value): (&'static str, Option<T>),
    (other_key, other): (&'static str, Option<T>),
) -> Result<Option<(T, T)>, ConfigError> {
    let alone = |key, missing| refuse(key, &format!("goes with {missing}, which is not set"));
    match (value, other) {
        (Some(value), Some(other)) => Ok(Some((value, other))),
        (None, None) => Ok(None),
        (Some(_), None) => alone(key, other_key),
        (None, Some(_)) => alone(other_key, key),
    }
}

fn refuse<T>(key: &'static str, problem: &str) -> Result<T, ConfigError> {
    Err(ConfigError::new(key, problem))
}
