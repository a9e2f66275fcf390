//! An etcd of the operator's own, behind the fabric, with TLS: with a certificate for every node, which etcd confines to
//! what is that node's to write, and with one for all. All of it as docs/installation.md says.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Cluster, ClusterOptions, Node, Place, TestResult, wait_for};

use crate::{SOON, pods, shared};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// The peers of this topology's nodes.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/racks/peers.yaml");

/// The host that etcd runs on: the one behind the fabric.
const ADDRESS: &str = "192.0.2.10";

/// The folder on that host in which certificates are made.
const PKI: &str = "/var/lib/pki";

/// The environment with which etcdctl runs, in a folder that holds a certificate.
const ASK: &str = "\
    export MANX_ETCD_ENDPOINTS=https://192.0.2.10:2379 MANX_ETCD_CA=ca.crt MANX_ETCD_CERT=tls.crt MANX_ETCD_KEY=tls.key
    export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=https://192.0.2.10:2379
    export ETCDCTL_CACERT=ca.crt ETCDCTL_CERT=tls.crt ETCDCTL_KEY=tls.key
";

/// The files of a certificate.
const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

const POOLS: &str = "
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods-v4}, spec: {cidr: 10.42.0.0/16}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods-v6}, spec: {cidr: 'fd00:42::/64'}}
";

#[test]
fn an_etcd_of_ones_own_confines_nodes_by_their_certificates_and_serves_with_one_for_all() -> TestResult {
    let Some(_nobody_else) = shared::without() else { return Ok(()) };
    let cluster = Cluster::up(&ClusterOptions::unique("components").nodes(2))?;
    let host = cluster.external_host();
    host.shell(&format!("manxctl certs make --dir {PKI} --server {ADDRESS} node1 node2 agents"))?;
    start_etcd(host)?;
    as_root(host, "manxctl certs roles node1 node2 --enable")?;
    for machine in cluster.machines() {
        let place = machine.node().path("/etc/manx/etcd");
        fs::create_dir_all(&place)?;
        copy_certificate(&host.path(&format!("{PKI}/{}", machine.name())), &place)?;
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(cluster.lab().name());
    let folder = manifests(&place, "node-certificates")?;
    cluster.kubectl(&["apply", "-k", &folder])?;
    // There is no pool yet, and no node may make one.
    wait_for("an agent that says what it may not", SOON, || {
        let label = "app.kubernetes.io/name=manx-agent";
        let said = cluster.kubectl(&["logs", "-n", "manx-system", "-l", label, "-c", "agent"]);
        let said = said.map_err(|error| error.to_string())?;
        if said.contains("refused this client") { Ok(()) } else { Err(said) }
    })?;
    fs::write(host.path("/var/lib/pools.yaml"), POOLS)?;
    as_root(host, &format!("manxctl apply -f /var/lib/pools.yaml && manxctl apply -f {PEERS}"))?;
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;
    cluster.wait_nodes_ready(SOON)?;
    pods::start(&cluster, "default", &[("near", "node1"), ("far", "node2")])?;
    reach(&cluster, "near", "far")?;
    writes_its_own_alone(cluster.node("node1"))?;

    // All agents share one certificate, at an etcd that asks for no more than that.
    as_root(host, "etcdctl auth disable")?;
    let folder = manifests(&place, "own-etcd")?;
    copy_certificate(&host.path(&format!("{PKI}/agents")), &Path::new(&folder).join("components/own-etcd"))?;
    cluster.kubectl(&["apply", "-k", &folder])?;
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;

    pods::start(&cluster, "default", &[("after", "node2")])?;
    reach(&cluster, "near", "after")?;
    cluster.down()?;
    fs::remove_dir_all(place)?;
    Ok(())
}

/// Starts an etcd that lets in every client with a certificate of its authority.
fn start_etcd(host: &Node) -> TestResult {
    let mut command = host.command("etcd");
    command.args(["--data-dir=/var/lib/etcd", "--client-cert-auth"]);
    command.args(["--listen-client-urls=https://0.0.0.0:2379", "--advertise-client-urls=https://192.0.2.10:2379"]);
    for (flag, file) in ["trusted-ca-file", "cert-file", "key-file"].into_iter().zip(FILES) {
        command.arg(format!("--{flag}={PKI}/server/{file}"));
    }
    host.start_service("etcd", command)?;
    wait_for("etcd", SOON, || as_root(host, "etcdctl endpoint health").map_err(|error| error.to_string()))?;
    Ok(())
}

/// Asks etcd as its administrator.
fn as_root(host: &Node, line: &str) -> Result<String, tests::LabError> {
    host.shell(&format!("cd {PKI}/root\n{ASK}{line}"))
}

fn copy_certificate(from: &Path, to: &Path) -> std::io::Result<()> {
    FILES.iter().try_for_each(|name| fs::copy(from.join(name), to.join(name)).map(drop))
}

/// A copy of the manifests with a component that takes an operator's etcd, and this etcd in it.
fn manifests(place: &Path, component: &str) -> Result<String, Box<dyn std::error::Error>> {
    fs::create_dir_all(place)?;
    let folder = place.join(component);
    let copied = Command::new("cp").args(["--recursive", "--no-target-directory", MANIFESTS]).arg(&folder).status()?;
    assert!(copied.success(), "{}", folder.display());
    let (chosen, settings) = ("kustomization.yaml", format!("components/{component}/etcd.env"));
    for (file, from, to) in [
        (chosen, "components: [components/etcd]", format!("components: [components/{component}]")),
        (&settings, "https://etcd-1.example:2379", format!("https://{ADDRESS}:2379")),
    ] {
        let text = fs::read_to_string(folder.join(file))?;
        assert!(text.contains(from), "{file}: {text}");
        fs::write(folder.join(file), text.replace(from, &to))?;
    }
    Ok(folder.display().to_string())
}

/// Waits until both addresses of a pod are reached from another one.
fn reach(cluster: &Cluster, from: &str, to: &str) -> TestResult {
    let pod = cluster.get(&["pod", to])?;
    let addresses =
        pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|address| address["ip"].as_str());
    let addresses: Vec<&str> = addresses.collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        let target = if address.contains(':') { format!("[{address}]:8080") } else { format!("{address}:8080") };
        wait_for(&format!("{target} from {from}"), SOON, || {
            cluster.exec("default", from, &["/agnhost", "connect", &target, "--timeout=3s"])
        })?;
    }
    Ok(())
}

/// Checks what etcd lets a node do with the node's own certificate.
fn writes_its_own_alone(node: &Node) -> TestResult {
    let etcdctl = |line: &str| node.shell(&format!("cd /etc/manx/etcd\n{ASK}etcdctl {line}"));
    let name = node.name();
    etcdctl(&format!("put /manx/v1/nodes/{name}/test x && etcdctl del /manx/v1/nodes/{name}/test"))?;
    let everything = etcdctl("get --prefix --keys-only /manx/v1/")?;
    assert!(everything.contains("/manx/v1/nodes/node2/registration"), "{everything}");
    for line in [
        "put /manx/v1/nodes/node2/registration x",
        "del --prefix /manx/v1/nodes/node2/",
        "put /manx/v1/resources/IPPool/pods-v4 x",
        "put /manx/v1/version x",
        "get --prefix /registry/",
    ] {
        let refused = etcdctl(line).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("permission denied"), "{line}: {refused:?}");
    }
    Ok(())
}
