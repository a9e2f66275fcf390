//! `manx-lab demo`: what Manx does, shown on the mesh topology in under a minute.
//!
//! Every step checks what it shows. A step that fails says so, and the lab is taken down as it is at the end.

pub(crate) mod kubernetes;
mod origins;
mod policy;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tests::{Capture, Lab, Node, Options, Place, Pod, PodSpec, Probe, ProbeReport, wait_for};
use types::Family;

use crate::say;

/// The pods that each node gets.
const PODS: [&str; 2] = ["a", "b"];

/// The addresses of the host behind the router.
const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10))];

/// How long routes may take to be everywhere.
const CONVERGENCE: Duration = Duration::from_secs(30);

/// Runs the demonstration.
pub(crate) fn run(topology: &Path, name: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    title(format_args!("Bringing up {}", topology.display()));
    let options = Options::default().named(name).progress(|step| say(format_args!("  {step}")));
    let lab = Lab::up(topology, &options).context("bringing the lab up")?;
    let shown = show(&lab);
    if shown.is_err() {
        let logs = lab.manx_nodes().map(|node| (node.agent().log(), node)).collect::<Vec<_>>();
        for (log, node) in logs {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let skipped = text.lines().count().saturating_sub(15);
            say(format_args!("\nThe end of the agent's log on {}:", node.name()));
            print(&text.lines().skip(skipped).collect::<Vec<_>>().join("\n"));
        }
    }
    title(format_args!("Taking everything down"));
    lab.down().context("taking the lab down")?;
    shown?;
    say(format_args!("  done: {:.1} s in all", begun.elapsed().as_secs_f64()));
    Ok(())
}

fn show(lab: &Lab) -> anyhow::Result<()> {
    let pods = plug(lab).context("plugging pods in")?;
    converge(lab, &pods)?;
    peers_and_blocks(lab)?;
    router(lab).context("the router's view")?;
    reachability(lab, &pods)?;
    wire(lab).context("capturing a packet")?;
    killed(lab).context("killing an agent")?;
    origins::show(lab).context("the act of made-up routes")?;
    policy::show(lab, &pods).context("the policy act")?;
    Ok(())
}

fn plug(lab: &Lab) -> anyhow::Result<Vec<Pod>> {
    title(format_args!("Plugging in two pods per node: the CNI binary runs as a container runtime runs it"));
    let mut pods = Vec::new();
    for node in lab.manx_nodes() {
        for name in PODS {
            let begun = Instant::now();
            let pod = node.plug_pod(PodSpec::new(name).label("app", name))?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let addresses: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
            say(format_args!("  {:<10} {:<38} {took:.0} ms with its namespace", pod.name(), addresses.join("  ")));
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// Waits until the router has a session of each family with each node, and knows the way to each pod.
fn converge(lab: &Lab, pods: &[Pod]) -> anyhow::Result<()> {
    title(format_args!("Waiting for BGP"));
    let begun = Instant::now();
    for node in lab.manx_nodes() {
        established(lab, node)?;
    }
    let tor = lab.node("tor");
    for pod in pods {
        for family in Family::ALL {
            let address = pod.address(family).to_string();
            wait_for(&format!("the router's route to {address}"), CONVERGENCE, || {
                let route = tor.exec(&["ip", "route", "get", &address]).map_err(|error| error.to_string())?;
                if route.contains(" via ") && !route.contains("eth0") { Ok(()) } else { Err(route) }
            })?;
        }
    }
    for node in lab.manx_nodes() {
        for address in HOST {
            let address = address.to_string();
            wait_for(&format!("the route of {} to the host", node.name()), CONVERGENCE, || {
                let route = node.exec(&["ip", "route", "get", &address]).map_err(|error| error.to_string())?;
                if route.contains("proto 78") || route.contains("dev eth1") { Ok(()) } else { Err(route) }
            })?;
        }
    }
    say(format_args!("  every session is established, everybody knows the way to everybody, after {}", seconds(begun)));
    Ok(())
}

/// Waits until the router's sessions with a node are established, in both families.
fn established(lab: &Lab, node: &Node) -> anyhow::Result<()> {
    let tor = lab.node("tor").frr();
    for (family, keyword) in [(Family::Ipv4, "ipv4"), (Family::Ipv6, "ipv6")] {
        let address = fabric_address(node, family)?.to_string();
        wait_for(&format!("the router's session with {} ({address})", node.name()), CONVERGENCE, || {
            let text =
                tor.vtysh(&format!("show bgp {keyword} unicast summary json")).map_err(|error| error.to_string())?;
            let summary: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            match summary.get("peers").and_then(|peers| peers.get(&address)?.get("state")?.as_str()) {
                Some("Established") => Ok(()),
                other => Err(other.unwrap_or("there is no such neighbour").to_owned()),
            }
        })?;
    }
    Ok(())
}

/// A node's global address on its link to the router.
fn fabric_address(node: &Node, family: Family) -> anyhow::Result<IpAddr> {
    let flag = if family == Family::Ipv4 { "-4" } else { "-6" };
    let text = node.exec(&["ip", "-json", flag, "address", "show", "dev", "eth1", "scope", "global"])?;
    let links: Value = serde_json::from_str(&text)?;
    let address = links.pointer("/0/addr_info/0/local").and_then(Value::as_str);
    let address = address.with_context(|| format!("{} has no {family} address on eth1", node.name()))?;
    Ok(address.parse()?)
}

fn peers_and_blocks(lab: &Lab) -> anyhow::Result<()> {
    title(format_args!("The BGP peers of each node: manxctl node status"));
    for node in lab.manx_nodes() {
        say(format_args!("  {}", node.name()));
        print(&node.agent().ctl(&["node", "status"])?);
    }
    title(format_args!("The blocks: manxctl ipam show --show-blocks"));
    let first = lab.manx_nodes().next().context("no Manx node")?;
    print(&first.agent().ctl(&["ipam", "show", "--show-blocks"])?);
    Ok(())
}

fn router(lab: &Lab) -> anyhow::Result<()> {
    title(format_args!("The router's own view: vtysh"));
    let commands = ["show bgp ipv4 unicast summary", "show ip route bgp", "show ipv6 route bgp"];
    for command in commands {
        say(format_args!("  tor# {command}"));
        let text = lab.node("tor").frr().vtysh(command)?;
        // The legend of route codes says nothing about this network.
        let routes = text.lines().filter(|line| line.starts_with(['B', ' ']) && !line.starts_with("      "));
        let legend = command.contains("route");
        print(&if legend { routes.collect::<Vec<_>>().join("\n") } else { text });
    }
    Ok(())
}

/// Shows who reaches whom, in both families.
fn reachability(lab: &Lab, pods: &[Pod]) -> anyhow::Result<()> {
    title(format_args!("Who reaches whom: 4 = IPv4, 6 = IPv6, - = unreachable"));
    let host = lab.node("client");
    let mut columns: Vec<(String, [IpAddr; 2])> =
        pods.iter().map(|pod| (pod.name(), Family::ALL.map(|family| pod.address(family)))).collect();
    columns.push(("client".to_owned(), HOST));
    let rows: Vec<&dyn Place> = pods.iter().map(|pod| pod as &dyn Place).chain([host as &dyn Place]).collect();

    let grid: Vec<Vec<String>> = thread::scope(|scope| {
        let rows: Vec<_> = rows.iter().map(|row| scope.spawn(|| reached_by(*row, &columns))).collect();
        rows.into_iter().map(|row| row.join().unwrap_or_default()).collect()
    });
    say(format_args!(
        "  {:<10} {}",
        "from \\ to",
        columns.iter().map(|(name, _)| format!("{name:<9}")).collect::<String>()
    ));
    let mut broken = 0;
    for (row, cells) in rows.iter().zip(&grid) {
        say(format_args!("  {:<10} {}", row.name(), cells.iter().map(|cell| format!("{cell:<9}")).collect::<String>()));
        broken += cells.iter().filter(|cell| cell.contains('-')).count();
    }
    ensure!(grid.iter().all(|cells| cells.len() == columns.len()), "the grid is not complete");
    ensure!(broken == 0, "{broken} of the pairs do not reach each other");
    Ok(())
}

fn reached_by(from: &dyn Place, to: &[(String, [IpAddr; 2])]) -> Vec<String> {
    let cell = |addresses: &[IpAddr; 2]| {
        let marks = addresses.iter().map(|address| match (from.ping(*address), address) {
            (true, IpAddr::V4(_)) => '4',
            (true, IpAddr::V6(_)) => '6',
            (false, _) => '-',
        });
        marks.collect()
    };
    to.iter().map(|(_, addresses)| cell(addresses)).collect()
}

/// Shows one packet between two pods, as seen on the fabric.
fn wire(lab: &Lab) -> anyhow::Result<()> {
    title(format_args!("One packet from node1/a to node2/a, caught on the link between node1 and the router"));
    let (from, to) = (lab.pod("node1", "a")?, lab.pod("node2", "a")?);
    let (source, target) = (from.address(Family::Ipv4), to.address(Family::Ipv4));
    let capture = Capture::start(lab.node("node1"), "eth1", &format!("src host {source} and dst host {target}"), 1, 5)?;
    ensure!(from.ping(target), "node1/a does not reach node2/a");
    let packets = capture.finish()?;
    let packet = packets.first().context("no packet with the pods' own addresses passed")?;
    print(packet);
    // tcpdump prints an encapsulated packet's outer header first, and a port with UDP or TCP.
    let plain = packet.contains("ethertype IPv4 (0x0800)")
        && packet.contains("proto ICMP (1)")
        && packet.contains(&format!("{source} > {target}: ICMP echo request"));
    ensure!(plain, "the packet is not a plain IPv4 packet between the pods");
    say(format_args!("  The Ethernet frame holds the pods' own packet, {source} > {target}, and nothing around it."));
    Ok(())
}

/// Shows traffic to a node's pod while the node's agent dies and comes back.
fn killed(lab: &Lab) -> anyhow::Result<()> {
    title(format_args!("Killing the agent of node1 (SIGKILL) and starting it again, under traffic to its pod"));
    let (other, pod, host) = (lab.pod("node2", "a")?, lab.pod("node1", "a")?, lab.node("client"));
    let node = lab.node("node1");
    let mut probes = BTreeMap::new();
    for family in Family::ALL {
        let address = pod.address(family);
        probes.insert(format!("node2/a > node1/a, {family}"), Probe::start(&other, &pod, address, 200)?);
        probes.insert(format!("client > node1/a, {family}"), Probe::start(host, &pod, address, 200)?);
    }
    let begun = Instant::now();
    node.agent().kill9()?;
    say(format_args!("  killed"));
    node.agent().start()?;
    node.agent().wait_ready(Duration::from_secs(30))?;
    say(format_args!("  started again, and ready {} after the kill", seconds(begun)));
    established(lab, node)?;
    say(format_args!("  its sessions with the router are established again after {}", seconds(begun)));
    // This is long enough for what would go wrong late, such as routes that a peer drops when it takes the restart to
    // be over.
    thread::sleep(Duration::from_secs(5).saturating_sub(begun.elapsed()));
    let mut lost = 0;
    for (name, probe) in probes {
        let ProbeReport { sent, lost: lost_here, longest_silence, errors } = probe.finish();
        say(format_args!("  {name:<25} {sent:>5} sent, {lost_here} lost, longest silence {longest_silence:.0?}"));
        for (error, times) in errors {
            say(format_args!("    sending failed {times} times: {error}"));
        }
        lost += lost_here;
    }
    if lost > 0 {
        bail!("{lost} packets were lost");
    }
    Ok(())
}

fn title(text: std::fmt::Arguments<'_>) {
    say(format_args!("\n== {text}"));
}

fn print(text: &str) {
    for line in text.trim_matches('\n').lines() {
        say(format_args!("    {line}"));
    }
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
