//! Connections from the address of a peer whose session is established: somebody else's, those of a peer that has really
//! restarted, and those that take the place of a frozen one.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tests::mesh::{RATE, all_established, apply, mesh, peer, restart_is_over, status};
use tests::{CONVERGENCE, Lab, Node, Place as _, Pod, Probe, TestResult, can_run_labs, run_in, wait_for, wait_until};
use types::Family;

/// The addresses of node1 and node2.
const ONE: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 3);
const TWO: Ipv4Addr = Ipv4Addr::new(172, 31, 2, 3);

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// An OPEN: it is heard.
    Open,
    /// A NOTIFICATION with these numbers.
    Notification(u8, u8),
    /// An end without a word.
    Closed,
}

/// Opens a connection to node1 from a node's namespace, sends an OPEN as that node would, and goes on if that is answered.
fn intrude(netns: &File, router_id: Ipv4Addr) -> io::Result<Answer> {
    run_in(netns, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ONE.into(), 179), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // Version 4, AS 64512, 90 s, and the capabilities of RFC 4760 and RFC 4724 for IPv4.
        let mut body = vec![4, 0xfc, 0, 0, 90];
        body.extend(router_id.octets());
        body.extend([16, 2, 14, 1, 4, 0, 1, 0, 1, 64, 6, 0, 120, 0, 1, 1, 0x80]);
        // A stranger's connection may be closed before this is sent.
        if stream.write_all(&framed(1, &body)).is_err() {
            return Ok(Answer::Closed);
        }
        match receive(&mut stream) {
            Ok((3, told)) => Ok(Answer::Notification(told[0], told[1])),
            Ok((1, _)) => {
                stream.write_all(&framed(4, &[]))?;
                receive(&mut stream)?;
                Ok(Answer::Open)
            }
            Ok((other, _)) => Err(io::Error::other(format!("a message of type {other}"))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => Ok(Answer::Closed),
        }
    })
}

/// The type and the body of the next BGP message.
pub(crate) fn receive(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 19];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[16], head[17]])) - 19];
    stream.read_exact(&mut body)?;
    Ok((head[18], body))
}

/// A BGP message of this type.
pub(crate) fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// Since when node1's session with node2 is as it is, in seconds; nothing where it is not established.
fn established_for(node: &Node) -> Option<u64> {
    let status = status(node).ok()?;
    let peer = peer(&status, &TWO.to_string())?;
    peer["sinceSecs"].as_u64().filter(|_| peer["state"] == "established")
}

/// Waits until the session is older than the other half of a collision could be.
fn settle(node: &Node) -> TestResult {
    wait_until("all sessions being up", CONVERGENCE, || all_established(node) == Some(6))?;
    wait_until("the session being settled", CONVERGENCE, || established_for(node) > Some(6))?;
    Ok(())
}

#[test]
fn who_connects_from_a_peers_address_ends_no_session_and_is_closed_counted_and_told() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("impostor")?;
    let (node, impostor) = (lab.node("node1"), lab.node("node2").namespace().netns()?);
    settle(node)?;
    let before = (Instant::now(), established_for(node).unwrap_or_default());
    let probe = Probe::start(&one, &two, two.address(Family::Ipv4), RATE)?;
    for _ in 0..5 {
        let asked = Instant::now();
        assert_eq!(intrude(&impostor, TWO)?, Answer::Notification(6, 7));
        assert!(asked.elapsed() < Duration::from_millis(900), "a live peer's kernel answers at once");
    }
    let now = established_for(node).ok_or("the session is down")?;
    assert!(now >= before.1, "the session began anew");
    let refused = node.agent().metric("bgp_peer_refused_connections")?;
    assert!(refused >= 5.0, "{refused} refused");
    let log = std::fs::read_to_string(node.agent().log())?;
    let told = log.lines().filter(|line| line.contains("the session is alive")).count();
    assert!((1..=5).contains(&told), "told {told} times");
    // A stranger is not even answered.
    let stranger = lab.node("client").namespace().netns()?;
    let answer = intrude(&stranger, Ipv4Addr::new(192, 0, 2, 10))?;
    assert_eq!(answer, Answer::Closed);
    assert!(node.agent().metric("bgp_connections_refused_total")? >= 1.0);
    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");
    lab.down()?;
    Ok(())
}

#[test]
fn rfc4724_4_2_a_peer_that_has_restarted_unnoticed_is_taken_back_without_a_lost_packet() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let up = mesh("unnoticed")?;
    taken_back(&up)?;
    up.0.down()?;
    Ok(())
}

#[test]
fn rfc2385_4_1_and_rfc4724_4_2_with_a_password_at_both_ends_as_well() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let up = mesh("unnoticedmd5")?;
    for node in up.0.manx_nodes() {
        std::fs::write(node.path("/etc/manx/mesh-password"), "unnoticed-secret")?;
    }
    apply(
        up.0.node("node1"),
        "{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, \
         spec: {nodeMeshPasswordFile: /etc/manx/mesh-password}}",
    )?;
    for node in up.0.manx_nodes() {
        wait_until("the mesh having its password", CONVERGENCE, || {
            let peers = status(node).ok().and_then(|mut status| status["peers"].as_array_mut().map(std::mem::take));
            let of_mesh = peers.into_iter().flatten().filter(|peer| peer["origin"] == "mesh");
            of_mesh.filter(|peer| peer["hasPassword"] == true && peer["state"] == "established").count() == 4
        })?;
    }
    taken_back(&up)?;
    up.0.down()?;
    Ok(())
}

/// Node2's agent dies, its kernel forgets its connections without a word to node1, and it comes back: not a packet is lost.
fn taken_back((lab, one, two): &(Lab, Pod, Pod)) -> TestResult {
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    settle(node)?;
    let probes = [
        Probe::start(one, two, two.address(Family::Ipv4), RATE)?,
        Probe::start(two, one, one.address(Family::Ipv4), RATE)?,
    ];
    // Node2's kernel gives its connections up, and no other node hears of it: the router between them passes no BGP on.
    other.exec(&["sysctl", "-qw", "net.ipv4.tcp_orphan_retries=1"])?;
    let bgp_is_passed = |is_passed: bool| -> TestResult {
        for table in ["iptables", "ip6tables"] {
            for port in ["--sport", "--dport"] {
                let change = if is_passed { "-D" } else { "-I" };
                lab.node("tor").exec(&[table, change, "FORWARD", "-p", "tcp", port, "179", "-j", "DROP"])?;
            }
        }
        Ok(())
    };
    bgp_is_passed(false)?;
    other.agent().kill9()?;
    // At once where the kernel can do that (CONFIG_INET_DIAG_DESTROY), as it gives up those with a key only after long.
    other.shell("ss -K '( sport = :179 or dport = :179 )' || true")?;
    wait_for("node2's kernel forgetting its connections", CONVERGENCE, || {
        let words = ["ss", "-Htno", "state", "connected", "exclude", "time-wait", "( sport = :179 or dport = :179 )"];
        let left = other.exec(&words).map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })?;
    assert!(established_for(node).is_some(), "node1 has not noticed");
    bgp_is_passed(true)?;
    other.agent().start()?;
    other.agent().wait_ready(CONVERGENCE)?;
    restart_is_over(lab, node)?;
    let log = std::fs::read_to_string(node.agent().log())?;
    assert!(!log.contains("the session is alive"), "a restarted peer is refused");
    for probe in probes {
        let report = probe.finish();
        assert_eq!(report.lost, 0, "{report:?}");
    }
    Ok(())
}

#[test]
fn a_frozen_peer_is_given_up_for_a_new_connection_once_it_has_left_out_a_keepalive() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, _, _) = mesh("frozen")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    settle(node)?;
    let netns = other.namespace().netns()?;
    other.agent().freeze()?;
    let frozen = Instant::now();
    assert_eq!(intrude(&netns, TWO)?, Answer::Notification(6, 7), "its kernel answers, and it has just been heard");
    // Its last KEEPALIVE may have come just before; half of the hold time of 90 s is 45 s.
    wait_until("the frozen peer being given up", Duration::from_secs(60), || {
        intrude(&netns, TWO).ok() == Some(Answer::Open)
    })?;
    assert!(frozen.elapsed() > Duration::from_secs(10), "after {:?}", frozen.elapsed());
    wait_until("the frozen peer's session being over", CONVERGENCE, || {
        std::fs::read_to_string(node.agent().log())
            .is_ok_and(|log| log.contains("peer restarted: it opened a new connection"))
    })?;
    other.agent().thaw()?;
    wait_until("the thawed peer being back", CONVERGENCE, || all_established(node) == Some(6))?;
    lab.down()?;
    Ok(())
}
