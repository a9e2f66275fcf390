//! The wires: links between nodes, and the management network.
//!
//! They are made with iproute2 and not with crate `kernel`: what is tested does not build its own test bed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use types::{Family, Prefix};

use crate::LabError;
use crate::namespace::Namespace;
use crate::topology::{Management, Topology};

/// The bridge of the management network, in a namespace of its own.
const BRIDGE: &str = "br0";

/// The addresses of every node's `eth0`, and the gateway's.
#[derive(Debug, Clone)]
pub(crate) struct ManagementPlan {
    network: Management,
    nodes: BTreeMap<String, [IpAddr; 2]>,
}

impl ManagementPlan {
    /// Gives every node an address of each family: the one its topology fixes, else the next that is free.
    pub(crate) fn of(topology: &Topology) -> Self {
        let fixed: Vec<IpAddr> = topology
            .nodes
            .values()
            .flat_map(|node| [node.management_ipv4.map(IpAddr::V4), node.management_ipv6.map(IpAddr::V6)])
            .flatten()
            .collect();
        let free = |subnet: Prefix| (2..).map(move |host| nth(subnet, host)).filter(|address| !fixed.contains(address));
        let (mut free4, mut free6) = (free(topology.management.ipv4), free(topology.management.ipv6));
        let nodes = topology.nodes.iter().map(|(name, node)| {
            let ipv4 = node.management_ipv4.map(IpAddr::V4).or_else(|| free4.next());
            let ipv6 = node.management_ipv6.map(IpAddr::V6).or_else(|| free6.next());
            let unspecified = |family| Prefix::default_route(family).addr();
            let ipv4 = ipv4.unwrap_or_else(|| unspecified(Family::Ipv4));
            let ipv6 = ipv6.unwrap_or_else(|| unspecified(Family::Ipv6));
            (name.clone(), [ipv4, ipv6])
        });
        let nodes = nodes.collect();
        Self { network: topology.management.clone(), nodes }
    }

    /// A node's addresses, IPv4 first.
    pub(crate) fn addresses(&self, node: &str) -> Option<[IpAddr; 2]> {
        self.nodes.get(node).copied()
    }

    /// `/etc/hosts` for every node of a lab: nodes by their names and by those that containerlab gives containers.
    pub(crate) fn hosts(&self, lab: &str) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (node, addresses) in &self.nodes {
            for address in addresses {
                let _ = writeln!(text, "{address} {node} clab-{lab}-{node}");
            }
        }
        text
    }
}

/// The address with this number in a subnet.
fn nth(subnet: Prefix, host: u32) -> IpAddr {
    match subnet.addr() {
        IpAddr::V4(base) => IpAddr::V4((base.to_bits() | host).into()),
        IpAddr::V6(base) => IpAddr::V6((base.to_bits() | u128::from(host)).into()),
    }
}

/// Makes all links, each born in its two nodes, and brings them up.
pub(crate) fn wire(
    topology: &Topology,
    plan: &ManagementPlan,
    management: &Namespace,
    nodes: &BTreeMap<String, Namespace>,
) -> Result<(), LabError> {
    let pid = |node: &str| {
        let found = nodes.get(node).map(|namespace| namespace.record().init.pid);
        found.ok_or_else(|| LabError::NoSuchNode { what: "node", name: node.to_owned() })
    };
    let bridge_pid = management.record().init.pid;
    let mut births = String::new();
    let mut ports = format!("link set lo up\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up\n");
    for subnet in [plan.network.ipv4, plan.network.ipv6] {
        let _ = writeln!(ports, "address add {}/{} dev {BRIDGE}", nth(subnet, 1), subnet.len());
    }
    for (number, node) in nodes.keys().enumerate() {
        let pid = pid(node)?;
        let _ = writeln!(births, "link add eth0 netns {pid} type veth peer name p{number} netns {bridge_pid}");
        let _ = writeln!(ports, "link set p{number} master {BRIDGE} up");
    }
    for link in &topology.links {
        let [left, right] = &link.ends;
        let mtu = link.mtu.map(|mtu| format!("mtu {mtu} ")).unwrap_or_default();
        let (left_pid, right_pid) = (pid(&left.node)?, pid(&right.node)?);
        let (left, right) = (&left.interface, &right.interface);
        let _ = writeln!(
            births,
            "link add {left} {mtu}netns {left_pid} type veth peer name {right} {mtu}netns {right_pid}"
        );
    }
    batch("the host", Command::new("ip"), &births)?;
    batch("the management network", management.command("ip"), &ports)?;
    nodes.iter().try_for_each(|(name, namespace)| bring_up(name, namespace, topology, plan))
}

/// Brings a node's interfaces up, with its addresses and routes on the management network.
fn bring_up(name: &str, namespace: &Namespace, topology: &Topology, plan: &ManagementPlan) -> Result<(), LabError> {
    let mut own = "link set lo up\n".to_owned();
    for interface in interfaces(name, topology) {
        let _ = writeln!(own, "link set {interface} up");
    }
    for (address, subnet) in plan.addresses(name).into_iter().flatten().zip([plan.network.ipv4, plan.network.ipv6]) {
        let _ = writeln!(own, "address add {address}/{} dev eth0", subnet.len());
    }
    for subnet in [plan.network.ipv4, plan.network.ipv6] {
        let _ = writeln!(own, "route add default via {} dev eth0", nth(subnet, 1));
    }
    batch(name, namespace.command("ip"), &own)
}

/// The names of a node's interfaces: that of the management network, and its ends of links.
fn interfaces(node: &str, topology: &Topology) -> impl Iterator<Item = String> {
    let ends = topology.links.iter().flat_map(|link| &link.ends).filter(move |end| end.node == node);
    std::iter::once("eth0".to_owned()).chain(ends.map(|end| end.interface.to_string()))
}

/// Plugs the wires of a node that ended into the same node, made anew. `former` is the network namespace that they are in.
pub(crate) fn move_wires(
    name: &str,
    former: &File,
    namespace: &Namespace,
    topology: &Topology,
    plan: &ManagementPlan,
) -> Result<(), LabError> {
    let mut ip = Command::new("nsenter");
    ip.arg(format!("--net=/proc/{}/fd/{}", std::process::id(), former.as_raw_fd())).args(["--", "ip"]);
    let pid = namespace.record().init.pid;
    let moves = interfaces(name, topology).map(|interface| format!("link set {interface} netns {pid}\n"));
    batch(name, ip, &moves.collect::<String>())?;
    bring_up(name, namespace, topology, plan)
}

/// Runs many `ip` commands in one process; the error quotes the one that failed.
fn batch(place: &str, mut ip: Command, commands: &str) -> Result<(), LabError> {
    let failed = || LabError::io(format!("running ip on {place}"));
    let spawned = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(failed())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes()).map_err(failed())?;
    }
    let output = child.wait_with_output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let line = said.rsplit_once("-:").and_then(|(_, number)| number.trim().parse::<usize>().ok()).unwrap_or_default();
    Err(LabError::Command {
        place: place.to_owned(),
        command: format!("ip {}", commands.lines().nth(line.saturating_sub(1)).unwrap_or_default()),
        status: output.status.to_string(),
        output: said,
    })
}
