//! Nodes that leave the cluster, and come back.

use std::time::Duration;

use tests::pair::{ETCD, POOLS};
use tests::{Apiserver, CONVERGENCE, Lab, Node, Options, TestResult, wait_for};

use crate::pair;

/// The reclaim grace: how long the blocks of a deleted node stay its own.
const AGENT: &str = "reclaimGrace: 3s\n";

/// What etcd has of a node: its claims and its keys.
fn claims(lab: &Lab, node: &str) -> Result<usize, String> {
    let said = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/blocks/", "--print-value-only"]);
    let said = said.map_err(|error| error.to_string())?;
    Ok(said.lines().filter(|line| line.contains(&format!("\"owner\":\"{node}\""))).count())
}

fn keys(lab: &Lab, prefix: &str) -> Result<Vec<String>, String> {
    let said = lab.etcd().ctl(&["get", "--prefix", prefix, "--keys-only"]).map_err(|error| error.to_string())?;
    Ok(said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn peers(node: &Node) -> Result<String, String> {
    node.agent().ctl(&["node", "status"]).map_err(|error| error.to_string())
}

#[test]
fn what_a_deleted_node_had_is_taken_back_after_the_grace_and_it_begins_anew_when_it_returns() -> TestResult {
    if !Apiserver::can_run() {
        return Ok(());
    }
    let file = pair("reclaim", &format!("{ETCD}{POOLS}{AGENT}"))?;
    let lab = Lab::up(&file, &Options::unique("reclaim").without_agents())?;
    let server = Apiserver::start(lab.node("etcd"))?;
    server.start_agents(&lab, CONVERGENCE)?;
    let (stays, goes) = (lab.node("node1"), lab.node("node2"));
    let of_both = |lab: &Lab| Ok::<_, String>((claims(lab, "node1")?, claims(lab, "node2")?));
    wait_for("both nodes having blocks", CONVERGENCE, || match of_both(&lab)? {
        (1.., 1..) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let address = "192.0.2.2";
    wait_for("the session", CONVERGENCE, || {
        let said = peers(stays)?;
        if said.lines().any(|line| line.contains(address) && line.contains("established")) { Ok(()) } else { Err(said) }
    })?;

    // That the Node object has gone is no reason: the node's agent lives.
    let mut client = server.client()?;
    client.call("DELETE", "/api/v1/nodes/node2", None)?;
    goes.agent().kill9()?;
    // The lease on the node's name ends after 30 s, and then the grace begins.
    wait_for("its blocks being free", Duration::from_secs(120), || match of_both(&lab)? {
        (1.., 0) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    wait_for("nothing being left of it", CONVERGENCE, || {
        let left = [keys(&lab, "/manx/v1/nodes/node2/")?, keys(&lab, "/manx/v1/elected/gone/")?].concat();
        let said = peers(stays)?;
        if left.is_empty() && !said.contains(address) { Ok(()) } else { Err(format!("{left:?}\n{said}")) }
    })?;

    let kubeconfig = server.introduce(goes)?;
    goes.agent().start_with(&[("MANX_KUBERNETES", kubeconfig)])?;
    goes.agent().wait_ready(CONVERGENCE)?;
    wait_for("it having a block again, and a session", CONVERGENCE, || {
        let said = peers(stays)?;
        let is_up = said.lines().any(|line| line.contains(address) && line.contains("established"));
        match of_both(&lab)? {
            (1.., 1..) if is_up => Ok(()),
            other => Err(format!("{other:?}\n{said}")),
        }
    })?;
    lab.down()?;
    Ok(())
}
