//! Peers of our own AS that speak for other nodes: a node, a node behind a reflector, and the reflector itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use nix::sys::signal::Signal;
use tests::mesh::{RATE, mesh, own_blocks, reaches, status};
use tests::{CONVERGENCE, Lab, Node, Options, Place, Pod, Probe, TestResult, can_run_labs, topology_file, wait_for};
use types::Family;

use super::{configure, good_paths, half_of, has_route, host, last_of, originate_as, refuses};

/// Whether there is BIRD, which speaks in a node's or a pod's place.
pub(super) fn can_speak() -> bool {
    let is_there = ["/usr/sbin/bird", "/sbin/bird"].iter().any(|program| fs::exists(program).unwrap_or_default());
    if !is_there {
        tests::say_skipped(&"there is no bird (install bird2)");
    }
    is_there
}

/// What is said in a node's place.
struct Speech<'a> {
    /// The node's addresses, IPv4 and IPv6.
    own: [&'a str; 2],
    /// Who is told, by either family.
    peers: &'a [[&'a str; 2]],
    /// The prefixes.
    prefixes: Vec<String>,
    /// The next hops; none: the node's addresses.
    next_hops: Option<[&'a str; 2]>,
}

/// Has BIRD say this in a node's place, with a preference above that of any other route.
fn speak(node: &Node, speech: &Speech<'_>) -> TestResult {
    let mut text = format!("router id {};\nprotocol device {{}}\n", speech.own[0]);
    for (index, channel) in ["ipv4", "ipv6"].into_iter().enumerate() {
        writeln!(text, "protocol static {{ {channel};")?;
        for prefix in speech.prefixes.iter().filter(|prefix| prefix.contains(':') == (index == 1)) {
            writeln!(text, "  route {prefix} blackhole;")?;
        }
        text.push_str("}\n");
        let hop = speech.next_hops.map(|hops| format!("bgp_next_hop = {};", hops[index])).unwrap_or_default();
        for (number, peer) in speech.peers.iter().enumerate() {
            writeln!(
                text,
                "protocol bgp {channel}to{number} {{ local {} as 64512; neighbor {} as 64512; connect retry time 2; \
                 connect delay time 1; error wait time 1, 2; \
                 {channel} {{ import none; export filter {{ bgp_local_pref = 200; {hop} accept; }}; }}; }}",
                speech.own[index], peer[index]
            )?;
        }
    }
    node.end_service("bird", Signal::SIGKILL)?;
    fs::write(node.path("/etc/bird-lab.conf"), text)?;
    node.exec(&["mkdir", "-p", "/run/bird"])?;
    let mut command = node.command("bird");
    command.args(["-f", "-c", "/etc/bird-lab.conf", "-s", "/run/bird/lab.ctl"]);
    node.start_service("bird", command)?;
    Ok(())
}

/// The first blocks of a node, IPv4 and IPv6.
fn blocks(node: &Node) -> Result<[String; 2], String> {
    let first =
        |family| own_blocks(node, family).pop_first().ok_or_else(|| format!("{} has no {family} block", node.name()));
    Ok([first(Family::Ipv4)?, first(Family::Ipv6)?])
}

fn traffic(from: &Pod, to: &Pod) -> Result<Vec<Probe>, Box<dyn std::error::Error>> {
    reaches(from, to)?;
    let start = |family| Probe::start(from, to, to.address(family), RATE);
    Ok(Family::ALL.into_iter().map(start).collect::<Result<_, _>>()?)
}

fn nothing_was_lost(probes: Vec<Probe>) {
    for probe in probes {
        let report = probe.finish();
        assert!(report.sent > 0 && report.lost == 0, "{report:?}");
    }
}

#[test]
fn a_node_that_speaks_for_other_nodes_is_refused_and_its_own_block_is_good_with_itself_as_next_hop() -> TestResult {
    if !can_run_labs() || !can_speak() {
        return Ok(());
    }
    let (lab, one, two) = mesh("roguenode")?;
    let (node, rogue) = (lab.node("node1"), lab.node("node3"));
    let (own, others, rogues) = (blocks(node)?, blocks(lab.node("node2"))?, blocks(rogue)?);
    let probes = traffic(&one, &two)?;
    let mut expected = BTreeMap::new();
    for (index, family) in Family::ALL.into_iter().enumerate() {
        let nobodys = if family == Family::Ipv4 { "10.42.255.192/26" } else { "fd00:42::ffff:0/122" };
        expected.extend([
            (others[index].clone(), "not-the-owner"),
            (half_of(&others[index]), "part-of-block"),
            (host(two.address(family)), "part-of-block"),
            (own[index].clone(), "own-block"),
            (host(last_of(&own[index])), "part-of-block"),
            (host(one.address(family)), "part-of-block"),
            (host(last_of(&rogues[index])), "part-of-block"),
            (nobodys.to_owned(), "unclaimed"),
        ]);
    }
    rogue.agent().kill9()?;
    let addresses = ["172.31.3.3", "fd00:31:3::3"];
    let mut speech = Speech {
        own: addresses,
        peers: &[["172.31.1.3", "fd00:31:1::3"]],
        prefixes: expected.keys().chain(&rogues).cloned().collect(),
        next_hops: None,
    };
    speak(rogue, &speech)?;
    refuses(node, &expected)?;
    let told = |address: &str| (address.to_owned(), address.to_owned());
    for (index, block) in rogues.iter().enumerate() {
        wait_for("node1 taking the node's own block", CONVERGENCE, || {
            let paths = good_paths(node, block);
            if paths.contains(&told(addresses[index])) { Ok(()) } else { Err(format!("{paths:?}")) }
        })?;
    }
    for (prefix, kind) in &expected {
        assert!(*kind == "not-the-owner" || !has_route(node, prefix), "{prefix} is in node1's kernel");
        let paths = good_paths(node, prefix);
        assert!(!paths.iter().any(|(peer, _)| addresses.contains(&peer.as_str())), "{prefix} is used: {paths:?}");
    }
    let problems = status(node)?["problems"].to_string();
    assert!(problems.contains("announces what is not its own"), "{problems}");

    // Its own block, by way of another node.
    speech.prefixes = rogues.to_vec();
    speech.next_hops = Some(["172.31.2.3", "fd00:31:2::3"]);
    speak(rogue, &speech)?;
    refuses(node, &rogues.iter().map(|block| (block.clone(), "next-hop")).collect())?;
    nothing_was_lost(probes);
    rogue.end_service("bird", Signal::SIGKILL)?;
    lab.down()?;
    Ok(())
}

#[test]
fn rfc4456_10_what_a_reflector_makes_up_or_reflects_of_a_rogue_node_is_refused_by_next_hop_and_originator() -> TestResult
{
    if !can_run_labs() || !can_speak() {
        return Ok(());
    }
    let lab = Lab::up(&topology_file("reflectors.clab.yml"), &Options::unique("roguerr"))?;
    let [node, victim, rogue, reflector] = ["node1", "node2", "node3", "rr2"].map(|name| lab.node(name));
    let (one, two) = (node.plug("a")?, victim.plug("a")?);
    let probes = traffic(&one, &two)?;
    let others = blocks(victim)?;
    let from_rr1 = [("172.31.0.2", "172.31.0.12"), ("fd00:31::2", "fd00:31::12")];
    let goes_on = |kind: &str| -> TestResult {
        let pods = Family::ALL.map(|family| host(two.address(family)));
        let expected = others.iter().map(|block| (block.clone(), kind));
        refuses(node, &expected.chain(pods.map(|pod| (pod, "part-of-block"))).collect())?;
        for (block, (peer, next_hop)) in others.iter().zip(from_rr1) {
            let expected = [(peer.to_owned(), next_hop.to_owned())].into();
            assert_eq!(good_paths(node, block), expected, "{block}");
            let shown = node.exec(&["ip", "route", "get", &last_of(block).to_string()])?;
            assert!(shown.contains(next_hop), "{shown}");
        }
        Ok(())
    };
    let said: Vec<String> = others.iter().cloned().chain(Family::ALL.map(|family| host(two.address(family)))).collect();

    // The reflector itself draws the traffic to itself.
    configure(reflector, &originate_as(64_512, &said, false))?;
    goes_on("next-hop")?;
    configure(reflector, &originate_as(64_512, &said, true))?;
    refuses(node, &BTreeMap::new())?;

    // A node has the reflector, which believes everything, reflect another node's block.
    rogue.agent().kill9()?;
    let mut speech = Speech {
        own: ["172.31.0.13", "fd00:31::13"],
        peers: &[["172.31.0.3", "fd00:31::3"]],
        prefixes: said,
        next_hops: None,
    };
    speak(rogue, &speech)?;
    goes_on("next-hop")?;
    // With the owner's next hop, ORIGINATOR_ID still says who has said it.
    speech.next_hops = Some(["172.31.0.12", "fd00:31::12"]);
    speak(rogue, &speech)?;
    goes_on("originator")?;
    nothing_was_lost(probes);
    rogue.end_service("bird", Signal::SIGKILL)?;
    lab.down()?;
    Ok(())
}
