//! Nodes that cannot tell whether their blocks are still their own, and what becomes of blocks when etcd has forgotten them.

use std::collections::BTreeMap;
use std::fs;

use tests::pair::{ETCD, POOLS, container, first_address};
use tests::{Attachment, CONVERGENCE, Lab, Node, Options, Place, TestResult, can_run_labs, wait_for, wait_until};
use types::Family;

use crate::pair;

/// The owner of each block as etcd has it, with the key and the value of the claim.
fn claims(lab: &Lab) -> Result<BTreeMap<String, String>, String> {
    let said = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/blocks/"]).map_err(|error| error.to_string())?;
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let pairs = lines.chunks_exact(2).filter_map(|pair| pair.first().zip(pair.last()));
    Ok(pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn owner(name: &str) -> String {
    format!("\"owner\":\"{name}\"")
}

fn status(node: &Node) -> String {
    node.agent().ctl(&["node", "status"]).unwrap_or_default()
}

/// Waits until an ADD is refused as etcd has not confirmed the node's blocks.
fn is_refused(node: &Node, attachment: &Attachment) -> TestResult {
    let runtime = node.runtime()?;
    wait_for("ADD being refused", CONVERGENCE, || match runtime.add(attachment) {
        Ok(_) => {
            runtime.del(attachment).map_err(|error| error.to_string())?;
            Err("it gives an address".to_owned())
        }
        Err(error) if error.code() == Some(11) && error.to_string().contains("has not confirmed") => Ok(()),
        Err(error) => Err(error.to_string()),
    })?;
    Ok(())
}

#[test]
fn a_node_that_etcd_has_not_confirmed_for_half_the_grace_gives_out_no_addresses_until_etcd_is_back() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("fencing", &format!("{ETCD}{POOLS}reclaimGrace: 12s\n"))?;
    let lab = Lab::up(&file, &Options::unique("fencing"))?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let (here, there) = (node.plug("a")?, other.plug("b")?);
    let reach = || wait_until("the pods reaching each other", CONVERGENCE, || here.ping(there.address(Family::Ipv4)));
    reach()?;
    assert!(status(node).contains("last confirmed"), "{}", status(node));
    let (runtime, early, late) = (node.runtime()?, container(node, "early")?, container(node, "late")?);

    lab.etcd().stop()?;
    runtime.add(&early)?;
    is_refused(node, &late)?;
    let said = status(node);
    assert!(said.contains("no addresses are given out") && said.contains("last confirmed"), "{said}");
    // A restart confirms nothing.
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    is_refused(node, &late)?;
    runtime.del(&early)?;
    reach()?;

    lab.etcd().start()?;
    wait_for("ADD giving an address again", CONVERGENCE, || runtime.add(&late))?;
    let said = status(node);
    assert!(!said.contains("no addresses are given out"), "{said}");
    let log = fs::read_to_string(node.agent().log())?;
    assert!(log.contains("no addresses are given out") && log.contains("given out again"), "{log}");
    lab.down()?;
    Ok(())
}

/// Starts etcd with nothing of what it had except what `given` says, before any agent asks it.
fn forget(lab: &Lab, given: &[(&str, &str)]) -> TestResult {
    lab.manx_nodes().try_for_each(|node| node.agent().freeze())?;
    lab.etcd().stop()?;
    lab.node("etcd").shell("rm -rf /var/lib/etcd/*")?;
    lab.etcd().start()?;
    for (key, value) in given {
        lab.etcd().ctl(&["put", key, value])?;
    }
    lab.manx_nodes().try_for_each(|node| node.agent().thaw())?;
    Ok(())
}

#[test]
fn blocks_that_etcd_has_forgotten_are_claimed_again_and_one_that_another_node_has_got_is_given_up() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("forgotten", &format!("{ETCD}{POOLS}"))?, &Options::unique("forgotten"))?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let (here, there) = (node.plug("a")?, other.plug("b")?);
    let before = claims(&lab)?;
    let is_lost = |key: &str, value: &str| key.contains("10.42.") && value.contains(&owner("node1"));
    let (key, value) = before.iter().find(|(key, value)| is_lost(key, value)).ok_or("node1 has no block")?;
    let taken = value.replace(&owner("node1"), &owner("node9"));
    let block = key.trim_start_matches("/manx/v1/blocks/").replace('-', "/");

    forget(&lab, &[(key, &taken)])?;
    let mut expected = before.clone();
    expected.insert(key.clone(), taken);
    // The node claims again what was lost, and claims one block more in place of the block that another has.
    wait_for("the blocks being claimed again", CONVERGENCE, || {
        let claims = claims(&lab)?;
        let kept = expected.iter().all(|(key, value)| claims.get(key) == Some(value));
        if kept && claims.len() == expected.len() + 1 { Ok(()) } else { Err(format!("{claims:?}")) }
    })?;
    let stray = here.address(Family::Ipv4).to_string();
    wait_for("node1 naming its pod", CONVERGENCE, || {
        let said = status(node);
        let named =
            said.lines().any(|line| line.contains("default/a") && line.contains(&stray) && line.contains("node9"));
        if named { Ok(()) } else { Err(said) }
    })?;
    let log = fs::read_to_string(node.agent().log())?;
    let told =
        |line: &&str| line.contains(&block) && line.contains("default/a") && line.contains("not this node's any more");
    assert!(log.lines().any(|line| told(&line)), "{log}");
    // The node announces that block no more; everything else is as it was.
    wait_for("the other node having no route to the block", CONVERGENCE, || {
        let routes = other.exec(&["ip", "-4", "route", "show", "proto", "78"]).map_err(|error| error.to_string())?;
        if routes.contains(&block) || routes.is_empty() { Err(routes) } else { Ok(()) }
    })?;
    wait_until("the pods reaching each other", CONVERGENCE, || here.ping(there.address(Family::Ipv6)))?;
    let address = there.address(Family::Ipv4).to_string();
    wait_until("the pod being published", CONVERGENCE, || {
        node.agent().ctl(&["ipam", "show", "--ip", &address]).is_ok()
    })?;
    let new = first_address(&node.runtime()?.add(&container(node, "new")?)?);
    assert!(new.starts_with("10.42.") && !is_in(&new, &block), "{new} is of {block}");
    lab.down()?;
    Ok(())
}

/// Whether an address (with its length) is in a block of 64.
fn is_in(address: &str, block: &str) -> bool {
    let number =
        |text: &str| -> Option<u32> { text.split('/').next()?.parse::<std::net::Ipv4Addr>().ok().map(u32::from) };
    number(address).zip(number(block)).is_some_and(|(address, block)| address & !63 == block)
}
