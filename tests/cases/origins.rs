//! Routes that are not whose they say: what a router or a node announces inside the pools, and what becomes of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;

use serde_json::Value;
use tests::mesh::{RATE, all_established, mesh, own_blocks, restart_is_over, status};
use tests::{CONVERGENCE, Lab, Node, Place, Probe, TestResult, can_run_labs, wait_until};
use types::{Family, Prefix};

/// The routes that a node refuses, by prefix, with the kind of reason and the reason in words.
fn rejected(node: &Node) -> BTreeMap<String, (String, String)> {
    let said = node.agent().ctl(&["bgp", "routes", "--rejected", "-o", "json"]).unwrap_or_default();
    let routes: Vec<Value> = serde_json::from_str(&said).unwrap_or_default();
    let text = |route: &Value, key: &str| route[key].as_str().unwrap_or_default().to_owned();
    routes.iter().map(|route| (text(route, "prefix"), (text(route, "kind"), text(route, "reason")))).collect()
}

/// Whether BGP has put a route to exactly this prefix into a node's kernel.
fn has_route(node: &Node, prefix: &str) -> bool {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let shown = node.exec(&["ip", family, "route", "show", prefix, "proto", "78"]).unwrap_or_default();
    !shown.trim().is_empty()
}

fn host(address: IpAddr) -> String {
    Prefix::host(address).to_string()
}

/// The last address of a block.
fn last_of(block: &str) -> IpAddr {
    types::ownership::last_address(&block.parse().unwrap())
}

/// The lines that make the router originate prefixes, or no longer.
fn originate(prefixes: &[String], undo: bool) -> Vec<String> {
    let mut lines = vec!["router bgp 64601".to_owned(), "no bgp network import-check".to_owned()];
    for (family, colon) in [("ipv4", false), ("ipv6", true)] {
        lines.push(format!("address-family {family} unicast"));
        let network = if undo { "no network" } else { "network" };
        lines.extend(prefixes.iter().filter(|p| p.contains(':') == colon).map(|prefix| format!("{network} {prefix}")));
        lines.push("exit-address-family".to_owned());
    }
    lines
}

fn configure(router: &Node, lines: &[String]) -> TestResult {
    router.frr().configure(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(())
}

#[test]
fn what_a_router_announces_of_nodes_blocks_is_refused_by_name_and_good_routes_go_on() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("origins")?;
    let (node, router) = (lab.node("node1"), lab.node("tor"));
    let probe = Probe::start(&one, &two, two.address(Family::Ipv4), RATE)?;
    let mut expected = BTreeMap::new();
    for family in Family::ALL {
        let [own, others] = ["node1", "node2"].map(|name| own_blocks(lab.node(name), family).pop_first());
        let (own, others) = (own.ok_or("node1 has no block")?, others.ok_or("node2 has no block")?);
        let nobodys = if family == Family::Ipv4 { "10.42.255.192/26" } else { "fd00:42::ffff:0/122" };
        let wide = if family == Family::Ipv4 { "10.42.0.0/17" } else { "fd00:42::/72" };
        let part_of = |whose: &str, block: &str| ("part-of-block", format!("refused: part of {whose} block {block}"));
        expected.extend([
            (host(two.address(family)), part_of("node node2's", &others)),
            (host(last_of(&own)), part_of("this node's own", &own)),
            (nobodys.to_owned(), ("unclaimed", "refused: no node has claimed the block".to_owned())),
            (wide.to_owned(), ("not-a-block", "refused: in a pool, and no claimed block".to_owned())),
        ]);
    }
    let rogue: Vec<String> = expected.keys().cloned().collect();
    configure(router, &originate(&rogue, false))?;
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(p, (kind, why))| (p, (kind.to_owned(), why))).collect();
    wait_until("node1 refusing what the router made up", CONVERGENCE, || rejected(node) == expected)?;
    for prefix in &rogue {
        assert!(!has_route(node, prefix), "{prefix} is in node1's kernel");
    }
    for good in ["192.0.2.0/24", "2001:db8:2::/64"] {
        assert!(has_route(node, good), "{good} is not in node1's kernel");
    }
    let problems = status(node)?["problems"].to_string();
    assert!(problems.contains("announces what is not its own"), "{problems}");
    let refused = node
        .agent()
        .metric("manx_bgp_peer_refusals_total{peer=\"172.31.1.2\",origin=\"node1-tor-v4\",reason=\"part-of-block\"}")?;
    assert!(refused >= 2.0, "{refused}");

    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");

    configure(router, &originate(&rogue, true))?;
    wait_until("node1 forgetting what the router has withdrawn", CONVERGENCE, || rejected(node).is_empty())?;
    lab.down()?;
    Ok(())
}

/// The claims in etcd: key and value.
fn claims(lab: &Lab) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let said = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/blocks/"])?;
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let pairs = lines.chunks_exact(2).filter_map(|pair| pair.first().zip(pair.last()));
    Ok(pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn a_claim_makes_a_kept_route_good_and_no_packet_is_lost_where_claims_are_forgotten_or_etcd_is_away() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("moving")?;
    let node = lab.node("node1");
    let start = |family| Probe::start(&one, &two, two.address(family), RATE);
    let probes = Family::ALL.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let before = claims(&lab)?;
    let of_node2 = before.values().find(|value| value.contains("node2")).ok_or("node2 has no block")?;
    let (block, key) = ("10.42.255.192/26", "/manx/v1/blocks/10.42.255.192-26");
    // What nobody owns is kept, and judged again when it is claimed: through a router the prefix is what can be judged.
    let originated = [block.to_owned()];
    configure(lab.node("tor"), &originate(&originated, false))?;
    wait_until("the block being nobody's", CONVERGENCE, || {
        rejected(node).get(block).is_some_and(|(kind, _)| kind == "unclaimed")
    })?;
    lab.etcd().ctl(&["put", key, of_node2])?;
    wait_until("the block being node2's", CONVERGENCE, || has_route(node, block) && rejected(node).is_empty())?;
    // A store that has lost all claims: nodes claim again what they have.
    lab.etcd().ctl(&["del", "--prefix", "/manx/v1/blocks/"])?;
    wait_until("the blocks being claimed again", CONVERGENCE, || {
        claims(&lab).is_ok_and(|claims| before.keys().all(|key| claims.contains_key(key)))
    })?;
    // A claim that is gone takes no route away before another node has the block; this one node2 may have taken up.
    assert!(has_route(node, block), "a claim that was deleted has taken the route");
    configure(lab.node("tor"), &originate(&originated, true))?;
    // One that is away while the agent starts: it goes on with the claims that it remembers.
    lab.etcd().stop()?;
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    restart_is_over(&lab, node)?;
    lab.etcd().start()?;
    wait_until("every session being up", CONVERGENCE, || all_established(node) == Some(6))?;
    for probe in probes {
        let report = probe.finish();
        assert_eq!(report.lost, 0, "{report:?}");
    }
    assert_eq!(rejected(node), BTreeMap::new());
    lab.down()?;
    Ok(())
}
