//! A node whose disk is full.

use std::fs;

use tests::pair::{ETCD, POOLS, container, links};
use tests::{CONVERGENCE, Lab, Node, Options, Place, TestResult, can_run_labs, wait_until};
use types::Family;

use crate::pair;

/// Leaves no space on the disk where the agent keeps its state.
fn fill(node: &Node) -> TestResult {
    node.shell("cat /dev/zero >>/var/lib/manx/filled 2>/dev/null || true")?;
    Ok(())
}

/// Adds pods until one is refused because the journal cannot be written: the space that its files have already is used
/// first. Then all of the pods go.
fn is_refused(node: &Node, name: &str) -> TestResult {
    let (runtime, before) = (node.runtime()?, links(node));
    let mut added = Vec::new();
    let refused = loop {
        fill(node)?;
        let attachment = container(node, &format!("{name}{}", added.len()))?;
        let outcome = runtime.add(&attachment);
        added.push(attachment);
        match outcome {
            Ok(_) if added.len() == 50 => return Err("50 pods are journalled on a full disk".into()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), Some(11), "{refused}");
    assert!(refused.to_string().contains("/var/lib/manx/journal.db: no space left"), "{refused}");
    for attachment in &added {
        runtime.del(attachment)?;
    }
    wait_until("their links being gone", CONVERGENCE, || links(node) == before)?;
    Ok(())
}

#[test]
fn with_a_full_disk_add_says_so_and_all_else_goes_on_and_over_a_restart() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("fulldisk", &format!("{ETCD}{POOLS}"))?;
    let lab = Lab::up(&file, &Options::unique("fulldisk").without_agents())?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    node.exec(&["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", "/var/lib/manx"])?;
    for node in lab.manx_nodes() {
        node.agent().start()?;
    }
    lab.manx_nodes().try_for_each(|node| node.agent().wait_ready(CONVERGENCE))?;
    let (here, there) = (node.plug("stays")?, other.plug("there")?);
    let reach = || wait_until("the pods reaching each other", CONVERGENCE, || here.ping(there.address(Family::Ipv4)));
    reach()?;
    node.plug("first")?;
    node.plug("second")?;

    is_refused(node, "refused")?;
    node.unplug("first")?;
    // The agent needs no space to start.
    node.agent().kill9()?;
    fill(node)?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    reach()?;
    is_refused(node, "again")?;
    node.unplug("second")?;
    wait_until("only one link being left", CONVERGENCE, || links(node).len() == 1)?;
    node.agent().ready()?;

    fs::remove_file(node.path("/var/lib/manx/filled"))?;
    let pod = node.plug("new")?;
    assert!(pod.ping(here.address(Family::Ipv4)));
    // What could not be written has been written by now, and a restart finds it.
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    let shown = node.agent().ctl(&["node", "status"])?;
    assert!(shown.contains("2 pods"), "{shown}");
    reach()?;
    lab.down()?;
    Ok(())
}
