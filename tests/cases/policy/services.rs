//! Services as kube-proxy makes them: a policy speaks of pods and their ports, whatever address was asked for.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use serde_json::json;
use tests::reach::Question;
use tests::{
    CONVERGENCE, Flow, Lab, Node, Options, Place, Pod, Talker, TestResult, can_run_labs, run_in, topology_file,
    wait_for,
};
use types::Family;
use types::policy::Protocol;

use super::guarded::Guarded;
use super::world::World;

/// The addresses of the service.
const SERVICE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10))];

/// The ports of the service, each with the port of the pod behind it. Policy admits friends to 80 of the pod: a policy
/// that looked at the service's port would judge the first two the other way round.
const PORTS: [(u16, u16); 4] = [(8080, 80), (80, 81), (8082, 82), (8083, 83)];

fn commands(node: &Node) -> [(String, &Node, Family); 2] {
    [("iptables".to_owned(), node, Family::Ipv4), ("ip6tables".to_owned(), node, Family::Ipv6)]
}

fn service(family: Family) -> IpAddr {
    let [ipv4, ipv6] = SERVICE;
    match family {
        Family::Ipv4 => ipv4,
        Family::Ipv6 => ipv6,
    }
}

/// Makes kube-proxy's chains of nat, and the jumps to them, which it puts first (pkg/proxy/iptables, Kubernetes 1.36).
fn kube_proxy_starts(node: &Node) -> TestResult {
    for (command, node, _) in commands(node) {
        node.shell(&format!(
            "for chain in KUBE-SERVICES KUBE-POSTROUTING KUBE-MARK-MASQ; do {command} -t nat -N $chain || exit 1; done && \
             {command} -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000 && \
             {command} -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN && \
             {command} -t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000 && \
             {command} -t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully && \
             {command} -t nat -I PREROUTING 1 -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES && \
             {command} -t nat -I OUTPUT 1 -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES && \
             {command} -t nat -I POSTROUTING 1 -m comment --comment 'kubernetes postrouting rules' -j KUBE-POSTROUTING"
        ))?;
    }
    Ok(())
}

/// Leads the service to a pod. A client from outside the cluster is masqueraded, and so is the pod itself.
fn serve(node: &Node, pod: &Pod) -> TestResult {
    for (command, node, family) in commands(node) {
        let (service, pod) = (service(family), pod.address(family));
        let cluster = if family == Family::Ipv4 { "10.42.0.0/16" } else { "fd00:42::/64" };
        for (port, own) in PORTS {
            let target = SocketAddr::new(pod, own);
            for protocol in ["tcp", "udp"] {
                let to = format!("{command} -t nat -A KUBE-SERVICES -d {service} -p {protocol} --dport {port}");
                node.shell(&format!(
                    "{to} ! -s {cluster} -j KUBE-MARK-MASQ && \
                     {command} -t nat -A KUBE-SERVICES -s {pod} -d {service} -p {protocol} --dport {port} -j KUBE-MARK-MASQ && \
                     {to} -j DNAT --to-destination {target}"
                ))?;
            }
        }
    }
    Ok(())
}

/// Empties nat as `iptables -t nat -F` or `kube-proxy --cleanup` leaves it.
fn kube_proxy_is_cleaned_up(node: &Node) -> TestResult {
    for (command, node, _) in commands(node) {
        node.shell(&format!(
            "{command} -t nat -F && for chain in KUBE-SERVICES KUBE-POSTROUTING KUBE-MARK-MASQ; do \
             {command} -t nat -X $chain || exit 1; done"
        ))?;
    }
    Ok(())
}

/// Waits until nat POSTROUTING ends with our jump, once, behind kube-proxy's.
fn ours_is_behind(node: &Node) -> TestResult {
    for (command, node, _) in commands(node) {
        wait_for(&format!("our jump behind kube-proxy's by {command} on {}", node.name()), CONVERGENCE, || {
            let rules = node.exec(&[&command, "-t", "nat", "-S", "POSTROUTING"]).map_err(|error| error.to_string())?;
            let targets: Vec<_> = rules.lines().filter_map(|rule| rule.rsplit_once("-j ")).map(|rule| rule.1).collect();
            if targets == ["KUBE-POSTROUTING", "manx-nat"] { Ok(()) } else { Err(rules) }
        })?;
    }
    Ok(())
}

/// [`Guarded`], in pools with masquerade, on nodes where kube-proxy was first.
fn up(test: &str) -> Result<Guarded, Box<dyn Error>> {
    let lab = Lab::up(&topology_file("policy.clab.yml"), &Options::unique(test).without_agents())?;
    for node in lab.manx_nodes() {
        kube_proxy_starts(node)?;
        node.agent().start()?;
    }
    for node in lab.manx_nodes() {
        node.agent().wait_ready(CONVERGENCE)?;
    }
    let world = World::of(lab)?;
    world.masquerade()?;
    let guarded = Guarded::of(world)?;
    for node in guarded.world.lab.manx_nodes() {
        serve(node, &guarded.server)?;
    }
    Ok(guarded)
}

/// Waits until friends reach by the service what they may reach of the pod, strangers nothing, and the pod itself
/// everything.
fn is_judged_by_the_pod_s_port(guarded: &Guarded) -> TestResult {
    for family in Family::ALL {
        let asks = |protocol, port| Question::new(protocol, service(family), port);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for friend in &guarded.friends {
                guarded.world.converges(friend, asks(protocol, 8080), true)?;
                guarded.world.converges(friend, asks(protocol, 80), false)?;
            }
            for stranger in &guarded.strangers {
                guarded.world.converges(stranger, asks(protocol, 8080), false)?;
                guarded.world.converges(stranger, asks(protocol, 80), false)?;
            }
            // No policy admits the pod to itself, and none can keep it from itself.
            guarded.world.converges(&guarded.server, asks(protocol, 8080), true)?;
            guarded.world.converges(&guarded.server, asks(protocol, 80), true)?;
        }
    }
    Ok(())
}

#[test]
fn by_a_service_a_pod_is_reached_as_policy_has_it_for_the_pod_s_own_port_whatever_kube_proxy_does_to_nat() -> TestResult
{
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = up("service")?;
    let nodes = |guarded: &Guarded, each: fn(&Node) -> TestResult| guarded.world.lab.manx_nodes().try_for_each(each);
    nodes(&guarded, ours_is_behind)?;
    is_judged_by_the_pod_s_port(&guarded)?;
    // The table was flushed, our rules with it, and made again.
    nodes(&guarded, kube_proxy_is_cleaned_up)?;
    nodes(&guarded, kube_proxy_starts)?;
    nodes(&guarded, ours_is_behind)?;
    for node in guarded.world.lab.manx_nodes() {
        serve(node, &guarded.server)?;
    }
    is_judged_by_the_pod_s_port(&guarded)?;
    // An agent that starts after all of it behaves alike.
    for node in guarded.world.lab.manx_nodes() {
        node.agent().kill9()?;
        node.agent().start()?;
        node.agent().wait_ready(CONVERGENCE)?;
    }
    nodes(&guarded, ours_is_behind)?;
    is_judged_by_the_pod_s_port(&guarded)?;
    // Without the policy, both ports of the service answer everybody: it was policy that refused.
    guarded.world.delete_policy("x", "friends")?;
    guarded.world.delete_policy("x", "deny")?;
    for (stranger, port) in guarded.strangers.iter().flat_map(|stranger| [(stranger, 8080), (stranger, 80)]) {
        for family in Family::ALL {
            guarded.world.converges(stranger, Question::new(Protocol::Tcp, service(family), port), true)?;
        }
    }
    guarded.world.lab.down()?;
    Ok(())
}

/// Flows from a pod by a port of the service, in both families.
fn flows(client: &Pod, server: &Pod, (port, own): (u16, u16)) -> Result<Vec<(String, Flow)>, Box<dyn Error>> {
    let listener = run_in(&server.netns()?, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, own)))?;
    let mut flows = Vec::new();
    for family in Family::ALL {
        let target = SocketAddr::new(service(family), port);
        let name = |kind: &str| format!("{kind} from {} by the {family} service", client.name());
        for talker in [Talker::Client, Talker::Server, Talker::Nobody] {
            let flow = Flow::tcp_to(client, target, &listener, talker)?;
            flows.push((name(&format!("TCP, {talker:?} talking,")), flow));
        }
        let socket = run_in(&server.netns()?, || UdpSocket::bind((server.address(family), own)))?;
        flows.push((name("UDP"), Flow::udp_to(client, target, socket)?));
    }
    Ok(flows)
}

/// Waits until something arrives on every flow that sends.
fn all_live(flows: &[(String, Flow)]) -> TestResult {
    flows.iter().filter(|(name, _)| !name.contains("Nobody")).try_for_each(|(name, flow)| flow.lives(name))
}

#[test]
fn a_tightened_policy_cuts_the_connections_that_came_by_a_service_and_no_others() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = up("servicecut")?;
    let admits = |key: &str, value: &str| {
        let from = json!([{ "podSelector": { "matchLabels": { key: value } } }]);
        let ports =
            json!([{ "protocol": "UDP", "port": 82, "endPort": 83 }, { "protocol": "TCP", "port": 82, "endPort": 83 }]);
        json!({ "podSelector": {}, "ingress": [{ "from": from, "ports": ports }] })
    };
    for name in ["friend-node1", "friend-node2"] {
        guarded.world.label(&format!("x.{name}"), "name", Some(name))?;
    }
    let (server, [near, far]) = (guarded.server.clone(), guarded.friends.clone());
    for (doomed, spared, left) in [(&near, &far, "friend-node2"), (&far, &near, "friend-node1")] {
        guarded.world.policy("x", "more", admits("friend", "yes"))?;
        // The first of the flows waits for the policy.
        let open = |client, ports| wait_for("flows by the service", CONVERGENCE, || flows(client, &server, ports));
        let (cut, kept) = (open(doomed, (8082, 82))?, open(spared, (8083, 83))?);
        all_live(&cut)?;
        all_live(&kept)?;
        guarded.world.policy("x", "more", admits("name", left))?;
        for (name, flow) in &cut {
            flow.is_dead(name)?;
        }
        all_live(&kept)?;
        drop((cut, kept));
        guarded.world.delete_policy("x", "more")?;
    }
    guarded.world.lab.down()?;
    Ok(())
}
