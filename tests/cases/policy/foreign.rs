//! Other programs on the node, by mistake or with intent, open nothing and close nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use serde_json::json;
use tests::reach::Question;
use tests::{CONVERGENCE, Flood, Place, PodSpec, Sink, TestResult, can_run_labs, run_in, wait_until};
use types::Family;
use types::policy::Protocol;

use super::guarded::Guarded;
use super::world::{OUTSIDE, World};

#[test]
fn a_pod_that_borrows_the_address_of_an_admitted_pod_gets_nothing_through() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::up("spoof")?;
    let sink = Sink::start(&guarded.server, 80_u16 + 9000)?;
    guarded.world.apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "sink", "namespace": "x" },
        "spec": { "podSelector": {}, "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "friend": "yes" } } }] }] },
    }))?;
    let targets: Vec<SocketAddr> = guarded.server.addresses().iter().map(|own| (*own, sink.port()).into()).collect();
    // Strangers beside the friends, and on the other node, use the friends' addresses.
    for friend in &guarded.friends {
        let honest = Flood::start(friend, &targets, 100)?;
        wait_until("the real friend's packets arriving", CONVERGENCE, || {
            friend.addresses().iter().all(|own| sink.by_source().contains_key(own))
        })?;
        drop(honest);
    }
    let before = sink.by_source();
    for stranger in &guarded.strangers {
        for friend in &guarded.friends {
            for (address, target) in friend.addresses().iter().zip(&targets) {
                stranger.exec(&["ip", "address", "add", &address.to_string(), "dev", "eth0", "nodad"])?;
                let socket = run_in(&stranger.netns()?, || UdpSocket::bind(SocketAddr::new(*address, 0)))?;
                for _ in 0..200 {
                    socket.send_to(b"it is me", target)?;
                }
            }
            for address in friend.addresses() {
                let length = if address.is_ipv4() { 32 } else { 128 };
                stranger.exec(&["ip", "address", "del", &format!("{address}/{length}"), "dev", "eth0"])?;
            }
        }
    }
    // Once a packet that was sent later has arrived, the earlier ones would have.
    let later = Flood::start(&guarded.friends[0], &targets, 100)?;
    wait_until("a later packet", CONVERGENCE, || sink.count() > before.values().sum::<u64>())?;
    drop(later);
    let after = sink.by_source();
    let elsewhere = guarded.friends[1].addresses();
    assert!(elsewhere.iter().all(|own| after.get(own) == before.get(own)), "{before:?} became {after:?}");
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn an_interface_that_looks_like_a_pod_s_and_is_unknown_gets_nothing_through() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::up("rogue")?;
    let node = guarded.node();
    let rogue = Ipv4Addr::new(10, 42, 250, 5);
    // Another program wires this namespace just as a pod is wired.
    node.shell(&format!(
        "ip netns add rogue && ip link add mxrogue00001 type veth peer name eth0 netns rogue && \
         sysctl -qw net.ipv4.conf.mxrogue00001.proxy_arp=1 net.ipv4.neigh.mxrogue00001.proxy_delay=0 && \
         ip link set mxrogue00001 up && ip -n rogue link set lo up && ip -n rogue link set eth0 up && \
         ip -n rogue address add {rogue}/32 dev eth0 && ip -n rogue route add 169.254.1.1 dev eth0 scope link && \
         ip -n rogue route add default via 169.254.1.1 && ip route add {rogue}/32 dev mxrogue00001"
    ))?;
    let stranger = &guarded.strangers[0];
    let ping = |address: IpAddr| {
        let address = address.to_string();
        let words = ["nsenter", "--net=/run/netns/rogue", "ping", "-n", "-q", "-c", "1", "-W", "1", &address];
        node.try_exec(&words).is_ok_and(|output| output.status.success())
    };
    for address in [stranger.address(Family::Ipv4), guarded.strangers[1].address(Family::Ipv4), OUTSIDE[0]] {
        assert!(!ping(address), "an unknown interface reached {address}");
    }
    // Under another name the interface is not ours to judge, and the same wiring works.
    node.shell(
        "ip link set mxrogue00001 down && ip link set mxrogue00001 name rogue0 && ip link set rogue0 up && \
                sysctl -qw net.ipv4.conf.rogue0.proxy_arp=1 net.ipv4.neigh.rogue0.proxy_delay=0 && \
                ip route replace 10.42.250.5/32 dev rogue0",
    )?;
    wait_until("the same wiring under another name", CONVERGENCE, || ping(stranger.address(Family::Ipv4)))?;
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn rules_that_kube_proxy_puts_first_when_it_starts_change_nothing() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::up("kubeproxy")?;
    let siege = guarded.besiege()?;
    for node in guarded.world.lab.manx_nodes() {
        for command in ["iptables", "ip6tables"] {
            // The rules are inserted as kube-proxy's iptables mode does (pkg/proxy/iptables: filter, KUBE-FORWARD), and
            // more boldly still.
            node.shell(&format!(
                "{command} -N KUBE-FORWARD && \
                 {command} -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP && \
                 {command} -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT && \
                 {command} -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT && \
                 {command} -I FORWARD 1 -j KUBE-FORWARD && {command} -I FORWARD 1 -j ACCEPT"
            ))?;
        }
    }
    guarded.stands()?;
    siege.failed("accepted by filter");
    // An agent that starts after them copes as well.
    let siege = guarded.besiege()?;
    guarded.node().agent().kill9()?;
    guarded.node().agent().start()?;
    guarded.node().agent().wait_ready(CONVERGENCE)?;
    guarded.stands()?;
    siege.failed("restarted");
    let saved = guarded.node().exec(&["iptables-save", "-t", "filter"])?;
    assert!(saved.contains("-A FORWARD -j KUBE-FORWARD"), "what is not ours is not touched: {saved}");
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn where_the_host_drops_what_is_forwarded_pods_have_network_and_nothing_more() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::up("forwarddrop")?;
    let siege = guarded.besiege()?;
    for node in guarded.world.lab.manx_nodes() {
        node.agent().kill9()?;
        // The rules are those that Docker makes.
        node.shell("iptables -P FORWARD DROP && ip6tables -P FORWARD DROP")?;
        node.agent().start()?;
    }
    for node in guarded.world.lab.manx_nodes() {
        node.agent().wait_ready(CONVERGENCE)?;
    }
    guarded.stands()?;
    siege.failed("FORWARD drops");
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn pods_of_a_pool_with_nat_outgoing_are_seen_outside_by_their_node_s_address_and_inside_by_their_own() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("masquerade")?;
    world.masquerade()?;
    let (pod, other) = (world.plug("node1", PodSpec::new("a"))?, world.plug("node2", PodSpec::new("b"))?);
    let (outside, inside) = (Sink::start(world.node("client"), 9000)?, Sink::start(&other, 9000)?);
    let at = |addresses: &[IpAddr]| addresses.iter().map(|own| (*own, 9000).into()).collect::<Vec<SocketAddr>>();
    wait_until("packets from the node's address", CONVERGENCE, || {
        // A flow that began before the rule was there keeps its translation, so a new one begins.
        let Ok(flood) = Flood::start(&pod, &at(&OUTSIDE), 100) else { return false };
        let before = outside.by_source();
        let found = wait_until("packets", CONVERGENCE, || outside.count() > before.values().sum::<u64>() + 10);
        drop(flood);
        let after = outside.by_source();
        found.is_ok() && pod.addresses().iter().all(|own| after.get(own) == before.get(own))
    })?;
    let flood = Flood::start(&pod, &at(other.addresses()), 100)?;
    wait_until("packets inside", CONVERGENCE, || inside.by_source().len() == 2)?;
    drop(flood);
    let own: Vec<IpAddr> = pod.addresses().to_vec();
    assert!(inside.by_source().keys().all(|source| own.contains(source)), "{:?}", inside.by_source());
    // Replies come back, and from outside a pod is reached by its own address.
    for address in OUTSIDE {
        world.converges(&pod, Question::new(Protocol::Tcp, address, 80), true)?;
    }
    for address in pod.addresses() {
        world.converges(world.node("client"), Question::new(Protocol::Tcp, *address, 80), true)?;
    }
    world.lab.down()?;
    Ok(())
}
