//! A cluster of the other kind: every node peers with every other too, all of one AS, and kube-proxy works by nftables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{
    Cluster, ClusterOptions, LabError, Network, Node, Peering, Place, ProxyMode, TestResult, wait_for, wait_until,
};
use types::api::RouteView;
use types::{Family, Prefix};

use crate::pods;
use crate::services::are_carried_and_judged;
use crate::{SOON, shared};

/// The cluster is this test's alone.
const NAMESPACE: &str = "default";

/// The ranges of all Services, one of each family.
const RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];

/// The BGPConfiguration: routers are told of all Services by their range, and one by one of those that care where their
/// pods are.
const ANNOUNCED: &str = "\
{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default},
 spec: {serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: 'fd00:96::/112'}],
        serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}, {cidr: '2001:db8:113::/120'}]}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: services},
 spec: {cidr: 203.0.113.0/24, allowedUses: [LoadBalancer]}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: services-v6},
 spec: {cidr: '2001:db8:113::/120', allowedUses: [LoadBalancer]}}
";

/// The label of a node to which routers are to send no traffic of Services.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// How long routers may send to a node that has no ready pod any more. It takes a small part of this.
const FOLLOWS: Duration = Duration::from_secs(5);

#[test]
fn a_full_mesh_over_the_fabric_carries_pods_and_services_by_nftables() -> TestResult {
    let Some(_nobody_else) = shared::without() else { return Ok(()) };
    let options = ClusterOptions::unique("mesh").network(Network::Manx);
    let cluster = Cluster::up(&options.peering(Peering::Mesh).proxy_mode(ProxyMode::Nftables))?;
    blocks_are_learned_from_their_nodes_and_reached_through_the_fabric(&cluster)?;
    are_carried_and_judged(&cluster, NAMESPACE)?;
    the_fabric_spreads_over_who_has_ready_pods(&cluster)?;
    cluster.down()?;
    Ok(())
}

fn blocks_are_learned_from_their_nodes_and_reached_through_the_fabric(cluster: &Cluster) -> TestResult {
    pods::start(cluster, NAMESPACE, &[("a", "node1"), ("b", "node2"), ("c", "node3")])?;
    let pod = |name| cluster.pod(NAMESPACE, name);
    let (a, b, c) = (pod("a")?, pod("b")?, pod("c")?);
    let here = cluster.node("node1");
    for (family, router) in [(Family::Ipv4, "172.31.1.1"), (Family::Ipv6, "fd00:31:1::1")] {
        // A node of the other rack is no neighbour: the rack's router leads there. A node of the same rack is one.
        let direct = cluster.machine("node3").address(family)?.to_string();
        for (pod, node, gateway) in [(&b, "node2", router), (&c, "node3", &direct)] {
            let (node, address) = (cluster.machine(node).address(family)?, pod.address(family));
            wait_for(&format!("the way to {} by {gateway}", pod.name()), SOON, || {
                let routes = routes(here, family, &["get", &address.to_string()])?;
                if routes.iter().any(|route| route["gateway"] == gateway) { Ok(()) } else { Err(format!("{routes:?}")) }
            })?;
            let said = cluster.manxctl("node1", &["bgp", "routes", "-o", "json"])?;
            let learned: Vec<RouteView> = serde_json::from_str(&said)?;
            let route = learned.iter().find(|route| route.prefix.contains(address)).ok_or("no route to the pod")?;
            let best = route.paths.iter().find(|path| path.best).ok_or("no best path to the pod")?;
            assert_eq!((best.peer, best.next_hop), (node, node), "{route:?}");
            wait_until("pods of two nodes reaching each other", SOON, || {
                a.ping(address) && pod.ping(a.address(family))
            })?;
        }
    }
    Ok(())
}

fn the_fabric_spreads_over_who_has_ready_pods(cluster: &Cluster) -> TestResult {
    cluster.apply_resources(ANNOUNCED)?;
    let nodes = ["node1", "node2", "node3"];
    for node in nodes {
        let mut pod = pods::server(NAMESPACE, &format!("spread-{node}"), node);
        pod["metadata"]["labels"] = json!({ "app": "spread" });
        pod["spec"]["containers"][0]["readinessProbe"] = json!({ "exec": { "command": ["sh", "-c", "[ ! -e /tmp/away ]"] }, "periodSeconds": 1, "failureThreshold": 1 });
        cluster.apply(&pod.to_string())?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "spread", "namespace": NAMESPACE },
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack",
            "selector": { "app": "spread" }, "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    });
    cluster.apply(&service.to_string())?;
    let addresses = wait_for("addresses of both families", SOON, || {
        let service = cluster.get(&["service", "-n", NAMESPACE, "spread"]).map_err(|error| error.to_string())?;
        let given = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
        let given: Vec<IpAddr> = given.into_iter().flatten().filter_map(|it| it["ip"].as_str()?.parse().ok()).collect();
        if given.len() == 2 { Ok(given) } else { Err(service["status"].to_string()) }
    })?;
    let single: Vec<Prefix> = addresses.iter().map(|address| Prefix::host(*address)).collect();
    let ranges: Vec<Prefix> = RANGES.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
    let spread = |prefixes: &[Prefix], nodes: &[&str]| {
        prefixes.iter().try_for_each(|prefix| is_spread(cluster, *prefix, nodes).map_err(|error| error.to_string()))
    };
    let settles = |what: &str, prefixes: &[Prefix], nodes: &[&str]| {
        wait_for(what, SOON, || spread(prefixes, nodes))?;
        Ok::<_, LabError>(Instant::now())
    };
    settles("the address being spread over all nodes", &single, &nodes)?;
    settles("the ranges being spread over all nodes", &ranges, &nodes)?;

    // Of two pods in a rack one is left, then none, then there is one again.
    for (node, ready, left) in
        [("node3", false, &["node1", "node2"][..]), ("node1", false, &["node2"]), ("node1", true, &["node1", "node2"])]
    {
        let line: &[&str] = if ready { &["busybox", "rm", "/tmp/away"] } else { &["sh", "-c", ":>/tmp/away"] };
        cluster.exec(NAMESPACE, &format!("spread-{node}"), line)?;
        let (told, followed) = thread::scope(|scope| {
            let told = scope
                .spawn(|| wait_for("the endpoint", SOON, || is_ready(cluster, node, ready)).map(|()| Instant::now()));
            let followed = settles(&format!("the address being spread over {left:?}"), &single, left);
            (told.join().unwrap_or_else(|_| panic!("the thread that asks for endpoints panicked")), followed)
        });
        took(&format!("{node} ready: {ready}"), told?, followed?);
        spread(&ranges, &nodes)?;
        for address in &addresses {
            let seen = cluster.external_host().http_get(SocketAddr::new(*address, 80), "/clientip")?.body;
            assert!(seen.contains(if address.is_ipv4() { "192.0.2.10:" } else { "2001:db8:2::10" }), "{seen}");
        }
    }
    for (change, left, all) in [("=", &["node1"][..], &["node1", "node3"][..]), ("-", &["node1", "node2"], &nodes)] {
        cluster.kubectl(&["label", "node", "node2", &format!("{EXCLUDED}{change}")])?;
        let told = Instant::now();
        took(&format!("the label {change}"), told, settles("the address by the label", &single, left)?);
        took(&format!("the label {change}, ranges"), told, settles("the ranges by the label", &ranges, all)?);
    }
    Ok(())
}

/// Prints how long the routers took since the API server said so.
fn took(what: &str, told: Instant, followed: Instant) {
    let took = followed.saturating_duration_since(told);
    eprintln!("{what}: the routers followed in {} ms", took.as_millis());
    assert!(took < FOLLOWS, "{what}: the routers followed only after {took:?}");
}

/// Whether the Service's endpoints on a node are ready (or not), in both families.
fn is_ready(cluster: &Cluster, node: &str, ready: bool) -> Result<(), String> {
    let line = ["endpointslices", "-n", NAMESPACE, "-l", "kubernetes.io/service-name=spread"];
    let slices = cluster.get(&line).map_err(|error| error.to_string())?;
    let endpoints = slices["items"].as_array().into_iter().flatten().flat_map(|slice| slice["endpoints"].as_array());
    let there: Vec<&Value> = endpoints.flatten().filter(|endpoint| endpoint["nodeName"] == node).collect();
    let right = there.len() == 2 && there.iter().all(|endpoint| endpoint["conditions"]["ready"] == ready);
    if right { Ok(()) } else { Err(format!("{there:?}")) }
}

/// Whether packets to a prefix go to these nodes from everywhere in the fabric: to equal parts from the spine to their
/// racks, and from a rack's router to those of the rack, or back to the spine where there are none.
fn is_spread(cluster: &Cluster, prefix: Prefix, nodes: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let mut racks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for machine in cluster.machines() {
        let rack = machine.node().spec().labels.get("rack").ok_or("a node is in no rack")?;
        let of_rack = racks.entry(format!("tor{rack}")).or_default();
        if nodes.contains(&machine.name().as_str()) {
            of_rack.insert(machine.address(prefix.family())?.to_string());
        }
    }
    let with_pods = racks.iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(router, _)| router.clone()).collect();
    let wanted = racks.iter().map(|(router, nodes)| match nodes.is_empty() {
        true => (router.as_str(), ["fabric".to_owned()].into()),
        false => (router.as_str(), nodes.clone()),
    });
    for (router, wanted) in wanted.chain([("spine", with_pods)]) {
        let routes = routes(cluster.node(router), prefix.family(), &["show", &prefix.to_string()])?;
        let hops = routes.iter().flat_map(|route| match route["nexthops"].as_array() {
            Some(hops) => hops.iter().collect(),
            None => vec![route],
        });
        // Within a rack, next hops are told by their addresses, elsewhere by the wire.
        let way = |hop: &Value| Some(hop[if hop["dev"] == "rack" { "gateway" } else { "dev" }].as_str()?.to_owned());
        let found: BTreeSet<String> = hops.filter_map(way).collect();
        if found != wanted {
            return Err(format!("{prefix} from {router}: {found:?}, and not {wanted:?}").into());
        }
    }
    Ok(())
}

fn routes(node: &Node, family: Family, words: &[&str]) -> Result<Vec<Value>, String> {
    let flag = if family == Family::Ipv4 { "-4" } else { "-6" };
    let said = node.exec(&[&["ip", "-json", flag, "route"], words].concat()).map_err(|error| error.to_string())?;
    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
}
