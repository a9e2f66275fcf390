//! A router that leaks very many routes inside a pool's range, none of them good.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tests::mesh::{RATE, apply, mesh, peer, status};
use tests::{CONVERGENCE, Node, Place, Probe, TestResult, can_run_labs, run_in, wait_for, wait_until};
use types::Family;

use crate::second_connections::{framed, receive};

/// The variable with the number of routes, for a longer test.
const VARIABLE: &str = "MANX_LEAK_ROUTES";

/// How many there are without it.
const ROUTES: u32 = 100_000;

/// How much more memory a node may need then, in KiB, whatever the number: 100,000 routes that are kept need 6.5 MiB.
const LIMIT: u64 = 4 * 1_024;

/// The leaking router: the host, in an AS of its own; and node1.
const LEAK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10);
const NODE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x31, 1, 0, 0, 0, 0, 3);

/// AS 64700.
const ASN: [u8; 2] = [0xfc, 0xbc];

/// Prefixes in a message of 4,096 octets.
const PER_UPDATE: usize = 230;

/// A session with node1, by IPv6 alone.
fn establish(host: &Node) -> io::Result<TcpStream> {
    let netns = host.netns()?;
    let mut stream =
        run_in(&netns, || TcpStream::connect_timeout(&SocketAddr::new(NODE.into(), 179), Duration::from_secs(5)))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    // Version 4, 240 s, and the capability of RFC 4760 for IPv6.
    let mut open = vec![4, ASN[0], ASN[1], 0, 240, 192, 0, 2, 10];
    open.extend([8, 2, 6, 1, 4, 0, 2, 0, 1]);
    stream.write_all(&framed(1, &open))?;
    loop {
        match receive(&mut stream)? {
            (1, _) => stream.write_all(&framed(4, &[]))?,
            (4, _) => return Ok(stream),
            (kind, said) => return Err(io::Error::other(format!("a message of type {kind}: {said:?}"))),
        }
    }
}

/// The prefix of this number, as an UPDATE has it: a block that nobody has, or an address in no block.
fn prefix(number: u32) -> [u8; 17] {
    let number = u64::from(number);
    let range = u128::from_be_bytes(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0xff, 0, 0, 0).octets());
    let (length, offset) = if number.is_multiple_of(2) { (122, number << 6) } else { (128, (1 << 40) + number) };
    let mut octets = [0; 17];
    octets[0] = length;
    octets[1..].copy_from_slice(&(range + u128::from(offset)).to_be_bytes());
    octets
}

/// An UPDATE with these prefixes (RFC 4760 section 3).
fn update(numbers: &[u32]) -> Vec<u8> {
    let prefixes: Vec<u8> = numbers.iter().copied().flat_map(prefix).collect();
    // ORIGIN, AS_PATH with two octets for each AS, MP_REACH_NLRI of IPv6 unicast with one next hop.
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, ASN[0], ASN[1], 0x90, 14];
    attributes.extend(u16::try_from(21 + prefixes.len()).unwrap().to_be_bytes());
    attributes.extend([0, 2, 1, 16]);
    attributes.extend(LEAK.octets());
    attributes.push(0);
    attributes.extend(prefixes);
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    framed(2, &body)
}

/// The agent's memory, in KiB: now, and at its peak since [`forget_peak`].
fn memory(node: &Node) -> Result<[u64; 2], String> {
    let process = node.agent().process().ok_or("the agent does not run")?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).map_err(|error| error.to_string())?;
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no memory is told")?;
        line.trim().trim_end_matches(" kB").parse::<u64>().map_err(|error| error.to_string())
    };
    Ok([value("VmRSS:")?, value("VmHWM:")?])
}

/// Has the peak counted from now on (proc(5), clear_refs).
fn forget_peak(node: &Node) -> TestResult {
    let process = node.agent().process().ok_or("the agent does not run")?;
    fs::write(format!("/proc/{}/clear_refs", process.pid), "5")?;
    Ok(())
}

/// Since when each session has been established, in seconds; none where one is not.
fn ages(node: &Node) -> Option<Vec<u64>> {
    let status = status(node).ok()?;
    let peers = status["peers"].as_array()?;
    let age = |peer: &Value| peer["sinceSecs"].as_u64().filter(|_| peer["state"] == "established");
    peers.iter().map(age).collect()
}

#[test]
fn a_router_that_leaks_a_table_inside_the_pools_costs_a_node_little_memory_and_no_session() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let routes = std::env::var(VARIABLE).map_or(Ok(ROUTES), |text| text.parse())?;
    let (lab, one, two) = mesh("leak")?;
    let node = lab.node("node1");
    let document = format!(
        "{{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {{name: leak}}, \
         spec: {{node: node1, peerIP: '{LEAK}', asNumber: 64700}}}}"
    );
    apply(node, &document)?;
    let mut stream = wait_for("the leaking router's session", CONVERGENCE, || establish(lab.node("client")))?;
    wait_until("every session being up", CONVERGENCE, || ages(node).is_some_and(|ages| ages.len() == 7))?;
    let probe = Probe::start(&one, &two, two.address(Family::Ipv4), RATE)?;
    let [before, _] = memory(node)?;
    forget_peak(node)?;
    let ages_before = ages(node).ok_or("a session is down")?;

    for numbers in (0..routes).collect::<Vec<_>>().chunks(PER_UPDATE) {
        stream.write_all(&update(numbers))?;
    }
    let refusals = format!("manx_bgp_peer_refusals_total{{peer=\"{LEAK}\"");
    wait_for("every route being refused and counted", Duration::from_secs(180), || {
        let count = node.agent().metric(&refusals)?;
        if count >= f64::from(routes) { Ok(()) } else { Err(format!("{count} of {routes}")) }
    })?;
    stream.write_all(&framed(4, &[]))?;
    let [after, peak] = memory(node)?;
    let said = format!("{routes} routes: {before} KiB before, {after} after, {peak} at the peak");
    writeln!(io::stderr(), "{said}")?;
    assert!(peak.saturating_sub(before) < LIMIT, "{said}");
    let ages_after = ages(node).ok_or("a session is down")?;
    assert!(ages_after.len() == 7 && ages_after.iter().zip(&ages_before).all(|(after, before)| after >= before));
    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");

    // Some are shown, and those are counted by reason.
    let shown = super::rejected(node);
    let kinds: BTreeSet<_> = shown.values().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["not-a-block", "unclaimed"].into(), "{shown:?}");
    // The session's end takes all of it away.
    drop(stream);
    wait_until("nothing being left of the leak", CONVERGENCE, || {
        super::rejected(node).is_empty()
            && status(node)
                .is_ok_and(|status| peer(&status, &LEAK.to_string()).is_some_and(|peer| peer["state"] != "established"))
    })?;
    lab.down()?;
    Ok(())
}
