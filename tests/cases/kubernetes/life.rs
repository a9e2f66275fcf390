//! A node's life, and what it depends on: reboots, restarts, and control planes that are away.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Cluster, Component, Node, Place, TestResult, wait_for};

use crate::pods::{self, Traffic};
use crate::{SOON, shared};

/// How long the API server is away: long enough for watches, leases and probes to notice.
const AWAY: Duration = Duration::from_secs(20);

#[test]
fn of_pods_from_before_a_reboot_nothing_is_left_and_they_come_back() -> TestResult {
    let Some(cluster) = shared::alone("reboot")? else { return Ok(()) };
    let namespace = cluster.namespace.as_str();
    pods::start(&cluster, namespace, &[("near", "node1"), ("far", "node2"), ("gone", "node2")])?;
    let before = boot(&cluster, "node2")?;
    // The pod is deleted while its node is down, so nobody calls DEL on that node.
    cluster.reboot("node2")?;
    cluster.kubectl(&["delete", "pod", "-n", namespace, "gone", "--force", "--grace-period=0"])?;
    wait_for("another boot of the node", SOON, || match boot(&cluster, "node2") {
        Ok(now) if now != before => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    cluster.wait_nodes_ready(SOON)?;
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;
    wait_for("the pod on it", SOON, || {
        let far = cluster.get(&["pod", "-n", namespace, "far"]).map_err(|error| error.to_string())?;
        let address = far["status"]["podIP"].as_str().ok_or("it has no address")?;
        let target = format!("{address}:8080");
        let connects = cluster.exec(namespace, "near", &["/agnhost", "connect", &target, "--timeout=2s"]);
        connects.map_err(|error| error.to_string())
    })?;
    pods::wait_ready(&cluster, namespace, &["far"])?;
    wait_for("nothing to be left of the pods from before", SOON, || nothing_is_left_over(&cluster, "node2"))?;
    network_is_available(&cluster)?;
    Ok(())
}

fn boot(cluster: &Cluster, node: &str) -> Result<Value, tests::LabError> {
    Ok(cluster.get(&["node", node])?["status"]["nodeInfo"]["bootID"].clone())
}

/// Stands before the CNI plugin and writes down what it is asked to delete.
const WITNESS: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" != DEL ] || echo "$CNI_CONTAINERID netns=$CNI_NETNS" >>/run/deleted
exec "${0%/*}/manx-itself"
"#;

#[test]
fn containerd_deletes_a_sandbox_twice_and_nothing_is_left_of_it() -> TestResult {
    let Some(cluster) = shared::alone("twice")? else { return Ok(()) };
    let (node, namespace) = (cluster.node("node2"), cluster.namespace.as_str());
    fs::write(node.path("/opt/cni/bin/witness"), WITNESS)?;
    node.shell("cd /opt/cni/bin && chmod +x witness && cp -a manx manx-itself && mv witness manx")?;
    let done = deleted_twice(&cluster, node, namespace);
    node.shell("cd /opt/cni/bin && mv manx-itself manx")?;
    done
}

fn deleted_twice(cluster: &Cluster, node: &Node, namespace: &str) -> TestResult {
    pods::start(cluster, namespace, &[("stays", "node2"), ("goes", "node2")])?;
    let of_pod = r#"labels."io.kubernetes.pod.name"==goes,labels."io.cri-containerd.kind"==sandbox"#;
    let sandboxes = || node.exec(&["ctr", "--namespace", "k8s.io", "containers", "list", "--quiet", of_pod]);
    let sandbox = sandboxes()?.trim().to_owned();
    assert!(!sandbox.is_empty() && !sandbox.contains('\n'), "{sandbox}");
    cluster.kubectl(&["delete", "pod", "-n", namespace, "goes"])?;
    // StopPodSandbox at once; RemovePodSandbox when the kubelet next clears away what has stopped.
    wait_for("containerd to have removed the sandbox", SOON, || match sandboxes() {
        Ok(left) if left.trim().is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let said = fs::read_to_string(node.path("/run/deleted"))?;
    let of_sandbox: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix(&sandbox)).map(str::trim).collect();
    assert!(matches!(of_sandbox.as_slice(), [first, .., "netns="] if first.len() > "netns=".len()), "{said}");
    wait_for("nothing to be left of the pod", SOON, || {
        nothing_is_left_over(cluster, "node2")?;
        let files = "ls /run/manx/released /run/manx/mapped 2>/dev/null; ls /var/lib/cni/results | grep";
        let files = node.shell(&format!("{files} {sandbox}; true")).map_err(|error| error.to_string())?;
        if files.lines().all(|line| line.ends_with(':') || line.is_empty()) { Ok(()) } else { Err(files) }
    })?;
    Ok(())
}

/// Checks that the endpoints, the addresses in use and the host interfaces of a node are those of its pods.
fn nothing_is_left_over(cluster: &Cluster, node: &str) -> Result<(), String> {
    let text = |error: tests::LabError| error.to_string();
    let pods = cluster.get(&["pods", "-A", "--field-selector", &format!("spec.nodeName={node}")]).map_err(text)?;
    let networked = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["spec"]["hostNetwork"] != true);
    let of_pods: BTreeSet<IpAddr> = networked
        .flat_map(|pod| pod["status"]["podIPs"].as_array().into_iter().flatten())
        .filter_map(|address| address["ip"].as_str()?.parse().ok())
        .collect();
    let said = cluster.manxctl(node, &["get", "workloadendpoints", "-A", "-o", "json"]).map_err(text)?;
    let endpoints: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let endpoints: Vec<&Value> = endpoints.iter().filter(|endpoint| endpoint["node"] == node).collect();
    let of_endpoints: BTreeSet<IpAddr> = endpoints
        .iter()
        .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect();
    let said = cluster.manxctl(node, &["ipam", "show", "--show-blocks", "-o", "json"]).map_err(text)?;
    let ipam: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let blocks = ipam["pools"].as_array().into_iter().flatten().flat_map(|pool| pool["blocks"].as_array());
    let in_use: u64 =
        blocks.flatten().filter(|block| block["owner"] == node).filter_map(|block| block["inUse"].as_u64()).sum();
    let links = cluster.node(node).exec(&["ip", "-json", "link", "show", "type", "veth"]).map_err(text)?;
    let links: Vec<Value> = serde_json::from_str(&links).map_err(|error| error.to_string())?;
    let name = |link: &Value| link["ifname"].as_str().map(str::to_owned);
    let links: BTreeSet<String> = links.iter().filter_map(name).filter(|name| name.starts_with("mx")).collect();
    let interface = |endpoint: &&Value| endpoint["host_interface"].as_str().map(str::to_owned);
    let interfaces: BTreeSet<String> = endpoints.iter().filter_map(interface).collect();
    let same = of_pods == of_endpoints && in_use == of_pods.len() as u64 && links == interfaces;
    if same && !of_pods.is_empty() {
        return Ok(());
    }
    Err(format!("pods: {of_pods:?}; endpoints: {of_endpoints:?} at {interfaces:?}; in use: {in_use}; links: {links:?}"))
}

/// Checks that every node says that its network is available, and has the files that runtimes look for.
fn network_is_available(cluster: &Cluster) -> TestResult {
    for machine in cluster.machines() {
        let node = cluster.get(&["node", &machine.name()])?;
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let said: Vec<&Value> = conditions.filter(|condition| condition["type"] == "NetworkUnavailable").collect();
        assert!(matches!(said.as_slice(), [one] if one["status"] == "False"), "{}: {said:?}", machine.name());
        machine.node().exec(&["test", "-s", "/etc/cni/net.d/10-manx.conflist"])?;
    }
    Ok(())
}

#[test]
fn traffic_goes_on_whoever_is_restarted_or_away() -> TestResult {
    let Some(cluster) = shared::alone("away")? else { return Ok(()) };
    let namespace = cluster.namespace.as_str();
    pods::start(&cluster, namespace, &[("near", "node1"), ("far", "node2")])?;
    let (near, far) = (cluster.pod(namespace, "near")?, cluster.pod(namespace, "far")?);
    let traffic = Traffic::start(&cluster, &near, &far)?;
    let machine = cluster.machine("node2");
    machine.stop_kubelet(Signal::SIGTERM)?;
    machine.stop_containerd(Signal::SIGTERM)?;
    machine.start_containerd()?;
    machine.start_kubelet()?;
    let control = cluster.control_plane();
    // Controllers and scheduler stop with it: they give up while the API server is away, and nobody here starts them
    // again.
    let away = [Component::Scheduler, Component::Controllers, Component::Apiserver];
    away.into_iter().try_for_each(|component| control.stop(component))?;
    thread::sleep(AWAY);
    away.into_iter().rev().try_for_each(|component| control.start(component))?;
    control.wait_ready(|words| cluster.kubectl(words))?;
    cluster.kubectl(&["delete", "pod", "-n", "manx-system", "etcd-0"])?;
    // The StatefulSet's own status is late: it still counts the pod that has gone.
    wait_for("Manx's etcd to serve again", SOON, || cluster.manxctl("node1", &["get", "ippools"]))?;
    // Every component serves again.
    pods::start(&cluster, namespace, &[("after", "node2")])?;
    traffic.lost_nothing()?;
    network_is_available(&cluster)
}
