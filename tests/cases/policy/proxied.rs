//! The real kube-proxy, started after the agents, changes nothing of what policy says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::json;
use tests::reach::Question;
use tests::{CONVERGENCE, Flood, KubeProxy, Pod, PodSpec, ProxyMode, Sink, TestResult, wait_until};
use types::Family;
use types::policy::Protocol;

use super::watched::{ALLOWED, Cast, WatchedNodes};
use super::world::udp;

/// A port that no policy admits to.
const FORBIDDEN: u16 = 9000;

/// The address of the service.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 50));

/// A Service of the namespace `x` that leads 8080 to port 80 of the pod, and 80 to its port 81.
fn serve(cluster: &mut WatchedNodes, pod: &Pod) -> TestResult {
    let ports = [("open", 8080, 80), ("closed", 80, 81)];
    let of_service =
        ports.map(|(name, port, own)| json!({ "name": name, "protocol": "UDP", "port": port, "targetPort": own }));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "clusterIP": SERVICE, "ports": of_service },
    });
    cluster.call("POST", "/api/v1/namespaces/x/services", &service)?;
    let of_slice = ports.map(|(name, _, own)| json!({ "name": name, "protocol": "UDP", "port": own }));
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "web", "labels": { "kubernetes.io/service-name": "web" } },
        "endpoints": [{ "addresses": [pod.address(Family::Ipv4)], "nodeName": "node1", "conditions": { "ready": true } }],
        "ports": of_slice,
    });
    cluster.call("POST", "/apis/discovery.k8s.io/v1/namespaces/x/endpointslices", &slice)?;
    Ok(())
}

#[test]
fn the_real_kube_proxy_started_after_the_agents_adds_services_and_changes_nothing_of_policy() -> TestResult {
    let Some((mut cluster, cast)) = WatchedNodes::with_pods("proxied")? else { return Ok(()) };
    let near = cluster.plug("node1", &PodSpec::in_namespace("x", "near").label("friend", "yes"))?;
    let Cast { server, friend, stranger } = &cast;
    serve(&mut cluster, server)?;
    let closed = Sink::start(server, FORBIDDEN)?;
    let welcome = Sink::start(server, ALLOWED)?;
    let of_server = |port| server.addresses().iter().map(|own| SocketAddr::new(*own, port)).collect::<Vec<_>>();
    let forbidden = Flood::start(stranger, &of_server(FORBIDDEN), 200)?;
    let allowed = Flood::start(friend, &of_server(ALLOWED), 200)?;

    // The two nodes run kube-proxy in different modes: friends and the stranger go by nftables, the pod on node1 by
    // iptables.
    let proxies = [("node1", ProxyMode::Iptables), ("node2", ProxyMode::Nftables)];
    for (node, mode) in proxies {
        KubeProxy::start(cluster.world.node(node), Path::new("/etc/manx/kubeconfig"), mode)?;
    }
    let judged_by_the_pod_s_port = |cluster: &WatchedNodes| -> TestResult {
        let asks = |port| Question::new(Protocol::Udp, SERVICE, port);
        for friend in [friend, &near] {
            cluster.world.converges(friend, asks(8080), true)?;
            cluster.world.converges(friend, asks(80), false)?;
        }
        cluster.world.converges(stranger, asks(8080), false)?;
        cluster.world.converges(server, asks(80), true)?;
        cluster.only_friends_pass(&cast)
    };
    judged_by_the_pod_s_port(&cluster)?;
    for node in cluster.world.lab.manx_nodes() {
        node.agent().kill9()?;
        node.agent().start_with(&[("MANX_KUBERNETES", "/etc/manx/kubeconfig")])?;
        node.agent().wait_ready(CONVERGENCE)?;
    }
    judged_by_the_pod_s_port(&cluster)?;
    let before = welcome.count();
    wait_until("the friend's packets going on", CONVERGENCE, || welcome.count() > before + 200)?;
    assert!(forbidden.finish() > 500 && allowed.finish() > 500);
    assert_eq!(closed.by_source(), [].into(), "forbidden packets passed beside kube-proxy");
    cluster.world.converges(friend, udp(server, Family::Ipv6, 80), true)?;
    cluster.world.lab.down()?;
    Ok(())
}
