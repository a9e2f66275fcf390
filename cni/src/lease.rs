//! Addresses for a plugin that wires by itself (CNI spec section 4, "Plugin Delegation"): a main plugin such as ptp, bridge or
//! macvlan runs this one as its IPAM plugin, with its own environment and configuration, in which `ipam.type` is `manx` and
//! `type` is its own. Nothing is wired here: the result has addresses, each with its subnet and gateway, and routes.
//!
//! What subnet an address has depends on the link that the main plugin makes. ptp has node and pod alone on it, so the gateway
//! is an address of the pod's own, which ptp puts on the node's end. On a bridge and on a physical network pods are neighbours,
//! so all of a network and node are in one subnet, with one gateway.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use types::cni::{Attach, PROTOCOL, Wire};
use types::{EndpointId, Family, LinkKind, Prefix, Subnet};

use crate::args::Attachment;
use crate::client::{Agent, AgentError, AnswerTimeLimit};
use crate::config::{NetworkConfig, invalid};
use crate::spec::{CniError, CniVersion, Code};
use crate::verbs::{self, Outcome};

/// This plugin's type.
const TYPE: &str = "manx";

/// The keys of the `ipam` section that mean something here.
pub(crate) const KEYS: [&str; 4] = ["type", "runDir", "agentSocket", "routes"];

/// What a main plugin's configuration says of the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseConfig {
    /// The kind of link that the main plugin makes.
    pub link: LinkKind,
    /// The value of `ipam.routes`: where the pod's packets go by this interface, with another gateway than the subnet's if one is
    /// named. None: everywhere.
    pub routes: Option<Vec<(Prefix, Option<IpAddr>)>>,
}

/// The `ipam` section, if the configuration is another plugin's that asks this one for addresses.
pub(crate) fn section(object: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let is_ours = |object: &Map<String, Value>| object.get("type").and_then(Value::as_str) == Some(TYPE);
    let ipam = object.get("ipam").and_then(Value::as_object)?;
    (is_ours(ipam) && !is_ours(object)).then_some(ipam)
}

impl LeaseConfig {
    /// `main`: the type of the plugin that wires.
    pub(crate) fn of(main: &str, ipam: &Map<String, Value>) -> Result<Self, CniError> {
        let link = match main {
            "ptp" => LinkKind::PointToPoint,
            _ => LinkKind::Shared,
        };
        let routes = match ipam.get("routes") {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) => Some(items.iter().map(route).collect::<Result<_, _>>()?),
            Some(other) => return Err(invalid(format!("ipam.routes: {other} is not a list"))),
        };
        Ok(Self { link, routes })
    }

    /// The result in the form of `version`.
    fn result(&self, version: CniVersion, wire: &Wire) -> Result<String, CniError> {
        if wire.subnets.len() != wire.addresses.len() || wire.addresses.is_empty() {
            let msg = format!(
                "the agent gives addresses for its own links alone ({:?}): it is older than the CNI plugin; install both of one version",
                wire.addresses
            );
            return Err(CniError::new(Code::Protocol, msg));
        }
        let leased: Vec<_> = wire.addresses.iter().copied().zip(wire.subnets.iter().copied()).collect();
        let ips: Vec<_> = leased.iter().map(|(address, subnet)| ip(version, *address, *subnet)).collect();
        let routes: Vec<_> = match &self.routes {
            None => leased.iter().map(|(address, subnet)| default_route(*address, *subnet)).collect(),
            Some(routes) => routes
                .iter()
                .filter_map(|(destination, gateway)| {
                    let of_family = leased.iter().find(|(address, _)| Family::of(*address) == destination.family())?;
                    let gateway = gateway.unwrap_or(of_family.1.gateway);
                    Some(json!({ "dst": destination.to_string(), "gw": gateway.to_string() }))
                })
                .collect(),
        };
        Ok(json!({ "cniVersion": version, "ips": ips, "routes": routes }).to_string())
    }
}

fn ip(version: CniVersion, address: IpAddr, subnet: Subnet) -> Value {
    let mut ip = json!({ "address": format!("{address}/{}", subnet.length), "gateway": subnet.gateway.to_string() });
    if let (true, Some(ip)) = (version < CniVersion::V1_0_0, ip.as_object_mut()) {
        let family = if address.is_ipv4() { "4" } else { "6" };
        ip.insert("version".to_owned(), json!(family));
    }
    ip
}

fn default_route(address: IpAddr, subnet: Subnet) -> Value {
    let destination = Prefix::default_route(Family::of(address)).to_string();
    json!({ "dst": destination, "gw": subnet.gateway.to_string() })
}

/// An item of `ipam.routes`.
fn route(item: &Value) -> Result<(Prefix, Option<IpAddr>), CniError> {
    let wrong = |what: &str| invalid(format!("ipam.routes: {item} {what}"));
    let fields = item.as_object().ok_or_else(|| wrong("is not an object"))?;
    if let Some(key) = fields.keys().find(|key| !matches!(key.as_str(), "dst" | "gw")) {
        return Err(wrong(&format!("has {key}, and only dst and gw are known")));
    }
    let destination = fields.get("dst").and_then(Value::as_str).and_then(|text| text.parse::<Prefix>().ok());
    let destination = destination.ok_or_else(|| wrong("has no dst that is a prefix"))?;
    let gateway = match fields.get("gw") {
        None | Some(Value::Null) => None,
        Some(gateway) => {
            let gateway = gateway.as_str().and_then(|text| text.parse::<IpAddr>().ok());
            let gateway = gateway.filter(|gateway| Family::of(*gateway) == destination.family());
            Some(gateway.ok_or_else(|| wrong("has a gw that is no address of the family of dst"))?)
        }
    };
    Ok((destination, gateway))
}

/// ADD: addresses from the agent, and nothing else. What the main plugin cannot use it gives back with a DEL.
pub(crate) fn add(config: &NetworkConfig, lease: &LeaseConfig, attachment: &Attachment) -> Result<Outcome, CniError> {
    config.refuse_wishes(attachment)?;
    let pod = attachment.pod()?;
    let mut agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::ADD).map_err(AgentError::into_cni)?;
    let asked = agent.attach(Attach {
        protocol: PROTOCOL,
        id: verbs::endpoint_id(config, attachment),
        pod,
        labels: config.labels.clone(),
        ports: config.ports.clone(),
        maps_host_ports: false,
        addresses_for: Some(lease.link),
    });
    let wire = agent.wire(asked).map_err(AgentError::into_cni)?;
    let notes = verbs::unmap_stale(config, attachment, &wire)?;
    let result = lease.result(config.version, &wire)?;
    agent.wired(None).map_err(AgentError::into_cni)?;
    Ok(Outcome { notes, ..Outcome::success(result) })
}

/// CHECK: the attachment holds what `prevResult` says. What is wired is the main plugin's to check.
pub(crate) fn check(config: &NetworkConfig, id: &EndpointId) -> Result<Vec<String>, CniError> {
    let result = config.previous.as_ref();
    let result = result.ok_or_else(|| invalid("prevResult is missing: CHECK compares with it"))?;
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let address = |ip: &Value| ip.get("address")?.as_str()?.split('/').next()?.parse::<IpAddr>().ok();
    let said: BTreeSet<IpAddr> = ips.filter_map(address).collect();
    let deviates = |what: String| CniError::new(Code::Deviates, format!("{id} is not as ADD left it: {what}"));
    let agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::CHECK);
    match agent.and_then(|mut agent| agent.check(id.clone())) {
        Ok(wire) => match wire.addresses.iter().find(|held| !said.contains(held)) {
            Some(held) => Err(deviates(format!("it holds {held}, which prevResult does not have"))),
            None => Ok(Vec::new()),
        },
        Err(AgentError::Refused(refused)) => Err(deviates(refused.msg)),
        Err(error @ AgentError::OutOfOrder { .. }) => Err(error.into_cni()),
        Err(error) => Ok(vec![format!("{error}; what it keeps of {id} is not checked")]),
    }
}
