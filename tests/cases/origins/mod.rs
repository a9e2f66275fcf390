//! Routes that are not whose they say: what a router or a node announces inside the pools, and what becomes of it.

// Routers and nodes of our own AS that speak for other nodes.
mod internal;
// Pods that are routers.
mod pods;
// A router that leaks very many routes.
mod leak;
// Blocks that change hands, and claims that cannot be read.
mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::IpAddr;

use serde_json::Value;
use tests::mesh::{RATE, all_established, apply, mesh, own_blocks, reaches, restart_is_over, routes, status};
use tests::{CONVERGENCE, Lab, Node, Place, Probe, TestResult, can_run_labs, wait_for, wait_until};
use types::{Family, Prefix};

/// The router, as node1 peers with it.
const ROUTER: &str = "172.31.1.2";

/// What `manxctl bgp routes --rejected` lists.
fn rejections(node: &Node) -> Vec<Value> {
    let said = node.agent().ctl(&["bgp", "routes", "--rejected", "-o", "json"]).unwrap_or_default();
    serde_json::from_str(&said).unwrap_or_default()
}

fn text(route: &Value, key: &str) -> String {
    route[key].as_str().unwrap_or_default().to_owned()
}

/// The routes that a node refuses, by prefix, with the kind of reason and the reason in words.
fn rejected(node: &Node) -> BTreeMap<String, (String, String)> {
    let routes = rejections(node).into_iter();
    routes.map(|route| (text(&route, "prefix"), (text(&route, "kind"), text(&route, "reason")))).collect()
}

/// The paths that a node has to a prefix, without those that it refuses or keeps of before, as pairs of who tells it and the next
/// hop.
fn good_paths(node: &Node, prefix: &str) -> BTreeSet<(String, String)> {
    let route = routes(node).into_iter().find(|route| route["prefix"] == prefix).unwrap_or_default();
    let paths = route["paths"].as_array().cloned().unwrap_or_default().into_iter();
    let paths = paths.filter(|path| path["stale"] == false && !text(path, "reason").contains("refused"));
    paths.map(|path| (text(&path, "peer"), text(&path, "nextHop"))).collect()
}

/// Waits until a node refuses exactly these prefixes, for these kinds of reasons.
fn refuses(node: &Node, expected: &BTreeMap<String, &str>) -> TestResult {
    wait_for(&format!("what {} refuses", node.name()), CONVERGENCE, || {
        let now = rejected(node);
        let now: BTreeMap<_, _> = now.iter().map(|(prefix, (kind, _))| (prefix.clone(), kind.as_str())).collect();
        if now == *expected { Ok(()) } else { Err(format!("{now:?} and not {expected:?}")) }
    })?;
    Ok(())
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

/// The first half of a block.
fn half_of(block: &str) -> String {
    let block: Prefix = block.parse().unwrap();
    Prefix::new(block.addr(), block.len() + 1).unwrap().to_string()
}

/// Whether a router has a route by way of another to exactly this prefix.
fn has_via(router: &Node, prefix: &str) -> bool {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    router.exec(&["ip", family, "route", "show", prefix]).is_ok_and(|shown| shown.contains("via"))
}

/// The lines that make the router originate prefixes, or no longer.
fn originate(prefixes: &[String], undo: bool) -> Vec<String> {
    originate_as(64_601, prefixes, undo)
}

/// The lines that make a router of this AS originate prefixes, or no longer.
fn originate_as(asn: u32, prefixes: &[String], undo: bool) -> Vec<String> {
    let mut lines = vec![format!("router bgp {asn}"), "no bgp network import-check".to_owned()];
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

/// Applies what node1 thinks of the router's routes; nothing: what BGPConfiguration says.
fn of_the_router(node: &Node, validation: Option<&str>) -> TestResult {
    let field = validation.map(|validation| format!(", originValidation: {validation}")).unwrap_or_default();
    apply(
        node,
        &format!(
            "{{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {{name: node1-tor-v4}}, \
             spec: {{node: node1, peerIP: {ROUTER}, asNumber: 64601{field}}}}}"
        ),
    )
}

/// Applies what all nodes think of all peers' routes.
fn of_everybody(node: &Node, validation: &str) -> TestResult {
    apply(
        node,
        &format!(
            "{{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {{name: default}}, \
             spec: {{originValidation: {validation}}}}}"
        ),
    )
}

/// Waits until node1 uses these routes of the router, and tells that they are not good or does not.
fn uses(node: &Node, prefixes: &[String], is_told: bool) -> TestResult {
    wait_for("node1 using routes that are not good", CONVERGENCE, || {
        let told = rejections(node);
        let is_so = |prefix: &&String| {
            let route = told.iter().find(|route| text(route, "prefix") == **prefix);
            has_route(node, prefix) && route.map(|route| route["used"] == true) == is_told.then_some(true)
        };
        match prefixes.iter().find(|prefix| !is_so(prefix)) {
            None => Ok(()),
            Some(prefix) => Err(format!("{prefix}; in the kernel: {}; told: {told:?}", has_route(node, prefix))),
        }
    })?;
    Ok(())
}

/// How often node1 has refused a route of the router for this reason.
fn refused(node: &Node, reason: &str) -> Result<f64, String> {
    let labels = format!("peer=\"{ROUTER}\",origin=\"node1-tor-v4\",reason=\"{reason}\"");
    node.agent().metric(&format!("manx_bgp_peer_refusals_total{{{labels}}}"))
}

#[test]
fn what_a_router_announces_of_nodes_blocks_is_refused_by_name_and_good_routes_go_on() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("origins")?;
    let (node, router) = (lab.node("node1"), lab.node("tor"));
    let probe = Probe::start(&one, &two, two.address(Family::Ipv4), RATE)?;
    let (mut expected, mut owned) = (BTreeMap::new(), Vec::new());
    for family in Family::ALL {
        let [own, others] = ["node1", "node2"].map(|name| own_blocks(lab.node(name), family).pop_first());
        let (own, others) = (own.ok_or("node1 has no block")?, others.ok_or("node2 has no block")?);
        let nobodys = if family == Family::Ipv4 { "10.42.255.192/26" } else { "fd00:42::ffff:0/122" };
        let wide = if family == Family::Ipv4 { "10.42.0.0/17" } else { "fd00:42::/72" };
        let part_of = |whose: &str, block: &str| ("part-of-block", format!("refused: part of {whose} block {block}"));
        expected.extend([
            (host(two.address(family)), part_of("node node2's", &others)),
            (host(last_of(&own)), part_of("this node's own", &own)),
            (half_of(&own), part_of("this node's own", &own)),
            (nobodys.to_owned(), ("unclaimed", "refused: no node has claimed the block".to_owned())),
            (wide.to_owned(), ("not-a-block", "refused: in a pool, and no claimed block".to_owned())),
        ]);
        owned.push(own);
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
    let count = refused(node, "part-of-block")?;
    assert!(count >= 3.0, "{count}");

    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");

    // A node's own block. The router itself has no route to it while it says that it has.
    configure(router, &originate(&owned, false))?;
    wait_until("node1 refusing its own blocks", CONVERGENCE, || {
        owned.iter().all(|block| rejected(node).get(block).is_some_and(|(kind, _)| kind == "own-block"))
    })?;
    assert!(owned.iter().all(|block| !has_route(node, block)), "an own block of node1 leads away from it");
    configure(router, &originate(&owned, true))?;
    wait_until("the router routing to node1's blocks again", CONVERGENCE, || {
        owned.iter().all(|block| !rejected(node).contains_key(block) && has_via(router, block))
    })?;

    let probe = Probe::start(&two, &one, one.address(Family::Ipv4), RATE)?;
    configure(router, &originate(&rogue, true))?;
    wait_until("node1 forgetting what the router has withdrawn", CONVERGENCE, || rejected(node).is_empty())?;
    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");
    lab.down()?;
    Ok(())
}

#[test]
fn origin_validation_is_turned_off_and_on_and_only_warns_while_sessions_are_up_for_one_peer_and_for_all() -> TestResult
{
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, two) = mesh("validation")?;
    let (node, router) = (lab.node("node1"), lab.node("tor"));
    // What becomes of pods without validation: the router has their traffic.
    let stolen = Family::ALL.map(|family| host(two.address(family)));
    let (of_the_peer, all) = (&stolen[..1], &stolen[..]);
    // Of node1's own block, which no setting lets in.
    let own = Family::ALL.map(|family| host(one.address(family)));
    let announced = [&stolen[..], &own[..]].concat();
    let everything: BTreeMap<String, &str> = announced.iter().map(|prefix| (prefix.clone(), "part-of-block")).collect();
    let keeps_its_own = || assert!(!own.iter().any(|prefix| has_route(node, prefix)), "a pod of node1 is the router's");
    wait_until("every session being up", CONVERGENCE, || all_established(node) == Some(6))?;
    let since = |status: &Value| {
        status["peers"].as_array().into_iter().flatten().filter_map(|peer| peer["sinceSecs"].as_u64()).min()
    };
    configure(router, &originate(&announced, false))?;
    refuses(node, &everything)?;
    let before = since(&status(node)?);

    // For one peer: the other session with the same router is judged as before.
    of_the_router(node, Some("off"))?;
    uses(node, of_the_peer, false)?;
    assert!(!has_route(node, &stolen[1]), "{} is used, and another peer's routes are judged", stolen[1]);
    of_the_router(node, Some("warn"))?;
    uses(node, of_the_peer, true)?;
    keeps_its_own();
    let count = refused(node, "part-of-block")?;
    of_the_router(node, Some("enforce"))?;
    wait_until("node1 refusing it again", CONVERGENCE, || {
        !has_route(node, &stolen[0]) && rejections(node).iter().all(|route| route["used"] == false)
    })?;
    refuses(node, &everything)?;
    assert!(refused(node, "part-of-block")? > count, "what is refused is counted");

    // For all, but for a peer that says otherwise.
    of_everybody(node, "off")?;
    uses(node, &stolen[1..], false)?;
    assert!(!has_route(node, &stolen[0]), "{} is used, though its peer's own setting is enforce", stolen[0]);
    of_the_router(node, None)?;
    uses(node, all, false)?;
    keeps_its_own();
    of_everybody(node, "warn")?;
    uses(node, all, true)?;
    keeps_its_own();
    of_everybody(node, "enforce")?;
    wait_until("node1 refusing both", CONVERGENCE, || stolen.iter().all(|prefix| !has_route(node, prefix)))?;
    refuses(node, &everything)?;

    assert!(since(&status(node)?) >= before, "a session began anew");
    reaches(&one, &two)?;
    let probe = Probe::start(&one, &two, two.address(Family::Ipv4), RATE)?;
    configure(router, &originate(&announced, true))?;
    wait_until("node1 forgetting what the router has withdrawn", CONVERGENCE, || rejected(node).is_empty())?;
    let report = probe.finish();
    assert_eq!(report.lost, 0, "{report:?}");
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
