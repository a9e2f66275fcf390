//! The ports of BGP and BFD, at nodes and at configured peers.

use std::error::Error;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tests::mesh::{all_established, apply, host_address, mesh, peer, reaches, status};
use tests::reach::Listener;
use tests::{CONVERGENCE, Lab, Place, Pod, Sink, TestResult, can_run_labs, wait_until};
use types::Family;

use super::{connect, gateway, node_address, router_address, send};

/// The port of BGP (RFC 4271 section 8.2.1).
const BGP: u16 = 179;

/// The ports of BFD: control (RFC 5881 section 4), echo (there too), multihop (RFC 5883 section 5).
const BFD: [u16; 3] = [3784, 3785, 4784];

/// A port that nobody closes.
const ORDINARY: u16 = 9000;

/// An OPEN and a KEEPALIVE as node1 of the mesh sends them to another node (RFC 4271 sections 4.2 and 4.4): AS 64512, with
/// IPv4 and IPv6 unicast and four octets for AS numbers.
fn open_as_node1() -> Vec<u8> {
    let capabilities = [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4, 0, 0, 0xfc, 0x00];
    let length = u8::try_from(capabilities.len()).unwrap_or_default();
    let mut body = vec![4, 0xfc, 0x00, 0, 90, 172, 31, 1, 3, length + 2, 2, length];
    body.extend(capabilities);
    let mut message = vec![0xff; 16];
    message.extend([0, u8::try_from(19 + body.len()).unwrap_or_default(), 1]);
    message.extend(body);
    message.extend([0xff; 16]);
    message.extend([0, 19, 4]);
    message
}

/// Makes the pools of the mesh masquerade, and waits until a pod of node1 leaves as node1.
fn masquerade(lab: &Lab, pod: &Pod) -> TestResult {
    for (family, cidr) in [("ipv4", "10.42.0.0/16"), ("ipv6", "fd00:42::/64")] {
        let pool = format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: default-{family}-ippool}}, \
             spec: {{cidr: '{cidr}', natOutgoing: true}}}}"
        );
        apply(lab.node("node1"), &pool)?;
    }
    let sink = Sink::start(lab.node("client"), ORDINARY)?;
    for family in Family::ALL {
        let as_node = node_address(1, family);
        wait_until("the masquerade", CONVERGENCE, || {
            let _ = send(pod, 0, (host_address(family), ORDINARY).into());
            sink.by_source().contains_key(&as_node)
        })?;
    }
    Ok(())
}

/// For how long a node's session with another has been up.
fn since(lab: &Lab, node: &str, with: std::net::IpAddr) -> Result<u64, Box<dyn Error>> {
    let status = status(lab.node(node))?;
    let session = peer(&status, &with.to_string()).cloned().unwrap_or(Value::Null);
    if session["state"] != "established" {
        return Err(format!("{node}'s session with {with}: {session}").into());
    }
    Ok(session["sinceSecs"].as_u64().unwrap_or_default())
}

#[test]
fn a_masqueraded_pod_takes_no_session_in_its_nodes_name() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("stolen")?;
    masquerade(&lab, &one)?;
    for node in lab.manx_nodes() {
        wait_until("every session being up", CONVERGENCE, || all_established(node) == Some(6))?;
    }
    for family in Family::ALL {
        // A session of less than five seconds takes another connection for a late dial.
        wait_until("the session being settled", CONVERGENCE, || {
            since(&lab, "node2", node_address(1, family)).is_ok_and(|seconds| seconds > 5)
        })?;
    }
    for family in Family::ALL {
        let to = SocketAddr::new(node_address(2, family), BGP);
        let before = since(&lab, "node2", node_address(1, family))?;
        if let Ok(mut stream) = connect(&one, 0, to) {
            stream.write_all(&open_as_node1())?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut answer = [0; 64];
            let length = stream.read(&mut answer).unwrap_or_default();
            let answer = answer.get(..length).unwrap_or_default();
            let session = since(&lab, "node2", node_address(1, family));
            return Err(format!("the pod speaks BGP with {to}: {answer:02x?}; the session: {session:?}").into());
        }
        assert!(since(&lab, "node2", node_address(1, family))? >= before, "the session was restarted");
    }
    // An address that no node registers, such as one that moves between nodes: the speaker turns away who comes from a node
    // there.
    lab.node("node2").shell("ip address add 172.31.200.2/32 dev lo; ip address add fd00:31:200::2/128 dev lo")?;
    lab.node("tor").shell("ip route add 172.31.200.2 via 172.31.2.3; ip route add fd00:31:200::2 via fd00:31:2::3")?;
    for family in Family::ALL {
        let to = match family {
            Family::Ipv4 => "172.31.200.2:179",
            Family::Ipv6 => "[fd00:31:200::2]:179",
        };
        let before = since(&lab, "node2", node_address(1, family))?;
        let mut stream = connect(&one, 0, to.parse()?)?;
        // It may be turned away before it has said anything.
        let _ = stream.write_all(&open_as_node1());
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // NOTIFICATION, Cease, Connection Rejected (RFC 4486 section 4).
        assert_eq!(answer.get(18..21), Some(&[3, 6, 5][..]), "{to}: {answer:02x?}");
        assert!(since(&lab, "node2", node_address(1, family))? >= before, "{to}: the session was restarted");
    }
    reaches(&one, &two)?;
    lab.down()?;
    Ok(())
}

#[test]
fn ports_of_bgp_and_bfd_are_closed_to_pods_at_nodes_and_at_configured_peers() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("closed")?;
    let places = ["node1", "node2", "tor"];
    let mut sinks = Vec::new();
    let mut listeners = Vec::new();
    for name in places {
        for port in BFD.into_iter().chain([ORDINARY]) {
            sinks.push((name, port, Sink::start(lab.node(name), port)?));
        }
        listeners.push(Listener::start(lab.node(name), &[], &[80])?);
    }
    let mut open = Vec::new();
    for family in Family::ALL {
        let own_other = lab.node("node1").management_address(family);
        let named = [
            ("its node", node_address(1, family)),
            ("another address of its node", own_other),
            ("another node", node_address(2, family)),
            ("its node's router", router_address(1, family)),
            ("another node's router", router_address(2, family)),
        ];
        let mut targets: Vec<_> = named.map(|(name, address)| (name, SocketAddr::new(address, 0))).into();
        targets.push(("its gateway", gateway(&one, family, 0)?));
        let at = |mut to: SocketAddr, port| {
            to.set_port(port);
            to
        };
        for (name, to) in &targets {
            if connect(&one, 0, at(*to, BGP)).is_ok() {
                open.push(format!("{name}, {family}: connects to port {BGP}"));
            }
            // What looks like an answer of a speaker, or of BFD.
            if *name != "another address of its node" && connect(&one, BGP, at(*to, 80)).is_ok() {
                open.push(format!("{name}, {family}: connects from port {BGP}"));
            }
            for port in BFD {
                send(&one, 0, at(*to, port))?;
            }
        }
        // Behind the others on the same way: when these have come, the others would have too.
        for (name, to) in targets.iter().filter(|(name, _)| *name != "its gateway") {
            assert!(connect(&one, 0, at(*to, 80)).is_ok(), "{name}, {family}: an ordinary port is not reached");
            send(&one, 0, at(*to, ORDINARY))?;
        }
        for name in places {
            let arrived = |sink: &&(&str, u16, Sink)| sink.0 == name && sink.1 == ORDINARY;
            let sink = &sinks.iter().find(arrived).ok_or("no sink")?.2;
            wait_until("an ordinary datagram", CONVERGENCE, || sink.by_source().contains_key(&one.address(family)))?;
        }
    }
    for (name, port, sink) in &sinks {
        if *port != ORDINARY && sink.count() > 0 {
            open.push(format!("{name}: {} datagrams to port {port}: {:?}", sink.count(), sink.by_source()));
        }
    }
    assert!(open.is_empty(), "open to a pod:\n{}", open.join("\n"));
    // Pods serve what they like among themselves.
    let listener = Listener::start(&two, &[], &[BGP])?;
    for family in Family::ALL {
        wait_until("a pod's own port", CONVERGENCE, || connect(&one, 0, (two.address(family), BGP).into()).is_ok())?;
    }
    drop(listener);
    for node in lab.manx_nodes() {
        wait_until("every session being up", CONVERGENCE, || all_established(node) == Some(6))?;
    }
    lab.down()?;
    Ok(())
}
