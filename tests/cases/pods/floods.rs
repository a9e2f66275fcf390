//! A pod that floods its node's speaker and its gateway.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use tests::mesh::{all_established, mesh, status};
use tests::raw::Wire;
use tests::raw::frame::{self, Head, protocol};
use tests::{CONVERGENCE, Lab, Place, Pod, TestResult, can_run_labs, run_in, wait_until};
use types::Family;
use types::cni::{GATEWAY_IPV4, HOST_MAC};

use super::node_address;

/// How long the flood lasts, and how many packets made by hand it has in a second: what other tests beside it can bear.
const SHORT: (Duration, u64) = (Duration::from_secs(20), 20_000);

/// How long it lasts where it may take a machine for itself, in seconds.
const LONG_VARIABLE: &str = "MANX_FLOOD_SECONDS";

/// How many packets it has in a second then.
const LONG_RATE: u64 = 100_000;

/// Loops that open connections.
const LOOPS: usize = 8;

/// How late a route may be.
const LATE: Duration = Duration::from_secs(1);

/// Where the pod's connections go: BGP of its node and of another, and the gateway.
fn targets() -> [SocketAddr; 4] {
    let at = |address: IpAddr| SocketAddr::new(address, 179);
    [
        at(node_address(1, Family::Ipv4)),
        at(node_address(1, Family::Ipv6)),
        at(node_address(2, Family::Ipv4)),
        at(GATEWAY_IPV4.into()),
    ]
}

/// Opens connections and gives them up at once, for as long as the flood lasts.
fn connections(pod: &Pod, stop: &AtomicBool) -> Result<u64, String> {
    let netns = pod.netns().map_err(|error| error.to_string())?;
    let tried = run_in(&netns, || {
        let mut tried = 0;
        for target in targets().iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let stream = socket(family, SockType::Stream, flags, None)?;
            let _ = connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &SockaddrStorage::from(*target));
            tried += 1;
            // So many that they are a flood, and not so many that the machine has no time for anything else.
            thread::sleep(Duration::from_millis(1));
        }
        Ok(tried)
    });
    tried.map_err(|error| error.to_string())
}

/// Sends SYNs and datagrams to the same, as many as there should be.
fn packets(wire: &Wire, own: [IpAddr; 2], rate: u64, stop: &AtomicBool) -> Result<u64, String> {
    let frames: Vec<_> = targets()
        .iter()
        .flat_map(|target| {
            let source = own[usize::from(target.is_ipv6())];
            let ends = [source, target.ip()];
            let syn = Head::new(source, target.ip(), protocol::TCP).packet(&frame::tcp(ends, [40_000, 179], 2, &[]));
            let control = Head::new(source, target.ip(), protocol::UDP);
            let control = control.packet(&frame::udp(ends, [49_152, 3784], &[0x20; 24]));
            [syn, control].map(|packet| frame::ethernet(HOST_MAC, wire.mac, frame::ethertype(source), &packet))
        })
        .collect();
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        for frame in frames.iter().cycle().take(frames.len() * 12) {
            // A full queue is as good as a sent packet: the next one comes soon.
            let _ = wire.send(frame);
            sent += 1;
        }
        let due = Duration::from_nanos(sent.saturating_mul(1_000_000_000 / rate));
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(sent)
}

/// Takes a network from the router and gives it back, each time waiting until a node's kernel follows: how long that took
/// beyond the router's own time, at most.
fn route_changes(lab: &Lab, until: Instant) -> Result<(usize, Duration), Box<dyn Error>> {
    let (router, node) = (lab.node("tor").frr(), lab.node("node1"));
    let (mut changes, mut longest) = (0, Duration::ZERO);
    for word in ["no network", "network"].into_iter().cycle() {
        if Instant::now() >= until && changes % 2 == 0 {
            break;
        }
        let line = format!("{word} 192.0.2.0/24");
        router.configure(&["router bgp 64601", "address-family ipv4 unicast", &line])?;
        let told = Instant::now();
        let wanted = word == "network";
        wait_until("the node's kernel following the router", CONVERGENCE, || {
            node.exec(&["ip", "route", "show", "192.0.2.0/24", "proto", "78"])
                .is_ok_and(|said| said.is_empty() != wanted)
        })?;
        longest = longest.max(told.elapsed());
        changes += 1;
        thread::sleep(Duration::from_millis(200));
    }
    Ok((changes, longest))
}

/// The shortest time for which a session of a node has been up, if all of them are.
fn shortest(lab: &Lab, node: &str) -> Result<u64, Box<dyn Error>> {
    let status = status(lab.node(node))?;
    let peers = status["peers"].as_array().ok_or("no peers")?;
    let up = |peer: &serde_json::Value| peer["sinceSecs"].as_u64().filter(|_| peer["state"] == "established");
    let since: Option<Vec<_>> = peers.iter().map(up).collect();
    Ok(since.and_then(|since| since.into_iter().min()).ok_or("a session is down")?)
}

#[test]
fn pods_that_flood_speakers_and_the_gateway_end_no_session_and_delay_no_route() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let seconds = std::env::var(LONG_VARIABLE).ok().and_then(|text| text.parse().ok());
    let (lasts, rate) = seconds.map_or(SHORT, |seconds| (Duration::from_secs(seconds), LONG_RATE));
    let (lab, one, _two) = mesh("floods")?;
    for node in lab.manx_nodes() {
        wait_until("every session being up", CONVERGENCE, || all_established(node) == Some(6))?;
    }
    let wire = Wire::open(&one, "eth0")?;
    let own = Family::ALL.map(|family| one.address(family));
    let (quiet_changes, quiet) = route_changes(&lab, Instant::now() + Duration::from_secs(2))?;
    assert!(quiet_changes > 0);
    let before: Vec<_> = ["node1", "node2"].iter().map(|node| shortest(&lab, node)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let (stop, sent, tried) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let result = thread::scope(|scope| -> Result<_, String> {
        let loops: Vec<_> = (0..LOOPS).map(|_| scope.spawn(|| connections(&one, &stop))).collect();
        let flood = scope.spawn(|| packets(&wire, own, rate, &stop));
        let changes = route_changes(&lab, begun + lasts).map_err(|error| error.to_string());
        stop.store(true, Ordering::Relaxed);
        for thread in loops {
            tried.fetch_add(thread.join().map_err(|_| "a thread panicked")??, Ordering::Relaxed);
        }
        sent.store(flood.join().map_err(|_| "a thread panicked")??, Ordering::Relaxed);
        changes
    });
    let (sent, tried, took) = (sent.into_inner(), tried.into_inner(), begun.elapsed());
    let (changes, longest) = result?;
    let told = format!(
        "{tried} connections and {sent} packets in {took:.1?}; {changes} route changes, the slowest after {longest:.0?} \
         ({quiet:.0?} without a flood)"
    );
    eprintln!("{told}");
    assert!(tried > 0 && sent > 0 && changes > 0, "{told}");
    for (node, before) in ["node1", "node2"].into_iter().zip(before) {
        let now = shortest(&lab, node).map_err(|error| format!("{node}: {error}; {told}"))?;
        assert!(now >= before + lasts.as_secs() - 1, "a session of {node} was restarted; {told}");
    }
    assert!(longest < quiet + LATE, "{told}");
    lab.down()?;
    Ok(())
}
