//! Pod networks of a cluster that are not Manx: none, and what it is measured against.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use types::Family;

use super::Cluster;
use crate::LabError;
use crate::node::Node;
use crate::place::Place;
use crate::wait::wait_for;

/// The ranges that pods get their addresses from.
pub(crate) const PODS: [&str; 2] = ["10.42.0.0/16", "fd00:42::/64"];

/// The pod network of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The cluster has no pod network yet: its nodes are not Ready.
    #[default]
    None,
    /// The reference plugins `ptp` and `host-local`, and static routes on nodes and routers.
    Ptp,
    /// Manx, deployed as a user deploys it.
    Manx,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "ptp" => Ok(Self::Ptp),
            "manx" => Ok(Self::Manx),
            _ => Err(format!("{text:?} is not none, ptp or manx")),
        }
    }
}

/// How long the routers may take to tell each other of their racks.
const CONVERGENCE: Duration = Duration::from_secs(60);

/// The range of the pods on a machine, by the machine's place in the cluster.
fn subnet(family: Family, number: usize) -> String {
    match family {
        Family::Ipv4 => format!("10.42.{number}.0/24"),
        Family::Ipv6 => format!("fd00:42:0:0:{number:x}::/80"),
    }
}

/// The CNI configuration of a machine.
fn configuration(number: usize) -> Value {
    let ranges = Family::ALL.map(|family| json!([{ "subnet": subnet(family, number) }]));
    json!({
        "cniVersion": "1.0.0",
        "name": "ptp",
        "plugins": [
            { "type": "ptp", "mtu": 1500, "ipam": {
                "type": "host-local", "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            }},
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// Gives every machine a share of the pods' addresses, and everybody routes to it.
pub(crate) fn ptp(cluster: &Cluster) -> Result<(), LabError> {
    let machines: Vec<_> = cluster.machines().collect();
    let forwarders = || cluster.routers().chain(machines.iter().map(|machine| machine.node));
    for (index, machine) in machines.iter().enumerate() {
        for plugin in ["ptp", "host-local", "portmap"] {
            machine.plugin(plugin)?;
        }
        for family in Family::ALL {
            let (pods, target) = (subnet(family, index + 1), machine.address(family)?);
            for node in forwarders().filter(|node| node.name() != machine.node.name()) {
                let (next_hop, device) = wait_next_hop(node, target)?;
                node.exec(&["ip", "route", "replace", &pods, "via", &next_hop.to_string(), "dev", &device])?;
            }
        }
        machine.network("10-ptp.conflist", &configuration(index + 1))?;
    }
    Ok(())
}

/// The neighbour and interface by which a node reaches an address through the fabric; an error while it does not.
pub(crate) fn wait_next_hop(node: &Node, target: IpAddr) -> Result<(IpAddr, String), LabError> {
    wait_for(&format!("a route to {target} on {}", node.name()), CONVERGENCE, || {
        let said =
            node.exec(&["ip", "-json", "route", "get", &target.to_string()]).map_err(|error| error.to_string())?;
        let routes: Value = serde_json::from_str(&said).unwrap_or_default();
        let field = |key: &str| routes.pointer(&format!("/0/{key}")).and_then(Value::as_str);
        let gateway = field("gateway").and_then(|gateway| gateway.parse().ok());
        match field("dev") {
            None | Some("eth0") => Err("only the management network's".to_owned()),
            Some(device) => Ok((gateway.unwrap_or(target), device.to_owned())),
        }
    })
}
