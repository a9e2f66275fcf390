//! Tests the lab's cluster itself, with a pod network that is not ours: a failure here is not Manx's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    AGNHOST_IMAGE, Apiserver, Cluster, ClusterOptions, KubeProxy, Lab, Network, Options, Place, ProxyMode, TestResult,
};
use tests::{can_run_clusters, images_folder, wait_for, wait_until};

use crate::{SOON, shared};

/// A pod on a node that answers HTTP on port 8080.
fn server(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "nodeName": node, "containers": [{
            "name": "c", "image": AGNHOST_IMAGE, "args": ["netexec", "--http-port=8080"],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
        }] },
    })
}

fn up(name: &str, mode: ProxyMode) -> Result<Cluster, tests::LabError> {
    Cluster::up(&ClusterOptions::unique(name).network(Network::Ptp).proxy_mode(mode))
}

#[test]
fn pods_in_two_racks_reach_each_other_and_a_service_has_a_name() -> TestResult {
    let Some(_nobody_else) = shared::without() else { return Ok(()) };
    let cluster = up("ptp", ProxyMode::Iptables)?;
    assert_eq!(cluster.machines().count(), 3);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "far" },
        "spec": { "selector": { "app": "far" }, "ipFamilyPolicy": "RequireDualStack", "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    for object in [server("near", "node1"), server("far", "node2"), service] {
        cluster.apply(&object.to_string())?;
    }
    cluster.kubectl(&["wait", "pod", "near", "far", "--for=condition=Ready", "--timeout=60s"])?;
    let connects = |target: &str| cluster.exec("default", "near", &["/agnhost", "connect", target, "--timeout=5s"]);
    let far = cluster.get(&["pod", "far"])?;
    let addresses = far["status"]["podIPs"].as_array().ok_or("the pod has no addresses")?;
    assert_eq!(addresses.len(), 2, "{far}");
    for address in addresses.iter().filter_map(|address| address["ip"].as_str()) {
        connects(&if address.contains(':') { format!("[{address}]:8080") } else { format!("{address}:8080") })?;
        // The way leads through both racks' routers and the spine.
        let hops = cluster.node("node1").exec(&["ip", "-json", "route", "get", address])?;
        assert!(hops.contains("172.31.1.1\"") || hops.contains("fd00:31:1::1\""), "{hops}");
    }
    let resolved = wait_for("the service by its name", SOON, || connects("far.default.svc.cluster.local:80"));
    resolved?;
    // A host outside of the cluster reaches the pods too, as the fabric knows them.
    let address = far["status"]["podIP"].as_str().ok_or("no address")?;
    assert!(cluster.external_host().ping(address.parse()?), "{address} does not answer the host behind the fabric");
    loses_its_power(&cluster, "node2", "far")?;
    cluster.down()?;
    Ok(())
}

/// A machine comes back as another boot of the same node, with its disk and its wires, and its pods come back with it.
fn loses_its_power(cluster: &Cluster, machine: &str, pod: &str) -> TestResult {
    let boot = || -> Result<Value, tests::LabError> {
        Ok(cluster.get(&["node", machine])?["status"]["nodeInfo"]["bootID"].clone())
    };
    let before = boot()?;
    cluster.node(machine).exec(&["touch", "/var/lib/kept", "/run/lost"])?;
    cluster.reboot(machine)?;
    cluster.node(machine).exec(&["test", "-e", "/var/lib/kept"])?;
    cluster.node(machine).exec(&["test", "!", "-e", "/run/lost"])?;
    wait_until("another boot of the node", SOON, || boot().is_ok_and(|now| now != before))?;
    cluster.wait_nodes_ready(SOON)?;
    wait_for("the pod on it", SOON, || {
        let now = cluster.get(&["pod", pod]).map_err(|error| error.to_string())?;
        let address = now["status"]["podIP"].as_str().ok_or("it has no address")?;
        let answers =
            cluster.exec("default", "near", &["/agnhost", "connect", &format!("{address}:8080"), "--timeout=2s"]);
        answers.map_err(|error| error.to_string())
    })?;
    Ok(())
}

#[test]
fn of_a_cluster_that_is_killed_nothing_is_left() -> TestResult {
    if !can_run_clusters() {
        return Ok(());
    }
    let name = format!("killed-{}", std::process::id());
    let mut command = Command::new(env!("CARGO_BIN_EXE_manx-lab"));
    command.args(["k8s", "up", "--nodes", "1", "--name", &name]);
    let mut supervisor = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let said = BufReader::new(supervisor.stdout.take().ok_or("no output")?);
    // By then the machine has control groups, a disk and a containerd.
    let images = said.lines().map_while(Result::ok).find(|line| line.contains("the machines have their images"));
    images.ok_or("the cluster did not come up")?;
    let groups = || -> std::io::Result<Vec<PathBuf>> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")?.filter_map(|entry| Some(entry.ok()?.path()));
        let folder = format!("manx-lab-{name}");
        let places = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|at| at.join(&folder));
        Ok(places.filter(|folder| folder.exists()).collect())
    };
    let disk = images_folder()?.with_file_name("lab").join(&name);
    assert!(!groups()?.is_empty() && disk.join("node1/lib/containerd").exists(), "{:?}", groups()?);
    // When the supervisor ends, the process that brings the cluster up is killed and has no time to clean up either.
    supervisor.kill()?;
    supervisor.wait()?;
    wait_until("the end of the cluster", SOON, || {
        !disk.exists() && groups().is_ok_and(|left| left.is_empty()) && !Lab::list().contains(&name)
    })
    .map_err(|error| format!("{error}: left are {:?}", groups()))?;
    assert!(!fs::read_to_string("/proc/mounts")?.contains(&name), "a mount is left");
    Ok(())
}

#[test]
fn kube_proxy_alone_serves_a_node_of_any_lab() -> TestResult {
    if !can_run_clusters() {
        return Ok(());
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/policy.clab.yml");
    let lab = Lab::up(&file, &Options::unique("proxy").without_agents())?;
    let server = Apiserver::start(lab.node("etcd"))?;
    let mut client = server.client()?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "api" },
        "spec": { "clusterIP": "10.96.0.77", "ports": [{ "port": 443, "targetPort": 6443 }] },
    });
    client.call("POST", "/api/v1/namespaces/default/services", Some(&service))?;
    let address = lab.node("etcd").management_address(types::Family::Ipv4);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "api-1", "labels": { "kubernetes.io/service-name": "api" } },
        "endpoints": [{ "addresses": [address] }], "ports": [{ "port": 6443 }],
    });
    client.call("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", Some(&slice))?;
    for (node, mode) in [("node1", ProxyMode::Iptables), ("node2", ProxyMode::Nftables)] {
        let node = lab.node(node);
        let kubeconfig = server.introduce(node)?;
        let proxy = KubeProxy::start(node, Path::new(kubeconfig), mode)?;
        let connects = || node.exec(&["timeout", "2", "openssl", "s_client", "-connect", "10.96.0.77:443"]).is_ok();
        wait_until(&format!("the service on {}", node.name()), SOON, connects)?;
        proxy.stop(Signal::SIGTERM)?;
    }
    lab.down()?;
    Ok(())
}
