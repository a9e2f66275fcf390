//! Blocks that change hands while pods talk, and claims that cannot be read for long or not yet.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tests::mesh::{RATE, all_established, mesh, node_keeps, own_blocks, reaches};
use tests::pair::{ETCD, POOLS};
use tests::{CONVERGENCE, Lab, Node, Options, Place, Pod, Probe, TestResult, can_run_labs, wait_for, wait_until};
use types::Family;

use super::{ROUTER, claims, good_paths, has_route, rejected};
use crate::pair;

/// A block of the pool that no node claims of itself, and the key of its claim.
const BLOCK: &str = "10.42.255.192/26";
const KEY: &str = "/manx/v1/blocks/10.42.255.192-26";

/// The addresses of node2 and node3.
const TWO: &str = "172.31.2.3";
const THREE: &str = "172.31.3.3";

/// Puts the claim of the block in this node's name.
fn claim(lab: &Lab, owner: &str) -> TestResult {
    lab.etcd().ctl(&["put", KEY, &format!("{{\"spec\":{{\"owner\":\"{owner}\"}},\"version\":1}}")])?;
    Ok(())
}

/// The nodes from which this one takes a route to the block, each with itself as next hop. Through the router every owner looks alike.
fn owners(node: &Node) -> BTreeSet<String> {
    let paths = good_paths(node, BLOCK).into_iter();
    paths.filter(|(peer, next_hop)| peer != ROUTER && peer == next_hop).map(|(peer, _)| peer).collect()
}

/// Waits until a node takes the block from this node alone, and refuses it as another's from so many.
fn block_is(node: &Node, owner: &str, refused: usize) -> TestResult {
    wait_for(&format!("{} having the block from {owner}", node.name()), CONVERGENCE, || {
        let (owners, rejected) = (owners(node), rejected(node));
        let is_refused = rejected.len() == refused
            && rejected.iter().all(|(prefix, (kind, _))| prefix == BLOCK && kind == "not-the-owner");
        let is_so = owners == [owner.to_owned()].into() && is_refused;
        if is_so { Ok(()) } else { Err(format!("{owners:?}, refused {rejected:?}")) }
    })?;
    Ok(())
}

/// Whether a node hears of etcd.
fn hears_etcd(node: &Node, hears: bool) -> TestResult {
    let change = if hears { "-D" } else { "-I" };
    node.exec(&["iptables", change, "INPUT", "-p", "tcp", "--sport", "2379", "-j", "DROP"])?;
    Ok(())
}

/// Traffic among pods by both families, in all directions.
fn traffic(pods: &[&Pod]) -> Result<Vec<Probe>, Box<dyn std::error::Error>> {
    let mut probes = Vec::new();
    for from in pods {
        for to in pods.iter().filter(|to| to.name() != from.name()) {
            for family in Family::ALL {
                reaches(from, to)?;
                probes.push(Probe::start(*from, *to, to.address(family), RATE / 2)?);
            }
        }
    }
    Ok(probes)
}

fn nothing_was_lost(probes: Vec<Probe>) {
    for probe in probes {
        let report = probe.finish();
        assert!(report.sent > 0 && report.lost == 0, "{report:?}");
    }
}

#[test]
fn a_block_goes_from_owner_to_owner_under_traffic_and_what_the_former_one_still_says_is_refused() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("handover")?;
    let [node, former, next] = ["node1", "node2", "node3"].map(|name| lab.node(name));
    let three = next.plug("a")?;
    let probes = traffic(&[&one, &two, &three])?;

    // A claim in a node's name is taken up while the node runs.
    claim(&lab, "node2")?;
    block_is(node, TWO, 0)?;
    assert!(own_blocks(former, Family::Ipv4).contains(BLOCK));

    // The former owner does not hear that the block is another's: its route is there, and counts no more.
    former.agent().freeze()?;
    claim(&lab, "node3")?;
    block_is(node, THREE, 1)?;
    assert!(has_route(node, BLOCK), "the block has an owner, and node1 no route to it");
    former.agent().thaw()?;
    block_is(node, THREE, 0)?;
    block_is(former, THREE, 0)?;
    assert!(!own_blocks(former, Family::Ipv4).contains(BLOCK));

    // A node may be quicker by BGP than by etcd: what it knows already becomes good with the claim.
    hears_etcd(node, false)?;
    claim(&lab, "node2")?;
    wait_for("node1 refusing the next owner's route", CONVERGENCE, || {
        let (owners, rejected) = (owners(node), rejected(node));
        let is_refused =
            rejected.get(BLOCK).is_some_and(|(kind, why)| kind == "not-the-owner" && why.contains("node3"));
        if is_refused && owners.is_empty() { Ok(()) } else { Err(format!("{owners:?}, refused {rejected:?}")) }
    })?;
    hears_etcd(node, true)?;
    block_is(node, TWO, 0)?;
    nothing_was_lost(probes);
    lab.down()?;
    Ok(())
}

/// How long blocks of a node that is silent stay its own, in the tests below.
const GRACE: Duration = Duration::from_secs(6);

/// Two nodes' lab, their pods, and the traffic between these.
type Talking = (Lab, [Pod; 2], Vec<Probe>);

/// Two nodes, each with a pod that talks to the other's.
fn talking(name: &str, grace: Duration) -> Result<Talking, Box<dyn std::error::Error>> {
    let file = pair(name, &format!("{ETCD}{POOLS}reclaimGrace: {}s\n", grace.as_secs()))?;
    let lab = Lab::up(&file, &Options::unique(name))?;
    let pods = [lab.node("node1").plug("a")?, lab.node("node2").plug("b")?];
    let probes = traffic(&[&pods[0], &pods[1]])?;
    Ok((lab, pods, probes))
}

/// Waits until both nodes have their sessions, and nobody keeps what was there before a restart.
fn is_settled(lab: &Lab) -> TestResult {
    let is_so = |node: &Node| all_established(node) == Some(2) && !node_keeps(node) && rejected(node).is_empty();
    wait_until("all sessions being up", CONVERGENCE, || lab.manx_nodes().all(is_so))?;
    Ok(())
}

#[test]
fn etcd_is_away_for_longer_than_the_grace_and_comes_back_and_no_packet_is_lost() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, _pods, probes) = talking("longaway", GRACE)?;
    let before = claims(&lab)?;
    let stopped = Instant::now();
    lab.etcd().stop()?;
    // Blocks may have changed hands by then, for all that the nodes know.
    wait_until("etcd being away for longer than the grace", CONVERGENCE, || stopped.elapsed() > GRACE * 2)?;
    for node in lab.manx_nodes() {
        let said = node.agent().ctl(&["node", "status"])?;
        assert!(said.contains("no addresses are given out"), "{said}");
    }
    // Nodes that begin in that time, one after the other, know each other's routes again.
    for node in lab.manx_nodes() {
        node.agent().kill9()?;
        node.agent().start()?;
        node.agent().wait_ready(CONVERGENCE)?;
        is_settled(&lab)?;
    }
    lab.etcd().start()?;
    wait_for("the blocks being claimed again", CONVERGENCE, || {
        let now = claims(&lab).map_err(|error| error.to_string())?;
        if before.iter().all(|(key, value)| now.get(key) == Some(value)) { Ok(()) } else { Err(format!("{now:?}")) }
    })?;
    is_settled(&lab)?;
    nothing_was_lost(probes);
    lab.down()?;
    Ok(())
}

#[test]
fn a_node_that_remembers_no_claims_starts_without_etcd_and_the_kernel_keeps_its_routes_until_claims_are_read()
-> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, _pods, probes) = talking("unread", Duration::from_secs(600))?;
    let [node, other] = ["node1", "node2"].map(|name| lab.node(name));
    let others: Vec<String> = Family::ALL.into_iter().flat_map(|family| own_blocks(other, family)).collect();
    assert_eq!(others.len(), 2);
    lab.etcd().freeze()?;
    node.agent().kill9()?;
    node.shell("rm -f /var/lib/manx/cache.db*")?;
    node.agent().start()?;
    // Long enough for sessions to come about, if they did not wait.
    let started = Instant::now();
    wait_until("the start taking a while", CONVERGENCE, || started.elapsed() > Duration::from_secs(8))?;
    assert!(node.agent().check().is_ok(), "the agent has ended");
    assert!(node.agent().ready().is_err(), "ready without having heard of the cluster");
    assert_eq!(rejected(node).len(), 0);
    for block in &others {
        assert!(has_route(node, block), "{block} is gone from node1's kernel");
    }
    lab.etcd().thaw()?;
    node.agent().wait_ready(CONVERGENCE)?;
    is_settled(&lab)?;
    nothing_was_lost(probes);
    lab.down()?;
    Ok(())
}
