//! The routed network as a user has it: pods reach each other and the world behind the router, through restarts and
//! failures of everything that is not the kernel.

use serde_json::Value;
use tests::{Capture, Lab, Node, Options, Place, Pod, Probe, can_run_labs, wait_until};
use types::Family;

use crate::{CONVERGENCE, TestResult, topology};

/// Datagrams a second while something is killed.
const RATE: u32 = 200;

/// A mesh with one pod on each of two nodes, converged.
fn mesh(name: &str) -> Result<(Lab, Pod, Pod), Box<dyn std::error::Error>> {
    let lab = Lab::up(&topology("mesh.clab.yml"), &Options::unique(name))?;
    let (one, two) = (lab.node("node1").plug("a")?, lab.node("node2").plug("a")?);
    for (from, to) in [(&one, &two), (&two, &one)] {
        reaches(from, to)?;
    }
    Ok((lab, one, two))
}

fn reaches(from: &Pod, to: &Pod) -> TestResult {
    for family in Family::ALL {
        let what = format!("{} reaching {} by {family}", from.name(), to.name());
        wait_until(&what, CONVERGENCE, || from.ping(to.address(family)))?;
    }
    Ok(())
}

fn status(node: &Node) -> Result<Value, Box<dyn std::error::Error>> {
    Ok(serde_json::from_str(&node.agent().ctl(&["node", "status", "-o", "json"])?)?)
}

fn peer<'a>(status: &'a Value, address: &str) -> Option<&'a Value> {
    status["peers"].as_array()?.iter().find(|peer| peer["address"] == address)
}

/// The number of a node's sessions, if every one of them is established.
fn all_established(node: &Node) -> Option<usize> {
    let status = status(node).ok()?;
    let peers = status["peers"].as_array()?;
    peers.iter().all(|peer| peer["state"] == "established").then_some(peers.len())
}

#[test]
fn pods_of_different_nodes_and_the_host_behind_the_router_reach_each_other_without_encapsulation() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("reach")?;
    let host = lab.node("host");
    for family in Family::ALL {
        wait_until("the host reaching a pod", CONVERGENCE, || host.ping(one.address(family)))?;
        let host_address = if family == Family::Ipv4 { "192.0.2.10" } else { "2001:db8:2::10" };
        wait_until("a pod reaching the host", CONVERGENCE, || one.ping(host_address.parse().unwrap()))?;
        assert!(lab.node("node1").ping(one.address(family)), "a node reaches its own pods");
    }
    // On the wire is what the pod sent: its own address, nothing around it.
    let filter = format!("icmp and src host {}", one.address(Family::Ipv4));
    let capture = Capture::start(lab.node("node1"), "eth1", &filter, 1, 20)?;
    wait_until("a packet", CONVERGENCE, || one.ping(two.address(Family::Ipv4)))?;
    let packet = capture.finish()?.join("\n");
    assert!(packet.contains(&format!("{} > {}", one.address(Family::Ipv4), two.address(Family::Ipv4))), "{packet}");
    // Every session is up and says where it comes from.
    for node in lab.manx_nodes() {
        wait_until("every session being up", CONVERGENCE, || all_established(node) == Some(6))?;
    }
    let routes = lab.node("node1").agent().ctl(&["bgp", "routes"])?;
    assert!(routes.contains("own block") && routes.contains("best"), "{routes}");
    lab.down()?;
    Ok(())
}

#[test]
fn killing_or_stopping_an_agent_and_starting_it_again_loses_no_packet() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("restart")?;
    let agent = lab.node("node1").agent();
    for kill in [true, false] {
        let probes: Vec<_> = Family::ALL
            .into_iter()
            .map(|family| Probe::start(&two, &one, one.address(family), RATE))
            .collect::<Result<_, _>>()?;
        if kill {
            agent.kill9()?
        } else {
            agent.terminate()?
        }
        agent.start()?;
        agent.wait_ready(CONVERGENCE)?;
        let node = lab.node("node1");
        wait_until("the sessions being up again", CONVERGENCE, || {
            all_established(node).is_some_and(|sessions| sessions > 0)
        })?;
        for probe in probes {
            let report = probe.finish();
            assert_eq!(report.lost, 0, "SIGKILL: {kill}: {report:?}");
        }
        // The endpoint is known as before: a DEL finds it and its address is not given out again at once.
        let endpoints =
            lab.node("node1").agent().ctl(&["ipam", "show", "--ip", &one.address(Family::Ipv4).to_string()])?;
        assert!(endpoints.contains("is pod"), "{endpoints}");
    }
    lab.down()?;
    Ok(())
}

#[test]
fn without_etcd_pods_come_and_go_and_an_agent_restarts_without_losing_a_packet() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("noetcd")?;
    let node = lab.node("node1");
    lab.etcd().stop()?;
    let probe = Probe::start(&two, &one, one.address(Family::Ipv4), RATE)?;
    let late = node.plug("late")?;
    reaches(&late, &two)?;
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    let later = node.plug("later")?;
    reaches(&later, &two)?;
    node.unplug("late")?;
    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");
    // What happened meanwhile is told once etcd is back.
    lab.etcd().start()?;
    let address = later.address(Family::Ipv4).to_string();
    let gone = late.address(Family::Ipv4).to_string();
    let on_another = lab.node("node3").agent();
    wait_until("the new pod being published", CONVERGENCE, || {
        on_another.ctl(&["ipam", "show", "--ip", &address]).is_ok_and(|said| said.contains("later"))
            && on_another.ctl(&["ipam", "show", "--ip", &gone]).is_err()
    })?;
    lab.down()?;
    Ok(())
}

#[test]
fn peers_follow_resources_live_and_a_peer_with_the_wrong_as_is_said_and_disturbs_nobody() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("peers")?;
    let node = lab.node("node1");
    let apply = |text: &str| -> TestResult {
        std::fs::write(node.path("/etc/manx/change.yaml"), text)?;
        node.agent().ctl(&["apply", "-f", "/etc/manx/change.yaml"])?;
        Ok(())
    };
    let probe = Probe::start(&two, &one, one.address(Family::Ipv6), RATE)?;
    let wrong = "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: node1-tor-v4}, \
                 spec: {node: node1, peerIP: 172.31.1.2, asNumber: 64999}}";
    apply(wrong)?;
    wait_until("the wrong AS being said", CONVERGENCE, || {
        status(node).is_ok_and(|status| {
            let error = peer(&status, "172.31.1.2").and_then(|peer| peer["lastError"].as_str());
            error.is_some_and(|error| error.contains("64601") && error.contains("64999"))
        })
    })?;
    assert_eq!(probe.finish().lost, 0, "the other sessions go on");
    apply(&wrong.replace("64999", "64601"))?;
    wait_until("the right AS being established", CONVERGENCE, || {
        status(node).is_ok_and(|status| peer(&status, "172.31.1.2").is_some_and(|p| p["state"] == "established"))
    })?;
    // The mesh switch: the router still connects everybody, the nodes have no sessions among themselves.
    apply(
        "{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}}",
    )?;
    wait_until("the mesh being off", CONVERGENCE, || {
        status(node).is_ok_and(|status| status["peers"].as_array().is_some_and(|peers| peers.len() == 2))
    })?;
    node.agent().ctl(&["delete", "bgpconfiguration", "default"])?;
    wait_until("the mesh being back", CONVERGENCE, || {
        status(node).is_ok_and(|status| status["peers"].as_array().is_some_and(|peers| peers.len() == 6))
    })?;
    lab.down()?;
    Ok(())
}

#[test]
fn garbage_on_the_bgp_port_is_answered_and_disturbs_nobody() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("garbage")?;
    let node = lab.node("node1");
    // For its first five seconds a session takes another connection of its peer for a late dial, and refuses it.
    wait_until("the session with the router being settled", CONVERGENCE, || {
        status(node).is_ok_and(|status| {
            let settled = |peer: &Value| peer["sinceSecs"].as_u64().is_some_and(|seconds| seconds > 5);
            peer(&status, "172.31.1.2").is_some_and(|peer| peer["state"] == "established" && settled(peer))
        })
    })?;
    let probe = Probe::start(&two, &one, one.address(Family::Ipv4), RATE)?;
    // From a configured peer's address: a header without the marker.
    let said = lab.node("tor").exec(&[
        "bash",
        "-c",
        "exec 3<>/dev/tcp/172.31.1.3/179; printf 'GET / HTTP/1.1\\r\\nHost: node1\\r\\n\\r\\n' >&3; \
         timeout 5 cat <&3 | od -An -v -tx1 | tr -d ' \\n'",
    ])?;
    // NOTIFICATION, message header error, connection not synchronized (RFC 4271 section 6.1).
    assert!(said.ends_with("0015030101"), "no NOTIFICATION in {said:?}");
    let status = status(node)?;
    assert_eq!(peer(&status, "172.31.1.2").map(|peer| &peer["state"]), Some(&Value::from("established")));
    assert_eq!(probe.finish().lost, 0);
    lab.down()?;
    Ok(())
}

#[test]
fn reflectors_of_two_makes_connect_nodes_that_have_no_mesh() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&topology("reflectors.clab.yml"), &Options::unique("rr"))?;
    let nodes: Vec<_> = lab.manx_nodes().filter(|node| node.name().starts_with("node")).collect();
    let pods: Vec<_> = nodes.iter().map(|node| node.plug("a")).collect::<Result<_, _>>()?;
    for from in &pods {
        for to in pods.iter().filter(|to| to.name() != from.name()) {
            reaches(from, to)?;
        }
    }
    // Each reflector alone is enough.
    let probe = Probe::start(&pods[0], &pods[1], pods[1].address(Family::Ipv4), RATE)?;
    lab.node("rr2").frr().kill()?;
    reaches(&pods[2], &pods[3])?;
    assert_eq!(probe.finish().lost, 0);
    lab.down()?;
    Ok(())
}
