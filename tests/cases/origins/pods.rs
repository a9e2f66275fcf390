//! Pods that are routers: what they are let in for, and what they cannot take.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use nix::sys::signal::Signal;
use tests::mesh::{apply, mesh, own_blocks, peer, status};
use tests::{CONVERGENCE, Node, Place, Pod, PodSpec, TestResult, can_run_labs, wait_until};
use types::Family;

use super::internal::can_speak;
use super::{has_route, host, refuses};
use crate::pods::{connect, node_address};

/// The port of BGP (RFC 4271 section 8.2.1).
const BGP: u16 = 179;

/// Has BIRD announce these prefixes from a pod to the pod's node; those of `elsewhere` with another next hop.
fn speak(node: &Node, router: &Pod, prefixes: &[String], elsewhere: (&str, &Pod)) -> TestResult {
    let mut text = format!("router id {};\nprotocol device {{}}\n", router.address(Family::Ipv4));
    for (family, channel) in Family::ALL.into_iter().zip(["ipv4", "ipv6"]) {
        writeln!(text, "protocol static {{ {channel};")?;
        let of_family = |prefix: &&str| prefix.contains(':') == (family == Family::Ipv6);
        for prefix in prefixes.iter().map(String::as_str).chain([elsewhere.0]).filter(of_family) {
            writeln!(text, "  route {prefix} blackhole;")?;
        }
        let hop = match family {
            Family::Ipv4 => format!("if net = {} then bgp_next_hop = {}; ", elsewhere.0, elsewhere.1.address(family)),
            Family::Ipv6 => String::new(),
        };
        writeln!(
            text,
            "}}\nprotocol bgp to{channel} {{ local {} as 65010; neighbor {} as 64512; multihop 2; connect retry time 2; \
             connect delay time 1; error wait time 1, 2; \
             {channel} {{ import all; export filter {{ {hop}accept; }}; }}; }}",
            router.address(family),
            node_address(1, family)
        )?;
    }
    fs::write(node.path("/etc/bird-pod.conf"), text)?;
    node.exec(&["mkdir", "-p", "/run/bird"])?;
    let netns = router.attachment.netns.clone().ok_or("the pod has no namespace")?;
    let mut command = node.command("nsenter");
    command.arg(format!("--net={netns}"));
    command.args(["bird", "-f", "-c", "/etc/bird-pod.conf", "-s", "/run/bird/pod.ctl"]);
    node.start_service("bird", command)?;
    Ok(())
}

fn is_open(from: &Pod, to: std::net::IpAddr) -> bool {
    connect(from, 0, (to, BGP).into()).is_ok()
}

#[test]
fn a_pod_that_a_bgp_peer_selects_speaks_to_its_own_node_and_leads_nobody_astray() -> TestResult {
    if !can_run_labs() || !can_speak() {
        return Ok(());
    }
    let (lab, one, two) = mesh("routers")?;
    let node = lab.node("node1");
    let router = node.plug_pod(PodSpec::new("router").label("app", "router"))?;
    for family in Family::ALL {
        assert!(!is_open(&router, node_address(1, family)), "open to a pod that nobody peers with");
    }
    apply(
        node,
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: routers}, \
         spec: {localWorkloadSelector: \"app == 'router'\", asNumber: 65010}}",
    )?;
    // Of another network that is imported: good. Of a node, of nobody, the default route, and by way of another pod: not.
    let good = ["192.0.2.128/25".to_owned(), "2001:db8:2:0:8000::/65".to_owned()];
    let others = own_blocks(lab.node("node2"), Family::Ipv4).pop_first().ok_or("node2 has no block")?;
    let stolen = [others.clone(), host(two.address(Family::Ipv4)), "0.0.0.0/0".to_owned(), "203.0.113.0/24".to_owned()];
    let detour = "192.0.2.64/26";
    speak(node, &router, &[&good[..], &stolen[..]].concat(), (detour, &one))?;
    for family in Family::ALL {
        wait_until("the session with the pod", CONVERGENCE, || {
            let status = status(node).unwrap_or_default();
            peer(&status, &router.address(family).to_string()).is_some_and(|peer| peer["state"] == "established")
        })?;
    }
    for prefix in &good {
        wait_until(&format!("{prefix} by way of the pod"), CONVERGENCE, || has_route(node, prefix))?;
    }
    let kinds = ["not-the-owner", "part-of-block", "import-policy", "import-policy"];
    let mut expected: BTreeMap<_, _> = stolen.iter().cloned().zip(kinds).collect();
    expected.insert(detour.to_owned(), "next-hop");
    refuses(node, &expected)?;
    assert!(!has_route(node, detour) && !has_route(node, "default"));

    // Its own node's speaker alone, and to it alone.
    for family in Family::ALL {
        assert!(is_open(&router, node_address(1, family)));
        assert!(!is_open(&router, node_address(2, family)), "another node's speaker is open to the pod");
        assert!(!is_open(&one, node_address(1, family)), "the speaker is open to another pod");
        assert!(!is_open(&one, router.address(family)), "the router's port is open to other pods");
    }

    // A pod that is a router no more, and one that is gone.
    node.end_service("bird", Signal::SIGKILL)?;
    node.unplug("router")?;
    for prefix in &good {
        wait_until(&format!("{prefix} being withdrawn"), CONVERGENCE, || !has_route(node, prefix))?;
    }
    wait_until("the sessions being gone", CONVERGENCE, || {
        let status = status(node).unwrap_or_default();
        Family::ALL.into_iter().all(|family| peer(&status, &router.address(family).to_string()).is_none())
    })?;
    lab.down()?;
    Ok(())
}
