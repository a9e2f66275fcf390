//! Routes in the ranges of blocks: who may announce them, and what becomes of those that others announce.

use std::collections::BTreeSet;

use bgp_proto::{
    Freshness, Holder, Input, LimitAction, OriginChange, OriginNode, OriginValidation, PeerConfig, PeerEvent,
    PeerImport, PeerRole, Range, Refusal,
};
use types::{Family, NodeName, Prefix};

use super::{MINUTE, SECOND, asn, converged_mesh, downs, routes_to};
use crate::simnet::{ASN, Number, SimNet, address, block, blocks, peer};

const ROUTER: u32 = 64_601;

fn name(number: Number) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn held(prefix: Prefix, by: Number) -> OriginChange {
    OriginChange::Holder(prefix, Some(Holder::Node(name(by))))
}

/// What node 1 hears of nodes 1 to `count`, each with its blocks.
fn claims(count: Number) -> Vec<OriginChange> {
    let range = |cidr: &str, block_len| Range { cidr: cidr.parse().unwrap(), block_len };
    let node = |number| OriginNode {
        name: name(number),
        addresses: Family::ALL.map(|family| address(number, family)).to_vec(),
        asn: ASN,
    };
    let mut changes = vec![
        OriginChange::Ranges(vec![range("10.65.0.0/16", 26), range("fd00:65::/32", 122)]),
        OriginChange::Nodes((1..=count).map(node).collect()),
    ];
    changes.extend(blocks(1).into_iter().map(|block| OriginChange::Holder(block, Some(Holder::Own))));
    changes.extend((2..=count).flat_map(|number| blocks(number).into_iter().map(move |block| held(block, number))));
    changes
}

/// Nodes 1 to 3 in a full mesh; node 1 has a router, 9, as well, and judges by who owns what.
fn guarded(change: impl Fn(&mut PeerConfig)) -> SimNet {
    let mut net = converged_mesh(3);
    net.add(9);
    net.configure(9, vec![PeerConfig { local_asn: asn(ROUTER), ..peer(9, 1, Family::Ipv4) }], None);
    let mut peers = net.peers(1);
    for node in &mut peers {
        node.import = PeerImport::new(PeerRole::Node);
    }
    let mut router = PeerConfig { asn: asn(ROUTER), import: PeerImport::default(), ..peer(1, 9, Family::Ipv4) };
    change(&mut router);
    peers.push(router);
    net.configure(1, peers, None);
    net.input(1, Input::Origins(claims(3)));
    net.run(MINUTE);
    assert_eq!(net.node(1).kernel, routes_to([2, 3]), "what nodes announce of themselves is good");
    assert_eq!(net.node(1).lost, [], "and went on being used");
    net
}

/// What node 1 refuses.
fn rejected(net: &SimNet) -> Vec<(Prefix, Refusal)> {
    let rejected = net.node(1).speaker.as_ref().unwrap().rejected();
    rejected.into_iter().map(|route| (route.prefix, route.refusal)).collect()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn what_a_router_or_a_node_makes_up_is_refused_and_said() {
    let mut net = guarded(|_| {});
    net.originate(
        9,
        [prefix("10.65.2.1/32"), block(1, Family::Ipv4), prefix("10.65.1.9/32"), prefix("10.65.2.0/24")].into(),
    );
    // Node 3 takes node 2's traffic: its session is internal and its block good.
    net.originate(3, blocks(3).into_iter().chain([prefix("10.65.2.0/27"), block(2, Family::Ipv4)]).collect());
    net.run(SECOND);
    assert_eq!(net.node(1).kernel, routes_to([2, 3]));
    let expected = [
        (prefix("10.65.2.0/26"), Refusal::NotTheOwner),
        (prefix("10.65.2.0/27"), Refusal::PartOfBlock),
        (prefix("10.65.1.0/26"), Refusal::OwnBlock),
        (prefix("10.65.1.9/32"), Refusal::PartOfBlock),
        (prefix("10.65.2.0/24"), Refusal::NotABlock),
        (prefix("10.65.2.1/32"), Refusal::PartOfBlock),
    ];
    assert_eq!(rejected(&net), expected);
    let said = |event: &PeerEvent| match event {
        PeerEvent::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    let said: Vec<_> = net.node(1).events.iter().filter_map(|(_, event)| said(event)).collect();
    assert_eq!(said.len(), 2, "one word for each peer: {said:?}");
    net.originate(9, BTreeSet::new());
    net.originate(3, blocks(3));
    net.run(SECOND);
    assert_eq!(rejected(&net), []);
    assert_eq!(net.node(1).lost, []);
}

#[test]
fn what_is_refused_is_not_told_on() {
    let mut net = guarded(|_| {});
    let mut peers = net.peers(1);
    for client in peers.iter_mut().filter(|peer| peer.asn == ASN) {
        client.route_reflector_client = true;
    }
    net.configure(1, peers, None);
    net.run(MINUTE);
    net.originate(2, blocks(2).into_iter().chain([prefix("10.65.3.1/32")]).collect());
    net.run(SECOND);
    let speaker = net.node(3).speaker.as_ref().unwrap();
    let view = speaker.routes(Family::Ipv4, Some(prefix("10.65.3.1/32"))).next().unwrap();
    let from: Vec<_> = view.paths.iter().map(|path| path.peer).collect();
    assert_eq!(from, [address(2, Family::Ipv4)], "by node 2 itself and not by way of node 1");
}

#[test]
fn a_route_that_comes_before_its_claim_is_used_in_the_turn_in_which_the_claim_is_heard() {
    let mut net = guarded(|_| {});
    let late = block(77, Family::Ipv4);
    net.originate(2, blocks(2).into_iter().chain([late]).collect());
    net.run(SECOND);
    assert_eq!(rejected(&net), [(late, Refusal::Unclaimed)]);
    net.input(1, Input::Origins(vec![held(late, 2)]));
    assert_eq!(net.node(1).kernel.get(&late), Some(&vec![address(2, Family::Ipv4)]));
    // And it goes with the owner, in the other's favour.
    net.originate(3, blocks(3).into_iter().chain([late]).collect());
    net.run(SECOND);
    assert_eq!(rejected(&net), [(late, Refusal::NotTheOwner)]);
    net.input(1, Input::Origins(vec![held(late, 3)]));
    assert_eq!(net.node(1).kernel.get(&late), Some(&vec![address(3, Family::Ipv4)]));
    assert_eq!(net.node(1).lost, [], "the kernel always had a route");
}

#[test]
fn a_store_that_forgets_claims_or_falls_silent_takes_no_route() {
    let mut net = guarded(|_| {});
    let forgotten = |number| OriginChange::Holder(block(number, Family::Ipv4), Some(Holder::Former(name(number))));
    net.input(1, Input::Origins(vec![forgotten(2), forgotten(3), OriginChange::Freshness(Freshness::Expired)]));
    let late = block(77, Family::Ipv4);
    net.originate(2, blocks(2).into_iter().chain([late]).collect());
    net.run(SECOND);
    let mut expected = routes_to([2, 3]);
    expected.insert(late, vec![address(2, Family::Ipv4)]);
    assert_eq!(net.node(1).kernel, expected);
    assert_eq!(net.node(1).lost, []);
    // What is in doubt gives way to what is not.
    net.originate(3, blocks(3).into_iter().chain([late]).collect());
    net.input(1, Input::Origins(vec![held(late, 3)]));
    net.run(SECOND);
    assert_eq!(net.node(1).kernel.get(&late), Some(&vec![address(3, Family::Ipv4)]));
}

#[test]
fn validation_that_warns_refuses_nothing_and_one_that_is_off_says_nothing() {
    for (validation, shown) in [(OriginValidation::Warn, 1), (OriginValidation::Off, 0)] {
        let mut net = guarded(|router| router.import.validation = validation);
        let stolen = prefix("10.65.2.1/32");
        net.originate(9, [stolen].into());
        net.run(SECOND);
        assert_eq!(net.node(1).kernel.get(&stolen), Some(&vec![address(9, Family::Ipv4)]));
        assert_eq!(rejected(&net).len(), shown, "{validation:?}");
        let mut peers = net.peers(1);
        peers.iter_mut().for_each(|peer| peer.import.validation = OriginValidation::Enforce);
        net.configure(1, peers, None);
        net.run(SECOND);
        assert_eq!(net.node(1).kernel, routes_to([2, 3]));
        let rounds = [(OriginValidation::Warn, 1), (OriginValidation::Off, 0), (OriginValidation::Warn, 1)];
        for (validation, shown) in rounds {
            let mut peers = net.peers(1);
            peers.iter_mut().for_each(|peer| peer.import.validation = validation);
            net.configure(1, peers, None);
            net.run(MINUTE);
            assert_eq!(net.node(1).kernel.get(&stolen), Some(&vec![address(9, Family::Ipv4)]), "{validation:?}");
            assert_eq!(rejected(&net).len(), shown, "{validation:?}, after another");
        }
        assert_eq!(downs(&net, 1, 9), [], "on the same session");
    }
}

#[test]
fn a_part_of_an_own_block_is_let_in_by_no_setting() {
    for validation in [OriginValidation::Enforce, OriginValidation::Warn, OriginValidation::Off] {
        let mut net = guarded(|router| router.import.validation = validation);
        let parts = ["10.65.1.0/27", "10.65.1.9/32"].map(prefix);
        net.originate(9, parts.into());
        net.run(SECOND);
        assert_eq!(net.node(1).kernel, routes_to([2, 3]), "{validation:?}");
        assert_eq!(rejected(&net), parts.map(|part| (part, Refusal::PartOfBlock)), "{validation:?}");
    }
}

/// Prefixes outside of every pool.
fn leaked(count: u32) -> BTreeSet<Prefix> {
    (0..count)
        .map(|number| Prefix::new(std::net::Ipv4Addr::from_bits(0x1400_0000 + (number << 8)).into(), 24).unwrap())
        .collect()
}

#[test]
fn a_router_that_leaks_a_table_costs_counters_and_no_session() {
    let mut net = guarded(|_| {});
    net.originate(9, leaked(50_000));
    net.run(MINUTE);
    let speaker = net.node(1).speaker.as_ref().unwrap();
    assert!(speaker.table_sizes().ipv4 < 1_100, "{:?}", speaker.table_sizes());
    let router = speaker.peers().find(|peer| peer.config.asn == asn(ROUTER)).unwrap();
    assert_eq!((router.not_kept.ipv4, router.routes.ipv4.refused), (50_000 - 1_024, 1_024));
    assert_eq!(router.refusals, [(Refusal::Import, 50_000)]);
    assert_eq!(downs(&net, 1, 9), []);
    net.originate(9, BTreeSet::new());
    net.run(SECOND);
    let speaker = net.node(1).speaker.as_ref().unwrap();
    let router = speaker.peers().find(|peer| peer.config.asn == asn(ROUTER)).unwrap();
    assert_eq!((router.not_kept.ipv4, router.routes.ipv4.refused), (0, 0));
    assert_eq!(net.node(1).kernel, routes_to([2, 3]));
}

#[test]
fn rfc2918_4_a_peer_is_asked_again_for_routes_that_were_not_kept_and_may_be_good_now() {
    let mut net = guarded(|_| {});
    let nobodys =
        |number: u32| Prefix::new(std::net::Ipv4Addr::from_bits(0x0a41_8000 + (number << 6)).into(), 26).unwrap();
    // There are only so many blocks in a /17.
    let many: BTreeSet<Prefix> = (0..512).map(nobodys).collect();
    let narrow = Range { cidr: prefix("10.65.128.0/17"), block_len: 28 };
    net.input(1, Input::Origins(vec![OriginChange::Ranges(vec![narrow])]));
    let parts = many.iter().flat_map(|block| {
        let std::net::IpAddr::V4(first) = block.addr() else { panic!() };
        (0..4).map(move |part| {
            Prefix::new(std::net::Ipv4Addr::from_bits(first.to_bits() + part * 16).into(), 28).unwrap()
        })
    });
    let parts: BTreeSet<Prefix> = parts.collect();
    net.originate(9, parts.clone());
    net.run(MINUTE);
    assert_eq!(net.node(1).kernel, routes_to([2, 3]));
    let last = *parts.last().unwrap();
    net.input(1, Input::Origins(vec![held(last, 2)]));
    net.run(SECOND);
    assert_eq!(net.node(1).kernel.get(&last), Some(&vec![address(9, Family::Ipv4)]));
    // The next time it is asked after a while: an answer is as long as a table.
    let first = *parts.iter().nth(1_500).unwrap();
    net.input(1, Input::Origins(vec![held(first, 2)]));
    net.run(SECOND);
    assert_eq!(net.node(1).kernel.get(&first), None);
    net.run(MINUTE);
    assert_eq!(net.node(1).kernel.get(&first), Some(&vec![address(9, Family::Ipv4)]));
    assert_eq!(downs(&net, 1, 9), []);
}

#[test]
fn beyond_its_limit_a_peers_routes_are_refused_and_taken_once_there_is_room() {
    let mut net = guarded(|router| {
        router.max_prefixes = Some(10);
        router.import.validation = OriginValidation::Off;
    });
    let some = |count: u8| (100..100 + count).map(|number| block(number, Family::Ipv4)).collect::<BTreeSet<_>>();
    let used = |net: &SimNet| net.node(1).kernel.len() - routes_to([2, 3]).len();
    net.originate(9, some(14));
    net.run(SECOND);
    assert_eq!(used(&net), 10);
    assert_eq!(rejected(&net).iter().filter(|(_, refusal)| *refusal == Refusal::OverLimit).count(), 4);
    let near = PeerEvent::NearLimit { family: Family::Ipv4, accepted: 10, limit: 10 };
    assert!(net.node(1).events.contains(&(address(9, Family::Ipv4), near)));
    // Those that it has in use can change, and the rest comes when some go.
    net.originate(9, some(14).into_iter().skip(6).collect());
    net.run(MINUTE);
    assert_eq!(used(&net), 8);
    assert_eq!(downs(&net, 1, 9), []);
    let mut peers = net.peers(1);
    peers.iter_mut().for_each(|peer| (peer.max_prefixes, peer.max_prefixes_action) = (Some(7), LimitAction::Restart));
    net.configure(1, peers, None);
    net.run(SECOND);
    assert_eq!((used(&net), downs(&net, 1, 9).len()), (0, 1), "a limit that ends the session");
}
