//! The routed network as a user has it: pods reach each other and the world behind the router, through restarts and
//! failures of everything that is not the kernel.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::mesh::{
    RATE, all_established, apply, host_address, mesh, node_keeps, own_blocks, paths, peer, reaches, restart_is_over,
    router_keeps, status,
};
use tests::{
    CONVERGENCE, Capture, Lab, Options, Place, Probe, TestResult, can_run_labs, topology_file, wait_for, wait_until,
};
use types::Family;

#[test]
fn pods_of_different_nodes_and_the_host_behind_the_router_reach_each_other_without_encapsulation() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("reach")?;
    let host = lab.node("client");
    for family in Family::ALL {
        wait_until("the host reaching a pod", CONVERGENCE, || host.ping(one.address(family)))?;
        wait_until("a pod reaching the host", CONVERGENCE, || one.ping(host_address(family)))?;
        assert!(lab.node("node1").ping(one.address(family)), "a node reaches its own pods");
    }
    // The wire shows what the pod sent: its own address, with nothing around it.
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
fn rfc4724_4_1_and_4_2_killing_or_stopping_an_agent_and_starting_it_again_loses_no_packet() -> TestResult {
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
        wait_until("the others keeping its paths", CONVERGENCE, || {
            node_keeps(lab.node("node2")) && Family::ALL.into_iter().all(|family| router_keeps(&lab, family))
        })?;
        agent.start()?;
        agent.wait_ready(CONVERGENCE)?;
        restart_is_over(&lab, lab.node("node1"))?;
        for probe in probes {
            let report = probe.finish();
            assert_eq!(report.lost, 0, "SIGKILL: {kill}: {report:?}");
        }
        // The endpoint is known as before: a DEL finds it, and its address is not given out again at once.
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
    // Once etcd is back, the node hears of what happened meanwhile.
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
    let probe = Probe::start(&two, &one, one.address(Family::Ipv6), RATE)?;
    let wrong = "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: node1-tor-v4}, \
                 spec: {node: node1, peerIP: 172.31.1.2, asNumber: 64999}}";
    apply(node, wrong)?;
    wait_until("the wrong AS being said", CONVERGENCE, || {
        status(node).is_ok_and(|status| {
            let error = peer(&status, "172.31.1.2").and_then(|peer| peer["lastError"].as_str());
            error.is_some_and(|error| error.contains("64601") && error.contains("64999"))
        })
    })?;
    assert_eq!(probe.finish().lost, 0, "the other sessions go on");
    apply(node, &wrong.replace("64999", "64601"))?;
    wait_until("the right AS being established", CONVERGENCE, || {
        status(node).is_ok_and(|status| peer(&status, "172.31.1.2").is_some_and(|p| p["state"] == "established"))
    })?;
    // With the mesh switched off, the router still connects everybody, and the nodes have no sessions among themselves.
    apply(
        node,
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
fn rfc4271_6_1_garbage_on_the_bgp_port_is_answered_and_disturbs_nobody() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("garbage")?;
    let node = lab.node("node1");
    // For its first five seconds a session takes another connection of its peer for a late dial and refuses it.
    wait_until("the session with the router being settled", CONVERGENCE, || {
        status(node).is_ok_and(|status| {
            let settled = |peer: &Value| peer["sinceSecs"].as_u64().is_some_and(|seconds| seconds > 5);
            peer(&status, "172.31.1.2").is_some_and(|peer| peer["state"] == "established" && settled(peer))
        })
    })?;
    let probe = Probe::start(&two, &one, one.address(Family::Ipv4), RATE)?;
    // What a configured peer's address sends is a header without the marker.
    let say_garbage = |from: &str| {
        lab.node(from).exec(&[
            "bash",
            "-c",
            "exec 3<>/dev/tcp/172.31.1.3/179; printf 'GET / HTTP/1.1\\r\\nHost: node1\\r\\n\\r\\n' >&3; \
             timeout 5 cat <&3 | od -An -v -tx1 | tr -d ' \\n'",
        ])
    };
    // Where the peer has no session, the answer is NOTIFICATION, message header error, connection not synchronized (RFC 4271
    // section 6.1).
    apply(
        node,
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: silent}, \
         spec: {node: node1, peerIP: 192.0.2.10, asNumber: 64999}}",
    )?;
    wait_for("garbage being answered as such", CONVERGENCE, || match say_garbage("client") {
        Ok(said) if said.ends_with("0015030101") => Ok(()),
        said => Err(format!("{said:?}")),
    })?;
    // Beside a live session nothing is listened to: Cease, connection collision resolution (RFC 4486).
    let said = say_garbage("tor")?;
    assert!(said.ends_with("0015030607"), "no NOTIFICATION in {said:?}");
    let status = status(node)?;
    assert_eq!(peer(&status, "172.31.1.2").map(|peer| &peer["state"]), Some(&Value::from("established")));
    assert_eq!(probe.finish().lost, 0);
    lab.down()?;
    Ok(())
}

/// A pool of each family: 10.NUMBER.0.0/16 and fd00:NUMBER::/64.
fn pools(number: u8, disabled: bool) -> String {
    let pool = |family: &str, cidr: &str| {
        let name = if number == 42 { format!("default-{family}-ippool") } else { format!("{family}-{number}") };
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: {name}}}, \
             spec: {{cidr: '{cidr}', disabled: {disabled}}}}}\n---\n"
        )
    };
    pool("ipv4", &format!("10.{number}.0.0/16")) + &pool("ipv6", &format!("fd00:{number}::/64"))
}

#[test]
fn rfc4456_6_and_7_reflectors_of_two_makes_connect_nodes_that_have_no_mesh_and_each_alone_is_enough() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&topology_file("reflectors.clab.yml"), &Options::unique("rr"))?;
    let nodes: Vec<_> = lab.manx_nodes().filter(|node| node.name().starts_with("node")).collect();
    let pods: Vec<_> = nodes.iter().map(|node| node.plug("a")).collect::<Result<_, _>>()?;
    for from in &pods {
        for to in pods.iter().filter(|to| to.name() != from.name()) {
            reaches(from, to)?;
        }
    }
    // node1 hears of a block of node2 from these reflectors, and its packets go to node2 itself.
    let (near, far) = (nodes[0], nodes[1]);
    let told_by = |reflectors: &[u8], family: Family| -> BTreeSet<_> {
        let network = if family == Family::Ipv4 { "172.31.0." } else { "fd00:31::" };
        reflectors.iter().map(|host| (format!("{network}{host}"), format!("{network}12"))).collect()
    };
    for block in Family::ALL.map(|family| (family, own_blocks(far, family))) {
        let (family, block) = (block.0, block.1.first().ok_or("node2 has no block")?);
        wait_until("both reflectors telling of the block", CONVERGENCE, || {
            paths(near, block) == told_by(&[2, 3], family)
        })?;
    }
    // Each reflector alone is enough: without the other one, a pod that needs a new block is reached.
    let peers = std::fs::read_to_string(lab.node("rr1").path("/etc/manx/resources.yaml"))?;
    let probes = Family::ALL.map(|family| Probe::start(&pods[0], &pods[1], pods[1].address(family), RATE));
    for (number, without, left) in [(43, &["to-rr1"][..], 3), (44, &["to-rr2-v4", "to-rr2-v6"][..], 2)] {
        for peer in without {
            near.agent().ctl(&["delete", "bgppeer", peer])?;
        }
        wait_until("one reflector being left", CONVERGENCE, || {
            nodes.iter().all(|node| all_established(node) == Some(2))
        })?;
        let before = Family::ALL.map(|family| own_blocks(far, family));
        apply(near, &format!("{}{}", pools(number - 1, true), pools(number, false)))?;
        wait_until("node2 having new blocks", CONVERGENCE, || {
            Family::ALL.map(|family| own_blocks(far, family).len()) == before.each_ref().map(|blocks| blocks.len() + 1)
        })?;
        let late = far.plug(&format!("late{number}"))?;
        reaches(&pods[0], &late)?;
        for (family, before) in Family::ALL.into_iter().zip(&before) {
            let now = own_blocks(far, family);
            let block = now.difference(before).next().ok_or("node2 has no new block")?;
            let address = late.address(family);
            assert!(block.parse::<types::Prefix>()?.contains(address), "{address} is not of {block}");
            assert_eq!(paths(near, block), told_by(&[left], family));
        }
        apply(near, &peers)?;
        wait_until("both reflectors being back", CONVERGENCE, || {
            nodes.iter().all(|node| all_established(node) == Some(4))
        })?;
    }
    for probe in probes {
        assert_eq!(probe?.finish().lost, 0);
    }
    lab.down()?;
    Ok(())
}
