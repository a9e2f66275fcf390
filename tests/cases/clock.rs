//! A node whose clock is wrong.

use std::fs;

use serde_json::Value;
use tests::pair::{ETCD, POOLS, container};
use tests::{CONVERGENCE, Lab, Node, Options, Place, TestResult, can_run_labs, fake_clock, wait_for, wait_until};
use types::Family;

use crate::pair;

/// The file that sets the clock of a node's agent.
const CLOCK: &str = "/run/clock";

/// The state of a node's only session, and for how long it has been in it.
fn session(node: &Node) -> Result<(String, u64), String> {
    let said = node.agent().ctl(&["node", "status", "-o", "json"]).map_err(|error| error.to_string())?;
    let status: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let peer = &status["peers"][0];
    let state = peer["state"].as_str().zip(peer["sinceSecs"].as_u64());
    state.map(|(state, since)| (state.to_owned(), since)).ok_or(said)
}

#[test]
fn a_wall_clock_that_jumps_a_year_ends_no_session_and_no_claim_and_addresses_are_given_out() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let Some(preload) = fake_clock() else { return Ok(()) };
    let file = pair("clock", &format!("{ETCD}{POOLS}reclaimGrace: 20s\n"))?;
    let lab = Lab::up(&file, &Options::unique("clock").without_agents())?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let set = |text: &str| fs::write(node.path(CLOCK), format!("{text}\n"));
    set("+0")?;
    let (name, library) = preload.split_once('=').unwrap_or_default();
    let clock = [("FAKETIME_TIMESTAMP_FILE", CLOCK), ("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    node.agent().start_with(&[[(name, library)].as_slice(), &clock].concat())?;
    other.agent().start()?;
    lab.manx_nodes().try_for_each(|node| node.agent().wait_ready(CONVERGENCE))?;
    let (here, there) = (node.plug("a")?, other.plug("b")?);
    wait_until("the pods reaching each other", CONVERGENCE, || here.ping(there.address(Family::Ipv4)))?;
    let claim = || lab.etcd().ctl(&["get", "/manx/v1/nodes/node1/alive", "-w", "fields"]);
    let made = |fields: &str| fields.lines().find(|line| line.contains("CreateRevision")).map(str::to_owned);
    let before = made(&claim()?);
    assert!(before.is_some());
    let runtime = node.runtime()?;
    for (pod, clock) in [("ahead", "+365d"), ("behind", "-365d"), ("right", "+0")] {
        let (_, up) = session(node)?;
        set(clock)?;
        let attachment = container(node, pod)?;
        // An ADD is refused at most until etcd has confirmed the node's blocks anew, which is at once.
        wait_for("an address", CONVERGENCE, || runtime.add(&attachment))?;
        wait_for("the session being older", CONVERGENCE, || match session(node)? {
            (state, since) if state == "established" && since > up + 1 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        assert!(here.ping(there.address(Family::Ipv4)));
        assert_eq!(made(&claim()?), before, "its claim on its name was lost");
    }
    let logged = fs::read_to_string(node.agent().log())?;
    assert!(logged.contains(&year_ahead()?), "the clock did not jump: {logged}");
    lab.down()?;
    Ok(())
}

/// The year after this one.
fn year_ahead() -> Result<String, Box<dyn std::error::Error>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // It is the year of the day that is 365 days from now, by years of 365.2425 days.
    Ok(format!("{}-", 1_970 + (now + 365 * 86_400) * 10_000 / (3_652_425 * 86_400)))
}
