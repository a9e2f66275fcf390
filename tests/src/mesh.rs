//! The mesh topology, and what its nodes and its router say of each other.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use types::Family;

use crate::{CONVERGENCE, Lab, Node, Options, Place, Pod, TestResult, topology_file, wait_until};

/// How many datagrams a probe sends in a second while something is killed.
pub const RATE: u32 = 200;

/// The address of the host behind the router.
pub fn host_address(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => [192, 0, 2, 10].into(),
        Family::Ipv6 => [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10].into(),
    }
}

/// A mesh with one pod on each of two nodes, which reach each other.
///
/// # Errors
///
/// That the lab does not come up, or the pods do not reach each other in [`CONVERGENCE`].
pub fn mesh(name: &str) -> Result<(Lab, Pod, Pod), Box<dyn Error>> {
    let lab = Lab::up(&topology_file("mesh.clab.yml"), &Options::unique(name))?;
    let (one, two) = (lab.node("node1").plug("a")?, lab.node("node2").plug("a")?);
    for (from, to) in [(&one, &two), (&two, &one)] {
        reaches(from, to)?;
    }
    Ok((lab, one, two))
}

/// Waits until a pod reaches another by either family.
///
/// # Errors
///
/// The pod does not reach the other one in [`CONVERGENCE`].
pub fn reaches(from: &Pod, to: &Pod) -> TestResult {
    for family in Family::ALL {
        let what = format!("{} reaching {} by {family}", from.name(), to.name());
        wait_until(&what, CONVERGENCE, || from.ping(to.address(family)))?;
    }
    Ok(())
}

/// What `manxctl node status` says on a node.
///
/// # Errors
///
/// That manxctl cannot tell, or that its answer is no JSON.
pub fn status(node: &Node) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_str(&node.agent().ctl(&["node", "status", "-o", "json"])?)?)
}

/// The session with this address in what [`status`] says.
pub fn peer<'a>(status: &'a Value, address: &str) -> Option<&'a Value> {
    status.get("peers")?.as_array()?.iter().find(|peer| peer["address"] == address)
}

/// The number of a node's sessions, if every one of them is established.
pub fn all_established(node: &Node) -> Option<usize> {
    let status = status(node).ok()?;
    let peers = status.get("peers")?.as_array()?;
    peers.iter().all(|peer| peer["state"] == "established").then_some(peers.len())
}

/// Whether all of a node's sessions have been established for this long.
fn settled(node: &Node, seconds: u64) -> bool {
    let peers = status(node).ok().and_then(|mut status| status.get_mut("peers")?.as_array_mut().map(std::mem::take));
    let since = |peer: &Value| peer["sinceSecs"].as_u64().filter(|_| peer["state"] == "established");
    peers.is_some_and(|peers| !peers.is_empty() && peers.iter().all(|peer| since(peer) >= Some(seconds)))
}

/// Whether neither this node nor the router keeps paths of a peer that restarts. A node whose agent does not answer may
/// keep some.
fn nothing_is_stale(lab: &Lab) -> bool {
    !lab.manx_nodes().any(node_keeps) && !Family::ALL.into_iter().any(|family| router_keeps(lab, family))
}

/// Whether a node keeps paths of a peer that restarts; true also if its agent does not answer.
pub fn node_keeps(node: &Node) -> bool {
    let said = node.agent().ctl(&["bgp", "routes", "-o", "json"]);
    said.map_or(true, |json| json.contains("\"stale\": true"))
}

/// Whether the router keeps paths of a peer that restarts; true also if it does not answer.
pub fn router_keeps(lab: &Lab, family: Family) -> bool {
    let family = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
    let said = lab.node("tor").frr().vtysh(&format!("show bgp {family} unicast json"));
    said.map_or(true, |json| json.contains("\"stale\":true"))
}

/// Waits until a node's sessions have been up for a while, and until for a second nobody has kept paths from before:
/// late enough for what goes wrong when the restart is taken to be over.
///
/// # Errors
///
/// That this is not so in [`CONVERGENCE`].
pub fn restart_is_over(lab: &Lab, node: &Node) -> TestResult {
    wait_until("the sessions being up for a while", CONVERGENCE, || settled(node, 3))?;
    let mut since = None;
    wait_until("nobody keeping paths of before", CONVERGENCE, || {
        since = nothing_is_stale(lab).then(|| since.unwrap_or_else(Instant::now));
        since.is_some_and(|since| since.elapsed() > Duration::from_secs(1))
    })?;
    Ok(())
}

/// Applies resources from a node.
///
/// # Errors
///
/// What `manxctl apply` says.
pub fn apply(node: &Node, text: &str) -> TestResult {
    std::fs::write(node.path("/etc/manx/change.yaml"), text)?;
    node.agent().ctl(&["apply", "-f", "/etc/manx/change.yaml"])?;
    Ok(())
}

/// What a node's BGP speaker says of its tables; empty if it cannot be asked.
pub fn routes(node: &Node) -> Vec<Value> {
    let said = node.agent().ctl(&["bgp", "routes", "-o", "json"]).unwrap_or_default();
    serde_json::from_str(&said).unwrap_or_default()
}

/// The blocks that a node announces, of one family.
pub fn own_blocks(node: &Node, family: Family) -> BTreeSet<String> {
    let own = routes(node).into_iter().filter(|route| route["own"] == true);
    let blocks = own.filter_map(|route| route.get("prefix")?.as_str().map(str::to_owned));
    blocks.filter(|block| block.contains(':') == (family == Family::Ipv6)).collect()
}

/// The paths that a node has to a block, as pairs of the peer that told it and the next hop. Paths that are kept only
/// because their peer is restarting do not count.
pub fn paths(node: &Node, block: &str) -> BTreeSet<(String, String)> {
    let route = routes(node).into_iter().find(|route| route["prefix"] == block).unwrap_or_default();
    let paths = route.get("paths").and_then(Value::as_array).into_iter().flatten();
    let fresh = paths.filter(|path| path["stale"] == false);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    fresh.map(|path| (text(&path["peer"]), text(&path["nextHop"]))).collect()
}

/// The paths that the router has to a block, as pairs of the peer that told it and the next hop.
pub fn paths_of_router(router: &Node, family: Family, block: &str) -> BTreeSet<(String, String)> {
    let keyword = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
    let said = router.frr().vtysh(&format!("show bgp {keyword} unicast {block} json")).unwrap_or_default();
    let route: Value = serde_json::from_str(&said).unwrap_or_default();
    let text = |path: &Value, at: &str| path.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let paths = route.get("paths").and_then(Value::as_array).into_iter().flatten();
    paths.map(|path| (text(path, "/peer/peerId"), text(path, "/nexthops/0/ip"))).collect()
}
