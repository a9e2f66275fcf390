//! What nodes and the fabric's router have of each other.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::mesh::{
    RATE, all_established, apply, host_address, mesh, own_blocks, paths_of_router, peer, reaches, restart_is_over,
    routes, status,
};
use tests::pair::{ETCD, POOLS};
use tests::{CONVERGENCE, Lab, Options, Place, Probe, TestResult, can_run_labs, wait_until};
use types::Family;

use crate::pair;

#[test]
fn a_router_is_told_of_other_nodes_blocks_while_its_peer_says_so_and_of_own_ones_alone_otherwise() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, _, _) = mesh("export")?;
    let (node, router) = (lab.node("node1"), lab.node("tor"));
    let [block, other] = Family::ALL.map(|family| own_blocks(lab.node("node2"), family).pop_first());
    let (block, other) = (block.ok_or("no IPv4 block")?, other.ok_or("no IPv6 block")?);
    let own = own_blocks(node, Family::Ipv4).pop_first().ok_or("node1 has no block")?;
    let direct = ("172.31.2.3".to_owned(), "172.31.2.3".to_owned());
    let through = ("172.31.1.3".to_owned(), "172.31.1.3".to_owned());
    for exported in [false, true, false] {
        apply(
            node,
            &format!(
                "{{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {{name: node1-tor-v4}}, \
                 spec: {{node: node1, peerIP: 172.31.1.2, asNumber: 64601, exportOtherNodes: {exported}}}}}"
            ),
        )?;
        let mut expected = BTreeSet::from([direct.clone()]);
        expected.extend(exported.then(|| through.clone()));
        // The export is looked at once the router has heard of node1's own block, which it does in any case. The
        // session of the other family has not been told to export others' blocks.
        wait_until(&format!("the router having {expected:?}"), CONVERGENCE, || {
            all_established(node) == Some(6)
                && paths_of_router(router, Family::Ipv4, &own) == BTreeSet::from([through.clone()])
                && paths_of_router(router, Family::Ipv4, &block) == expected
                && paths_of_router(router, Family::Ipv6, &other).into_iter().map(|(peer, _)| peer).eq(["fd00:31:2::3"])
        })?;
    }
    lab.down()?;
    Ok(())
}

#[test]
fn rfc4724_4_2_the_routers_bgp_daemon_crashing_and_starting_again_loses_no_packet() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, _) = mesh("helper")?;
    let (node, router, host) = (lab.node("node1"), lab.node("tor"), lab.node("client"));
    for family in Family::ALL {
        wait_until("a pod reaching the host", CONVERGENCE, || one.ping(host_address(family)))?;
    }
    let start = |family| Probe::start(&one, host, host_address(family), RATE);
    let probes = Family::ALL.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
    router.frr().kill_daemon("bgpd")?;
    wait_until("node1 keeping the router's routes", CONVERGENCE, || {
        let Ok(status) = status(node) else { return false };
        let keeps = |address| peer(&status, address).is_some_and(|peer| peer["stale"].as_u64() > Some(0));
        keeps("172.31.1.2") && keeps("fd00:31:1::2")
    })?;
    router.frr().start_daemon("bgpd")?;
    restart_is_over(&lab, node)?;
    for probe in probes {
        let report = probe.finish();
        assert_eq!(report.lost, 0, "{report:?}");
    }
    lab.down()?;
    Ok(())
}

#[test]
fn a_nodes_own_as_number_is_changed_while_it_runs_and_back() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("ownas", &format!("{}{}", ETCD, POOLS))?;
    let lab = Lab::up(&file, &Options::unique("ownas"))?;
    let (one, two) = (lab.node("node1"), lab.node("node2"));
    let (near, far) = (one.plug("a")?, two.plug("a")?);
    let blocks: BTreeSet<_> = Family::ALL.into_iter().flat_map(|family| own_blocks(one, family)).collect();
    assert_eq!(blocks.len(), 2);
    let known_by = |asn: u32, as_path: &str| -> TestResult {
        wait_until(&format!("node1 being of AS {asn}, and known by it"), CONVERGENCE, || {
            let known = status(two).is_ok_and(|status| peer(&status, "192.0.2.1").is_some_and(|p| p["asn"] == asn));
            known && status(one).is_ok_and(|status| status["asn"] == asn) && all_established(two) == Some(2)
        })?;
        wait_until(&format!("node1's blocks coming by the AS path {as_path:?}"), CONVERGENCE, || {
            let of_node1 = |route: &Value| route["prefix"].as_str().is_some_and(|prefix| blocks.contains(prefix));
            let told = routes(two).into_iter().filter(of_node1);
            told.filter(|route| route["paths"][0]["asPath"] == as_path).count() == blocks.len()
        })?;
        reaches(&near, &far)?;
        reaches(&far, &near)
    };
    known_by(64512, "")?;
    let change = "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node1}, \
                  spec: {bgp: {asNumber: 64513}}}";
    apply(two, change)?;
    known_by(64513, "64513")?;
    two.agent().ctl(&["delete", "node", "node1"])?;
    known_by(64512, "")?;
    lab.down()?;
    Ok(())
}
