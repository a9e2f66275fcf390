//! A node's own addresses: they change while it runs, another node claims one, and a machine that is set up anew has
//! others.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use tests::mesh::{apply, own_blocks, peer, reaches, status};
use tests::pair::{ETCD, POOLS};
use tests::{CONVERGENCE, Lab, Node, Options, Place, TestResult, can_run_labs, wait_for, wait_until};
use types::Family;

use crate::pair;

/// The machine's addresses at first; those that it has after a change stand behind.
const NODE1: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const NODE2: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const RENUMBERED: [&str; 2] = ["192.0.2.77", "2001:db8::77"];

fn up(test: &str) -> Result<Lab, Box<dyn std::error::Error>> {
    Ok(Lab::up(&pair(test, &format!("{ETCD}{POOLS}"))?, &Options::unique(test))?)
}

/// Gives the machine other addresses in the place of those that it has.
fn renumber(node: &Node, from: [&str; 2], to: [&str; 2]) -> TestResult {
    for ((from, to), len) in from.into_iter().zip(to).zip([24, 64]) {
        // The new address comes last: the kernel deletes, with an IPv4 address, those that came to its subnet after it.
        node.exec(&["ip", "address", "del", &format!("{from}/{len}"), "dev", "eth1"])?;
        node.exec(&["ip", "address", "add", &format!("{to}/{len}"), "dev", "eth1"])?;
    }
    Ok(())
}

/// Waits until a node has one session per address with these, established, and no others.
fn wait_sessions(node: &Node, with: [&str; 2]) -> TestResult {
    wait_for(&format!("sessions of {} with {with:?}", node.name()), CONVERGENCE, || {
        let status = status(node).map_err(|error| error.to_string())?;
        let is_up = |address: &str| peer(&status, address).is_some_and(|peer| peer["state"] == "established");
        let count = status["peers"].as_array().map_or(0, Vec::len);
        if count == with.len() && with.into_iter().all(is_up) { Ok(()) } else { Err(status["peers"].to_string()) }
    })?;
    Ok(())
}

/// The neighbours by which a node reaches the other node's blocks.
fn ways(node: &Node, to: &Node) -> BTreeMap<String, String> {
    let blocks = Family::ALL.into_iter().flat_map(|family| own_blocks(to, family));
    let way = |block: &str| {
        let family = if block.contains(':') { "-6" } else { "-4" };
        node.exec(&["ip", family, "route", "show", block, "proto", "78"]).unwrap_or_default()
    };
    blocks.map(|block| (block.clone(), way(&block))).collect()
}

#[test]
fn a_node_whose_addresses_change_moves_its_sessions_and_routes_without_a_restart() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("renumber")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let (here, there) = (node.plug("a")?, other.plug("a")?);
    reaches(&here, &there)?;
    wait_sessions(other, NODE1)?;
    let process = node.agent().process().ok_or("no agent")?;

    renumber(node, NODE1, RENUMBERED)?;
    wait_sessions(other, RENUMBERED)?;
    wait_sessions(node, NODE2)?;
    wait_for("the blocks being reached by the new addresses", CONVERGENCE, || {
        let ways = ways(other, node);
        let is_new = |way: &String| RENUMBERED.iter().any(|address| way.contains(&format!("via {address} ")));
        if ways.len() == 2 && ways.values().all(is_new) { Ok(()) } else { Err(format!("{ways:?}")) }
    })?;
    reaches(&here, &there)?;
    reaches(&there, &here)?;

    // The source of what the node sends to its own pods follows, and so does its router id.
    let route = node.exec(&["ip", "-4", "route", "show", "proto", "77"])?;
    assert!(route.contains(&format!("src {}", RENUMBERED[0])), "{route}");
    let said = status(node)?;
    assert_eq!((&said["routerId"], &said["ready"]), (&RENUMBERED[0].into(), &true.into()), "{said}");
    assert_eq!(node.agent().process(), Some(process), "the agent was started anew");
    lab.down()?;
    Ok(())
}

#[test]
fn an_address_that_two_nodes_claim_is_an_error_on_both_until_it_is_one_s_alone() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("claimtwice")?;
    let (one, two) = (lab.node("node1"), lab.node("node2"));
    wait_sessions(one, NODE2)?;
    apply(
        one,
        "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node2}, \
         spec: {bgp: {ipv4Address: 192.0.2.1/24}}}",
    )?;
    for (node, other) in [(one, "node2"), (two, "node1")] {
        wait_for(&format!("{} saying so", node.name()), CONVERGENCE, || {
            let said = node.agent().ready().err().unwrap_or_default();
            let names = said.contains("192.0.2.1") && said.contains(&format!("node {other}"));
            if names { Ok(()) } else { Err(said) }
        })?;
    }
    one.agent().ctl(&["delete", "node", "node2"])?;
    for node in [one, two] {
        node.agent().wait_ready(CONVERGENCE)?;
    }
    wait_sessions(one, NODE2)?;
    wait_sessions(two, NODE1)?;
    lab.down()?;
    Ok(())
}

#[test]
fn a_machine_that_is_set_up_anew_under_the_same_name_has_sessions_at_its_new_address_and_no_old_pods() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("anew")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let (before, there) = (node.plug("before")?, other.plug("there")?);
    reaches(&before, &there)?;
    let published = |of: IpAddr| {
        let said = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/nodes/node1/endpoints/", "--print-value-only"]);
        said.map(|text| text.contains(&format!("\"{of}\""))).map_err(|error| error.to_string())
    };
    let of_before = before.address(Family::Ipv4);
    wait_until("the pod being known", CONVERGENCE, || published(of_before) == Ok(true))?;

    // The name now belongs to another machine: it has no state, no pods and another address.
    node.agent().kill9()?;
    node.unplug("before")?;
    for state in ["/var/lib/manx", "/run/manx"] {
        fs::remove_dir_all(node.path(state))?;
    }
    renumber(node, NODE1, RENUMBERED)?;
    // The former agent holds the name for the rest of its lease; whatever supervises agents starts them again
    // meanwhile.
    wait_for("the agent being let in", Duration::from_secs(120), || {
        if node.agent().check().is_err() {
            node.agent().start().map_err(|error| error.to_string())?;
        }
        node.agent().ready()
    })?;
    wait_sessions(other, RENUMBERED)?;
    wait_until("the pod being forgotten", CONVERGENCE, || published(of_before) == Ok(false))?;
    let after = node.plug("after")?;
    reaches(&after, &there)?;
    reaches(&there, &after)?;
    lab.down()?;
    Ok(())
}
