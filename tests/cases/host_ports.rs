//! Host ports of pods where something went amiss: mappings that somebody flushes, DELs that never come, nodes that reboot, pods that
//! move, annotations that somebody else writes. (What a pod with host ports has in a cluster is in `kubernetes/host_ports.rs`.)

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tests::{ApiClient, Apiserver, Attachment, CONVERGENCE, Lab, LabError, Node, Options, Place, PodSpec, Runtime};
use tests::{TestResult, wait_for};

use crate::pair;

const AGENT: &str = "etcd: {endpoints: ['http://172.20.40.10:2379']}
initialPools: [{cidr: 10.42.0.0/16}, {cidr: 'fd00:42::/64'}]
hostPorts: {range: 20000-20001}
";

const KUBECONFIG: &str = "/etc/manx/kubeconfig";

/// Two nodes that follow an API server.
struct Bed {
    lab: Lab,
    client: ApiClient,
}

impl Bed {
    fn up(test: &str) -> Result<Option<Self>, Box<dyn Error>> {
        if !Apiserver::can_run() {
            return Ok(None);
        }
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-data"));
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let options = Options::unique(test).without_agents().data_in(&data);
        let lab = Lab::up(&pair(test, AGENT)?, &options)?;
        let server = Apiserver::start(lab.node("etcd"))?;
        server.start_agents(&lab, CONVERGENCE)?;
        let mut client = server.client()?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "x" } });
        client.call("POST", "/api/v1/namespaces", Some(&namespace))?;
        Ok(Some(Self { lab, client }))
    }

    /// Makes a Pod object that asks for a host port, and the sandbox of its pod; gives the attachment to be made.
    fn pod(&mut self, node: &str, name: &str) -> Result<Attachment, Box<dyn Error>> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "annotations": { "manx.io/hostport": "auto" } },
            "spec": {
                "nodeName": node,
                "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 8080 }] }],
            },
        });
        let (_, made) = self.client.call("POST", "/api/v1/namespaces/x/pods", Some(&object))?;
        let spec = PodSpec::in_namespace("x", name).uid(made["metadata"]["uid"].as_str().ok_or("no UID")?);
        Ok(self.lab.node(node).sandbox(spec)?.attachment())
    }

    fn delete_pod(&mut self, name: &str) -> TestResult {
        let now = json!({ "gracePeriodSeconds": 0 });
        self.client.call("DELETE", &format!("/api/v1/namespaces/x/pods/{name}"), Some(&now))?;
        Ok(())
    }

    /// Waits until the annotation of a pod tells this host port and these addresses of its host.
    fn tells(&mut self, pod: &str, port: u16, hosts: [&str; 2]) -> TestResult {
        let wanted = json!([{ "containerPort": 8080, "protocol": "TCP", "hostPort": port, "hostIPs": hosts }]);
        Ok(wait_for(&format!("the annotation of {pod} telling {wanted}"), CONVERGENCE, || {
            let (_, object) = self
                .client
                .call("GET", &format!("/api/v1/namespaces/x/pods/{pod}"), None)
                .map_err(|error| error.to_string())?;
            let told = object["metadata"]["annotations"]["manx.io/hostports"].as_str().unwrap_or_default().to_owned();
            if serde_json::from_str::<Value>(&told).is_ok_and(|told| told == wanted) { Ok(()) } else { Err(told) }
        })?)
    }
}

const NODE1: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const NODE2: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

fn runtime(node: &Node) -> Result<Runtime, String> {
    let text = json!({ "cniVersion": "1.1.0", "name": "manx", "plugins": [{ "type": "manx" }] }).to_string();
    Runtime::from_conflist(node.namespace().clone(), &text)
}

/// What there is of mapped host ports on a node: records, and portmap's chains in either variant and family.
fn mapped(node: &Node) -> Result<String, LabError> {
    node.shell(
        "ls /run/manx/mapped 2>/dev/null
         for save in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do
             $save -t nat 2>/dev/null | grep CNI-DN-
         done; true",
    )
}

/// Waits until nothing is mapped any more.
fn nothing_is_mapped(node: &Node) -> TestResult {
    Ok(wait_for("nothing being mapped", CONVERGENCE, || {
        let left = mapped(node).map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })?)
}

/// Serves HTTP in a pod.
fn serve(node: &Node, attachment: &Attachment) -> TestResult {
    let mut server = node.namespace().command("nsenter");
    let netns = attachment.netns.clone().unwrap_or_default();
    server.args([&format!("--net={netns}"), "python3", "-m", "http.server", "--directory", "/run/netns", "8080"]);
    Ok(node.start_service(&format!("server-{}", attachment.container), server)?)
}

/// Waits until a host port of the first node leads to a pod, from the second.
fn is_reached(lab: &Lab, port: u16) -> TestResult {
    let target: SocketAddr = format!("192.0.2.1:{port}").parse()?;
    Ok(wait_for(&format!("{target} answering"), CONVERGENCE, || {
        lab.node("node2").http_get(target, "/").map(drop).map_err(|error| error.to_string())
    })?)
}

#[test]
fn check_and_gc_reach_the_mapping_and_one_whose_del_never_came_goes_by_itself() -> TestResult {
    let Some(mut bed) = Bed::up("hostportsleft")? else { return Ok(()) };
    let runtime = runtime(bed.lab.node("node1"))?;
    let kept = bed.pod("node1", "kept")?;
    runtime.add(&kept)?;
    serve(bed.lab.node("node1"), &kept)?;
    is_reached(&bed.lab, 20_000)?;
    runtime.check(&kept)?;
    bed.tells("kept", 20_000, NODE1)?;
    // Whatever somebody else makes of the annotation, it comes back.
    for theirs in [json!("[]"), Value::Null] {
        let change = json!({ "metadata": { "annotations": { "manx.io/hostports": theirs } } });
        bed.client.call("PATCH", "/api/v1/namespaces/x/pods/kept", Some(&change))?;
        bed.tells("kept", 20_000, NODE1)?;
    }

    // The namespace of a pod goes, and nobody calls DEL.
    let lost = bed.pod("node1", "lost")?;
    runtime.add(&lost)?;
    let node = bed.lab.node("node1");
    assert_eq!(mapped(node)?.lines().filter(|line| line.starts_with("mx")).count(), 2);
    node.exec(&["ip", "netns", "del", "x.lost"])?;
    wait_for("the mapping of the pod that went without a DEL being gone", CONVERGENCE, || {
        let left = mapped(node).map_err(|error| error.to_string())?;
        if left.contains("20001") || left.lines().filter(|line| line.starts_with("mx")).count() != 1 {
            Err(left)
        } else {
            Ok(())
        }
    })?;
    is_reached(&bed.lab, 20_000)?;
    runtime.check(&kept)?;

    // GC takes what is not listed, and its port is free again.
    let collected = bed.pod("node1", "collected")?;
    let node = bed.lab.node("node1");
    runtime.add(&collected)?;
    assert!(mapped(node)?.contains("20001"));
    let listed = json!({
        "cniVersion": "1.1.0", "name": "manx", "type": "manx",
        "cni.dev/valid-attachments": [{ "containerID": kept.container, "ifname": "eth0" }],
    });
    let gc = runtime.run("manx", &[("CNI_COMMAND", "GC")], &listed.to_string())?;
    assert!(gc.status.success(), "{gc:?}");
    let left = mapped(node)?;
    assert!(!left.contains("20001") && left.contains("20000"), "{left}");

    // Somebody flushes the host's nat table.
    node.shell("for family in iptables ip6tables; do $family -t nat -F CNI-HOSTPORT-DNAT; done")?;
    let said = runtime.check(&kept).expect_err("the host port leads nowhere").to_string();
    assert!(said.contains("code 104") && said.contains("host ports: "), "{said}");
    runtime.del(&kept)?;
    runtime.del(&kept)?;
    nothing_is_mapped(node)?;
    bed.lab.down()?;
    Ok(())
}

#[test]
fn a_reboot_and_a_move_give_a_pod_new_ports_and_a_node_that_is_cleaned_has_none_left() -> TestResult {
    let Some(mut bed) = Bed::up("hostportsmove")? else { return Ok(()) };
    let before = bed.pod("node1", "web")?;
    runtime(bed.lab.node("node1"))?.add(&before)?;
    bed.tells("web", 20_000, NODE1)?;
    let kubeconfig = fs::read(bed.lab.node("node1").path(KUBECONFIG))?;

    // The state folder stays; the run folder, namespaces and the kernel's tables go.
    bed.lab.reboot("node1")?;
    let node = bed.lab.node("node1");
    fs::write(node.path(KUBECONFIG), kubeconfig)?;
    node.agent().start_with(&[("MANX_KUBERNETES", KUBECONFIG)])?;
    node.agent().wait_ready(CONVERGENCE)?;
    nothing_is_mapped(node)?;
    // The kubelet takes the old sandbox down, and makes another for the same Pod.
    let runtime1 = runtime(node)?;
    runtime1.del(&before)?;
    let uid = before.args.iter().find(|(key, _)| key == "K8S_POD_UID").map(|(_, uid)| uid.clone()).ok_or("no UID")?;
    let again = node.sandbox(PodSpec::in_namespace("x", "web").uid(&uid))?.attachment();
    runtime1.add(&again)?;
    serve(node, &again)?;
    // Both ports are free: the one of before was given back.
    let port =
        [20_000, 20_001].into_iter().find(|port| mapped(node).is_ok_and(|said| said.contains(&port.to_string())));
    let port = port.ok_or("no port is mapped")?;
    bed.tells("web", port, NODE1)?;
    is_reached(&bed.lab, port)?;

    // The pod moves: another Pod of its name, on another node.
    runtime1.del(&again)?;
    bed.delete_pod("web")?;
    let moved = bed.pod("node2", "web")?;
    let other = bed.lab.node("node2");
    runtime(other)?.add(&moved)?;
    bed.tells("web", 20_000, NODE2)?;
    nothing_is_mapped(bed.lab.node("node1"))?;

    // A node that is cleaned with the pod still on it.
    let other = bed.lab.node("node2");
    other.agent().terminate()?;
    assert!(mapped(other)?.contains("CNI-DN-"));
    other.shell("umount /etc/cni/net.d/10-manx.conflist")?;
    let said = other.agent().ctl(&["node", "clean", "--keep-keys"])?;
    assert!(said.contains("table nat"), "{said}");
    assert_eq!(mapped(other)?, "");
    assert!(!other.path("/run/manx").exists(), "{said}");
    bed.lab.down()?;
    Ok(())
}
