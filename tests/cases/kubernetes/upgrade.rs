//! Agents are replaced, as an upgrade does it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tests::{Cluster, LabError, TestResult};

use crate::pods::{self, Traffic};
use crate::{SOON, shared};

#[test]
fn a_rollout_of_the_agents_loses_no_packet_and_fails_no_pod() -> TestResult {
    let Some(cluster) = shared::alone("upgrade")? else { return Ok(()) };
    let namespace = cluster.namespace.as_str();
    pods::start(&cluster, namespace, &[("near", "node1"), ("far", "node2")])?;
    let (near, far) = (cluster.pod(namespace, "near")?, cluster.pod(namespace, "far")?);
    let traffic = Traffic::start(&cluster, &near, &far)?;
    let over = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let come_and_go = scope.spawn(|| come_and_go(&cluster, namespace, &over));
        let rolled = cluster
            .kubectl(&["rollout", "restart", "-n", "manx-system", "daemonset/manx-agent"])
            .and_then(|_| cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON));
        over.store(true, Ordering::Relaxed);
        let made = come_and_go.join().unwrap_or_else(|_| panic!("the thread that makes pods panicked"));
        rolled.and(made)
    });
    traffic.lost_nothing()?;
    assert!(made? >= 3, "hardly a pod was made meanwhile");
    Ok(())
}

/// Makes a pod on each node, waits until the kubelets reach them, deletes them, and goes on so until it is over.
/// Returns how many pods there were.
fn come_and_go(cluster: &Cluster, namespace: &str, over: &AtomicBool) -> Result<usize, LabError> {
    let nodes: Vec<String> = cluster.machines().map(tests::Machine::name).collect();
    let mut made = 0;
    while !over.load(Ordering::Relaxed) {
        let names: Vec<String> = nodes.iter().map(|node| format!("passing-{made}-{node}")).collect();
        let pods: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(nodes.iter().map(String::as_str)).collect();
        pods::start(cluster, namespace, &pods)?;
        let names = pods.iter().map(|(name, _)| *name);
        let line: Vec<&str> = ["delete", "pod", "-n", namespace, "--wait=false"].into_iter().chain(names).collect();
        cluster.kubectl(&line)?;
        made += pods.len();
    }
    Ok(made)
}
