//! Addresses of Services as the fabric's router has them, with a real API server.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::mesh::{apply, paths_of_router, restart_is_over};
use tests::{
    ApiClient, Apiserver, CONVERGENCE, Lab, Node, Options, Place, TestResult, topology_file, wait_for, wait_until,
};
use types::Family;

/// The ranges that the nodes announce, and the pool that Services of type LoadBalancer get their addresses from.
const DECLARED: &str = "\
{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {
  serviceClusterIPs: [{cidr: 10.96.0.0/16}], serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}],
  serviceExternalIPs: [{cidr: 198.51.100.0/24}, {cidr: '2001:db8:99::/64'}, {cidr: 100.64.0.9/32}]}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: lb},
 spec: {cidr: 203.0.113.0/24, allowedUses: [LoadBalancer]}}
";

/// How long the router may take to have what follows from a change of endpoints.
const FOLLOWED: Duration = Duration::from_secs(3);

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Three nodes below a router, and the API server that they follow.
struct ServiceNodes {
    lab: Lab,
    client: ApiClient,
}

impl ServiceNodes {
    fn up(test: &str) -> Result<Option<Self>, Box<dyn Error>> {
        if !Apiserver::can_run() {
            return Ok(None);
        }
        let lab = Lab::up(&topology_file("mesh.clab.yml"), &Options::unique(test).without_agents())?;
        let server = Apiserver::start(lab.node("etcd"))?;
        let one = lab.node("node1");
        one.agent().ctl(&["apply", "-f", "/etc/manx/resources.yaml"])?;
        apply(one, DECLARED)?;
        for node in lab.manx_nodes() {
            // The router sends here again what a node sends back.
            let number = node.name().trim_start_matches("node").to_owned();
            node.exec(&["ip", "route", "replace", "default", "via", &format!("172.31.{number}.2")])?;
        }
        server.start_agents(&lab, CONVERGENCE)?;
        let client = server.client()?;
        Ok(Some(Self { lab, client }))
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, Box<dyn Error>> {
        Ok(self.client.call(method, path, Some(body))?.1)
    }

    /// Makes a Service of type LoadBalancer without a selector, so that the test makes its endpoints.
    fn service(&mut self, name: &str, policy: &str, annotations: &Value) -> TestResult {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "annotations": annotations },
            "spec": { "type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{ "port": 80 }] },
        });
        self.call("POST", "/api/v1/namespaces/default/services", &service).map(drop)
    }

    /// The addresses of a Service: the cluster address and, once the Service has one, the address for load balancing.
    fn addresses(&mut self, name: &str) -> Result<(String, String), Box<dyn Error>> {
        let path = format!("/api/v1/namespaces/default/services/{name}");
        let text = |service: &Value, at: &str| service.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let found = wait_for(&format!("{name} having an address"), CONVERGENCE, || {
            let service = self.client.call("GET", &path, None).map_err(|error| error.to_string())?.1;
            let ingress = text(&service, "/status/loadBalancer/ingress/0/ip");
            text(&service, "/spec/clusterIP").zip(ingress).ok_or_else(|| service["status"].to_string())
        })?;
        Ok(found)
    }

    /// Makes (POST) or replaces (PUT) the one EndpointSlice of the Service `web`: nodes, and whether their endpoint is ready.
    fn endpoints(&mut self, method: &str, nodes: &[(&str, bool)]) -> TestResult {
        let endpoint = |(node, ready): &(&str, bool)| json!({ "addresses": ["10.42.0.9"], "nodeName": node, "conditions": { "ready": ready } });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{ "port": 80 }],
            "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
            "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        });
        let all = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let path = if method == "POST" { all.to_owned() } else { format!("{all}/web-1") };
        self.call(method, &path, &slice).map(drop)
    }

    /// Waits until the router has a prefix from exactly these nodes.
    fn router_has(&self, prefix: &str, nodes: &[&str]) -> TestResult {
        let family = if prefix.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
        let of = |node: &&str| match family {
            Family::Ipv4 => format!("172.31.{}.3", node.trim_start_matches("node")),
            Family::Ipv6 => format!("fd00:31:{}::3", node.trim_start_matches("node")),
        };
        let wanted: BTreeSet<String> = nodes.iter().map(of).collect();
        let router = self.lab.node("tor");
        wait_for(&format!("the router having {prefix} from {nodes:?}"), CONVERGENCE, || {
            let peers: BTreeSet<_> =
                paths_of_router(router, family, prefix).into_iter().map(|(peer, _)| peer).collect();
            let in_kernel = next_hops(router, prefix);
            if peers == wanted && in_kernel == wanted.len() { Ok(()) } else { Err(format!("{peers:?}, {in_kernel}")) }
        })?;
        Ok(())
    }
}

/// How many ways the router's kernel has to a prefix.
fn next_hops(router: &Node, prefix: &str) -> usize {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let said = router.exec(&["ip", family, "route", "show", "exact", prefix]).unwrap_or_default();
    said.matches("via ").count()
}

const ALL: [&str; 3] = ["node1", "node2", "node3"];

#[test]
fn ranges_come_from_every_node_and_addresses_of_local_services_from_those_with_ready_endpoints() -> TestResult {
    let Some(mut cluster) = ServiceNodes::up("svcbgp")? else { return Ok(()) };
    for range in ["10.96.0.0/16", "203.0.113.0/24", "198.51.100.0/24", "2001:db8:99::/64"] {
        cluster.router_has(range, &ALL)?;
    }
    // A pool for Services gives nothing to pods.
    let blocks = cluster.lab.node("node1").agent().ctl(&["ipam", "show", "--show-blocks"])?;
    assert!(!blocks.lines().any(|line| line.starts_with("Block") && line.contains("203.0.113")), "{blocks}");

    cluster.service("web", "Local", &json!({ "projectcalico.org/loadBalancerIPs": "[\"203.0.113.7\"]" }))?;
    let (own, ingress) = cluster.addresses("web")?;
    assert_eq!(ingress, "203.0.113.7");
    let single = [format!("{own}/32"), format!("{ingress}/32")];
    for (method, nodes, announcing) in [
        ("POST", vec![("node2", true)], vec!["node2"]),
        ("PUT", vec![("node2", true), ("node3", true), ("node1", false)], vec!["node2", "node3"]),
        ("PUT", vec![("node2", false), ("node3", true)], vec!["node3"]),
        ("PUT", vec![("node2", false)], vec![]),
        ("PUT", vec![("node1", true), ("node3", true)], vec!["node1", "node3"]),
    ] {
        cluster.endpoints(method, &nodes)?;
        let told = Instant::now();
        for prefix in &single {
            cluster.router_has(prefix, &announcing)?;
        }
        // It took 0.2 to 0.5 s when it was measured, questions to the router included; the rest is room for a busy
        // machine.
        let took = told.elapsed();
        assert!(took < FOLLOWED, "{nodes:?}: {took:?}");
    }

    // A single address is announced by all nodes, and only while a Service has it.
    cluster.router_has("100.64.0.9/32", &[])?;
    let change = json!({ "spec": { "externalTrafficPolicy": "Cluster", "externalIPs": ["100.64.0.9"] } });
    cluster.call("PATCH", "/api/v1/namespaces/default/services/web", &change)?;
    cluster.router_has("100.64.0.9/32", &ALL)?;
    cluster.router_has(&single[0], &[])?;

    let label = |value: Option<&str>| json!({ "metadata": { "labels": { EXCLUDED: value } } });
    cluster.call("PATCH", "/api/v1/nodes/node3", &label(Some("")))?;
    for prefix in ["10.96.0.0/16", "100.64.0.9/32"] {
        cluster.router_has(prefix, &["node1", "node2"])?;
    }
    cluster.call("PATCH", "/api/v1/nodes/node3", &label(None))?;
    cluster.router_has("10.96.0.0/16", &ALL)?;

    only_what_a_service_takes_passes(&cluster)?;

    // What is declared no longer is announced no longer, and its rules go too.
    apply(
        cluster.lab.node("node1"),
        "{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {}}",
    )?;
    cluster.router_has("10.96.0.0/16", &[])?;
    let one = cluster.lab.node("node1");
    wait_until("the rules being gone", CONVERGENCE, || {
        one.exec(&["iptables-save", "-t", "mangle"]).is_ok_and(|rules| !rules.contains("manx-services"))
    })?;
    cluster.lab.down()?;
    Ok(())
}

/// Checks that packets to an address without a Service are dropped where they come in, and that packets that a node
/// leads to a Service are not.
fn only_what_a_service_takes_passes(cluster: &ServiceNodes) -> TestResult {
    let (host, one) = (cluster.lab.node("client"), cluster.lab.node("node1"));
    let answer = host.try_exec(&["ping", "-c", "3", "-i", "0.2", "-W", "1", "203.0.113.99"])?;
    assert!(!answer.stdout.contains("exceeded"), "it goes round and round: {}", answer.stdout);
    let dropped: usize = cluster.lab.manx_nodes().map(|node| drops(node, "203.0.113.0/24")).sum();
    assert_eq!(dropped, 3, "{}", answer.stdout);
    // The rule is like kube-proxy's: for packets that come in, and for those that the node itself sends.
    for chain in ["PREROUTING", "OUTPUT"] {
        for node in cluster.lab.manx_nodes() {
            let rule = ["-d", "203.0.113.77", "-j", "DNAT", "--to-destination", "192.0.2.10"];
            node.exec(&[["iptables", "-t", "nat", "-A", chain].as_slice(), &rule].concat())?;
        }
    }
    one.exec(&["ping", "-c", "1", "-W", "1", "203.0.113.77"])?;
    Ok(())
}

/// How many packets to a range of Services a node has dropped.
fn drops(node: &Node, range: &str) -> usize {
    let said = node.exec(&["iptables-save", "-c", "-t", "mangle"]).unwrap_or_default();
    let rule = said.lines().find(|line| line.contains("manx-services") && line.contains(range)).unwrap_or_default();
    rule.trim_start_matches('[').split(':').next().and_then(|count| count.parse().ok()).unwrap_or_default()
}

#[test]
fn services_get_addresses_from_whoever_is_elected_and_keep_them_while_the_api_server_is_away() -> TestResult {
    let Some(mut cluster) = ServiceNodes::up("svclb")? else { return Ok(()) };
    cluster.service("web", "Local", &Value::Null)?;
    cluster.endpoints("POST", &[("node2", true)])?;
    let (own, first) = cluster.addresses("web")?;
    assert_eq!(first, "203.0.113.0");
    cluster.router_has(&format!("{first}/32"), &["node2"])?;

    another_is_elected_when_the_elected_agent_alone_loses_the_api_server(&mut cluster)?;

    // An agent that starts anew announces what it did before, even while nobody tells it of Services.
    let (router, two) = (cluster.lab.node("tor"), cluster.lab.node("node2"));
    let mut monitor = router.command("ip");
    monitor.args(["monitor", "route"]);
    router.start_service("monitor", monitor)?;
    for is_api_away in [false, true] {
        if is_api_away {
            Apiserver::on(cluster.lab.node("etcd")).stop()?;
        }
        two.agent().kill9()?;
        two.agent().start_with(&[("MANX_KUBERNETES", "/etc/manx/kubeconfig")])?;
        two.agent().wait_ready(CONVERGENCE)?;
        restart_is_over(&cluster.lab, two)?;
        for prefix in [format!("{first}/32"), format!("{own}/32")] {
            cluster.router_has(&prefix, &["node2"])?;
        }
        cluster.router_has("203.0.113.0/24", &ALL)?;
        let log = fs::read_to_string(two.agent().log())?;
        assert_eq!(log.contains("announcing what was announced"), is_api_away);
    }
    router.end_service("monitor", Signal::SIGKILL)?;
    let seen = fs::read_to_string(router.log("monitor"))?;
    for prefix in [&first, &own, "203.0.113.0/24"] {
        assert!(!seen.lines().any(|line| line.starts_with("Deleted") && line.contains(prefix)), "{seen}");
    }
    Apiserver::start(cluster.lab.node("etcd"))?;
    cluster.client = server_client(&cluster.lab)?;

    // Whichever agent was elected, only one of these is left, and it knows from the Services what was given out.
    for gone in ["node1", "node2"] {
        cluster.lab.node(gone).agent().kill9()?;
    }
    cluster.service("other", "Cluster", &Value::Null)?;
    let (_, second) = cluster.addresses("other")?;
    assert_eq!(second, "203.0.113.1");
    assert_eq!(cluster.addresses("web")?.1, first);
    // An address that no Service has any more is given to the next one.
    cluster.client.call("DELETE", "/api/v1/namespaces/default/services/web", None)?;
    cluster.service("third", "Cluster", &Value::Null)?;
    assert_eq!(cluster.addresses("third")?.1, first);
    let plain = json!({ "spec": { "type": "ClusterIP", "externalTrafficPolicy": null } });
    let path = "/api/v1/namespaces/default/services/third";
    cluster.call("PATCH", path, &plain)?;
    cluster.service("fourth", "Cluster", &Value::Null)?;
    assert_eq!(cluster.addresses("fourth")?.1, first);
    wait_until(
        "the Service that is none for load balancing having neither address nor condition",
        CONVERGENCE,
        || {
            let third = cluster.client.call("GET", path, None).map(|(_, third)| third["status"].clone());
            third.is_ok_and(|status| status["conditions"] == Value::Null && status["loadBalancer"] == json!({}))
        },
    )?;
    // Two Services want the same address: one gets it, and the other is told who has it.
    cluster.service("late", "Cluster", &json!({ "projectcalico.org/loadBalancerIPs": "[\"203.0.113.1\"]" }))?;
    let three = cluster.lab.node("node3");
    wait_until("the conflict being told", CONVERGENCE, || {
        let said = three.try_exec(&["manxctl", "node", "status"]);
        said.is_ok_and(|said| said.stdout.contains("default/late") && said.stdout.contains("default/other has"))
    })?;
    cluster.lab.down()?;
    Ok(())
}

/// The elected agent gives its office up to one that reaches the API server, though it reaches etcd itself.
fn another_is_elected_when_the_elected_agent_alone_loses_the_api_server(cluster: &mut ServiceNodes) -> TestResult {
    let holder = |lab: &Lab| -> Result<String, String> {
        let said = lab.etcd().ctl(&["get", "/manx/v1/elected/holder", "--print-value-only"]);
        let said = said.map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said:?}"))?;
        value.pointer("/spec/node").and_then(Value::as_str).map(str::to_owned).ok_or(said)
    };
    let cut = |node: &Node, verb: &str| {
        let rule = ["OUTPUT", "-p", "tcp", "--dport", "6443", "-j", "REJECT", "--reject-with", "tcp-reset"];
        node.exec(&[["iptables", verb].as_slice(), &rule].concat())
    };
    let first = holder(&cluster.lab)?;
    cut(cluster.lab.node(&first), "-I")?;
    cluster.service("cut", "Cluster", &Value::Null)?;
    cluster.addresses("cut")?;
    let second = holder(&cluster.lab)?;
    assert_ne!(second, first);
    cut(cluster.lab.node(&first), "-D")?;
    cluster.client.call("DELETE", "/api/v1/namespaces/default/services/cut", None)?;
    Ok(())
}

fn server_client(lab: &Lab) -> Result<ApiClient, Box<dyn Error>> {
    Ok(Apiserver::on(lab.node("etcd")).client()?)
}
