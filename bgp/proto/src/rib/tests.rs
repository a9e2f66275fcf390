//! The tables as a whole, against the simplest model of them: what peers were told is what follows from the last state.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use types::{Asn, ClusterId};

use super::*;
use crate::policy::{Audience, SharedSubnet};
use crate::wire::{AsPath, Codec, Families, Message, PathAttributes, PeerType, frame_length};

const READER: PeerIndex = PeerIndex(9);

fn prefix(number: u8) -> Prefix {
    Prefix::new([10, 65, number, 0].into(), 26).unwrap()
}

fn next_hop(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn route(peer: u8, pref: u32) -> RouteAttributes {
    let path = PathAttributes { local_pref: Some(pref), ..PathAttributes::default() };
    RouteAttributes { path, next_hop: Some(next_hop(peer)) }
}

/// A table with peers 1 to 4, whose next hops can be reached.
fn rib() -> Rib {
    let pools = vec!["10.65.0.0/16".parse().unwrap()];
    let mut rib = Rib::new(ImportPolicy { pools, prefixes: Vec::new() });
    for number in 1..=4 {
        rib.add_peer(PeerIndex(number.into()), next_hop(number));
        rib.set_router_id(PeerIndex(number.into()), RouterId::new([192, 0, 2, number].into()).unwrap());
        // A route of each keeps its next hop known.
        let keeper = Prefix::host([10, 65, 255, number].into());
        rib.announce(PeerIndex(number.into()), Source::External, route(number, 1), [keeper]);
        rib.set_next_hop(NextHopState { address: next_hop(number), metric: Some(0) });
    }
    rib.add_peer(READER, next_hop(99));
    rib.settle(|_| {});
    rib
}

fn to_clients() -> ExportPolicy {
    ExportPolicy {
        family: Family::Ipv4,
        codec: Codec { four_octet_as: true, peer_type: PeerType::Internal, families: Families::ALL },
        audience: Audience::Internal { reflector: Some(ClusterId(Ipv4Addr::new(1, 1, 1, 1))), clients: true },
        own_next_hop: next_hop(100),
    }
}

fn to_router(transit: Option<SharedSubnet>) -> ExportPolicy {
    ExportPolicy {
        codec: Codec { peer_type: PeerType::External, ..to_clients().codec },
        audience: Audience::External { remote: asn(65_001), local: Asn::DEFAULT, transit },
        ..to_clients()
    }
}

/// What a peer knows that is sent `octets`.
#[derive(Default, Debug, PartialEq)]
struct Told {
    routes: BTreeMap<Prefix, (PathAttributes, IpAddr)>,
    ended: u32,
    updates: u32,
}

impl Told {
    fn read(&mut self, rib: &mut Rib, group: GroupId, may_end: bool, mut budget: usize) -> bool {
        let codec = rib.group(group).unwrap().policy().codec;
        let mut out = Vec::new();
        rib.transmit(READER, group, may_end, &mut out, &mut budget);
        let idle = out.is_empty();
        for mut run in out {
            while let Some(length) = frame_length(&run).unwrap() {
                let Message::Update(update) = codec.decode(&run.split_to(length)).unwrap() else { panic!() };
                assert!(update.faults.is_empty(), "{:?}", update.faults);
                self.updates += 1;
                for prefix in update.withdrawn {
                    self.routes.remove(&prefix);
                }
                for reach in update.reach {
                    for prefix in reach.prefixes {
                        self.routes.insert(prefix, (update.attributes.clone().unwrap(), reach.next_hop));
                    }
                }
                self.ended += u32::from(update.end_of_rib.is_some());
            }
        }
        idle
    }

    fn read_all(&mut self, rib: &mut Rib, group: GroupId) {
        while !self.read(rib, group, true, 64 * 1024) {}
    }
}

#[test]
fn rfc4724_4_a_peer_that_joins_is_sent_the_table_and_then_end_of_rib_once_it_may_end() {
    let mut rib = rib();
    rib.announce(PeerIndex(1), Source::Client, route(1, 100), (0..200).map(prefix));
    rib.settle(|_| {});
    let group = rib.join(READER, to_clients(), true);
    let mut told = Told::default();
    while !told.read(&mut rib, group, false, 100) {}
    assert_eq!((told.routes.len(), told.ended), (200, 0));
    told.read_all(&mut rib, group);
    assert_eq!(told.ended, 1);
    let (attributes, address) = told.routes.get(&prefix(7)).unwrap();
    assert_eq!(*address, next_hop(1), "RFC 4456 section 10: the next hop stays");
    assert_eq!(attributes.originator_id.map(RouterId::addr), Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(attributes.cluster_list, [ClusterId(Ipv4Addr::new(1, 1, 1, 1))]);
}

#[test]
fn many_changes_of_one_round_are_packed_into_few_updates() {
    let mut rib = rib();
    let group = rib.join(READER, to_clients(), false);
    let mut told = Told::default();
    told.read_all(&mut rib, group);
    for number in 0..200 {
        rib.announce(PeerIndex(1), Source::Client, route(1, 100), [prefix(number)]);
    }
    rib.settle(|_| {});
    told.read_all(&mut rib, group);
    assert_eq!((told.routes.len(), told.updates), (200, 1));
}

#[test]
fn a_change_that_is_taken_back_within_a_round_is_told_to_nobody() {
    let mut rib = rib();
    rib.announce(PeerIndex(1), Source::Client, route(1, 100), [prefix(1)]);
    rib.settle(|_| {});
    let group = rib.join(READER, to_clients(), false);
    let mut told = Told::default();
    told.read_all(&mut rib, group);
    let before = told.updates;
    rib.withdraw(PeerIndex(1), [prefix(1)]);
    rib.announce(PeerIndex(2), Source::Client, route(2, 900), [prefix(1)]);
    rib.withdraw(PeerIndex(2), [prefix(1)]);
    rib.announce(PeerIndex(1), Source::Client, route(1, 100), [prefix(1)]);
    let mut fib = Vec::new();
    rib.settle(|update| fib.push(update));
    told.read_all(&mut rib, group);
    assert_eq!((told.updates, fib), (before, Vec::new()));
}

#[test]
fn a_slow_peer_that_changes_groups_is_told_what_was_withdrawn_before_it_read_that() {
    let mut rib = rib();
    rib.originate((0..4).map(prefix).collect());
    rib.settle(|_| {});
    let internal = ExportPolicy { audience: Audience::Internal { reflector: None, clients: false }, ..to_clients() };
    let group = rib.join(READER, internal, true);
    let mut told = Told::default();
    told.read_all(&mut rib, group);
    assert_eq!(told.routes.len(), 4);
    rib.originate([prefix(0)].into());
    rib.settle(|_| {});
    // It has read nothing of this when we become a reflector.
    let untold = rib.untold(READER, group);
    assert_eq!(untold, (1..4).map(prefix).collect::<Vec<_>>());
    rib.leave(READER, group);
    let group = rib.join(READER, to_clients(), true);
    rib.miss(READER, group, untold);
    told.read_all(&mut rib, group);
    assert!((1..4).all(|number| !told.routes.contains_key(&prefix(number))), "{:?}", told.routes.keys());
    assert!(told.routes.contains_key(&prefix(0)));
}

#[test]
fn equal_routes_share_the_load_and_the_kernel_is_told_all_next_hops_in_order() {
    let mut rib = rib();
    for number in [3, 1, 2] {
        rib.announce(PeerIndex(number.into()), Source::Internal, route(number, 100), [prefix(1)]);
    }
    let mut fib = Vec::new();
    rib.settle(|update| fib.push(update));
    let next_hops = [1, 2, 3].map(next_hop).to_vec();
    assert_eq!(fib, [FibUpdate::Set { prefix: prefix(1), next_hops }]);
    fib.clear();
    rib.set_next_hop(NextHopState { address: next_hop(2), metric: None });
    rib.settle(|update| fib.push(update));
    assert!(fib.contains(&FibUpdate::Set { prefix: prefix(1), next_hops: vec![next_hop(1), next_hop(3)] }));
    let view: Vec<_> = rib.routes(Family::Ipv4, Some(prefix(1))).collect();
    let verdicts: Vec<_> = view[0].paths.iter().map(|path| (path.peer, path.verdict.to_string())).collect();
    assert_eq!(
        verdicts,
        [
            (next_hop(1), "best".to_owned()),
            (next_hop(3), "equal cost (best by router id)".to_owned()),
            (next_hop(2), "next hop unreachable".to_owned()),
        ]
    );
}

#[test]
fn an_own_prefix_is_not_given_to_the_kernel_and_wins_over_a_learned_one() {
    let mut rib = rib();
    let mut fib = Vec::new();
    rib.announce(PeerIndex(1), Source::Internal, route(1, 900), [prefix(1)]);
    rib.settle(|update| fib.push(update));
    rib.originate([prefix(1)].into());
    rib.settle(|update| fib.push(update));
    assert_eq!(fib.last(), Some(&FibUpdate::Withdraw { prefix: prefix(1) }));
    let group = rib.join(READER, to_router(None), false);
    let mut told = Told::default();
    told.read_all(&mut rib, group);
    let (attributes, address) = told.routes.get(&prefix(1)).unwrap();
    assert_eq!((&attributes.as_path, *address), (&AsPath::sequence([Asn::DEFAULT]), next_hop(100)));
    rib.originate(BTreeSet::new());
    rib.settle(|update| fib.push(update));
    assert_eq!(fib.last(), Some(&FibUpdate::Set { prefix: prefix(1), next_hops: vec![next_hop(1)] }));
}

#[test]
fn refused_routes_are_counted_shown_and_used_once_policy_accepts_them() {
    let mut rib = rib();
    let peer = PeerIndex(1);
    let outside: Prefix = "203.0.113.0/24".parse().unwrap();
    let group = rib.join(READER, to_router(Some(SharedSubnet(None))), false);
    let mut told = Told::default();
    rib.announce(peer, Source::External, route(1, 100), [outside]);
    let mut fib = Vec::new();
    rib.settle(|update| fib.push(update));
    assert!(fib.is_empty());
    assert_eq!(rib.counts(peer, Family::Ipv4).refused, 1);
    assert_eq!(
        rib.routes(Family::Ipv4, Some(outside)).next().unwrap().paths[0].verdict.to_string(),
        "refused by import policy"
    );

    let import = ImportPolicy { prefixes: vec![outside], ..rib.rules.import.clone() };
    rib.set_import(import.clone());
    rib.settle(|update| fib.push(update));
    assert_eq!((fib.len(), rib.counts(peer, Family::Ipv4).refused), (1, 0));
    told.read_all(&mut rib, group);
    assert!(!told.routes.contains_key(&outside), "used, but in no pool, so not told to routers");

    rib.set_import(ImportPolicy { pools: vec![outside], prefixes: Vec::new() });
    rib.settle(|update| fib.push(update));
    told.read_all(&mut rib, group);
    assert_eq!(told.routes.keys().collect::<Vec<_>>(), [&outside], "the old pool is none any more");
    rib.set_import(import);
    rib.settle(|_| {});
    told.read_all(&mut rib, group);
    assert!(!told.routes.contains_key(&outside));
}

#[test]
fn nothing_is_left_of_routes_that_are_gone() {
    let mut rib = rib();
    for number in 1..=4 {
        rib.announce(PeerIndex(number.into()), Source::Client, route(number, 100), (0..50).map(prefix));
    }
    rib.settle(|_| {});
    rib.keep_stale(PeerIndex(1), Family::Ipv4);
    assert_eq!(rib.counts(PeerIndex(1), Family::Ipv4).stale, 51);
    rib.announce(PeerIndex(1), Source::Client, route(1, 100), [prefix(0)]);
    assert_eq!(rib.counts(PeerIndex(1), Family::Ipv4).stale, 50);
    rib.doom(PeerIndex(1), Family::Ipv4, Extent::Stale);
    rib.settle(|_| {});
    assert_eq!(rib.counts(PeerIndex(1), Family::Ipv4), RouteCounts { received: 1, refused: 0, stale: 0 });
    for number in 1..=4 {
        rib.doom_peer(PeerIndex(number));
    }
    rib.settle(|_| {});
    assert_eq!((rib.prefixes(Family::Ipv4), rib.attribute_sets()), (0, 0));
    assert_eq!(rib.watches(), [], "no watch was handed out that would have to end");
    assert!(rib.is_settled());
}

#[derive(Debug, Clone)]
enum Op {
    Announce { peer: u8, number: u8, pref: u32, client: bool },
    Withdraw { peer: u8, number: u8 },
    Lose { peer: u8 },
    NextHop { peer: u8, reachable: bool },
    Originate { number: u8 },
    Settle,
    Read { budget: usize },
    Rejoin,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..=4_u8, 0..6_u8, 0..3_u32, any::<bool>())
            .prop_map(|(peer, number, pref, client)| Op::Announce { peer, number, pref, client }),
        3 => (1..=4_u8, 0..6_u8).prop_map(|(peer, number)| Op::Withdraw { peer, number }),
        1 => (1..=4_u8).prop_map(|peer| Op::Lose { peer }),
        1 => (1..=4_u8, any::<bool>()).prop_map(|(peer, reachable)| Op::NextHop { peer, reachable }),
        1 => (0..6_u8).prop_map(|number| Op::Originate { number }),
        3 => Just(Op::Settle),
        3 => (1..200_usize).prop_map(|budget| Op::Read { budget }),
        1 => Just(Op::Rejoin),
    ]
}

proptest! {
    /// Whatever happened in between, however slowly the peer read, and even if the log was cut under it.
    #[test]
    fn what_a_peer_was_told_and_what_the_kernel_does_follow_from_the_last_state(
        ops in proptest::collection::vec(op(), 1..120),
        log_limit in prop_oneof![Just(0_usize), Just(150), Just(1 << 20)],
    ) {
        let mut rib = rib();
        rib.log_limit = log_limit;
        let mut group = rib.join(READER, to_clients(), true);
        // A second member that reads nothing keeps the log from being trimmed.
        rib.add_peer(PeerIndex(8), next_hop(98));
        rib.join(PeerIndex(8), to_clients(), true);
        let mut told = Told::default();
        let mut kernel = BTreeMap::new();
        for op in ops {
            match op {
                Op::Announce { peer, number, pref, client } => {
                    let source = if client { Source::Client } else { Source::Internal };
                    rib.announce(PeerIndex(peer.into()), source, route(peer, pref), [prefix(number)]);
                }
                Op::Withdraw { peer, number } => rib.withdraw(PeerIndex(peer.into()), [prefix(number)]),
                Op::Lose { peer } => {
                    rib.doom(PeerIndex(peer.into()), Family::Ipv4, Extent::All);
                    rib.sweep();
                    let keeper = Prefix::host([10, 65, 255, peer].into());
                    rib.announce(PeerIndex(peer.into()), Source::External, route(peer, 1), [keeper]);
                    rib.set_next_hop(NextHopState { address: next_hop(peer), metric: Some(0) });
                }
                Op::NextHop { peer, reachable } => {
                    rib.set_next_hop(NextHopState { address: next_hop(peer), metric: reachable.then_some(0) });
                }
                Op::Originate { number } => rib.originate([prefix(number)].into()),
                Op::Settle => { rib.settle(|update| apply(&mut kernel, update)); }
                Op::Read { budget } => {
                    rib.settle(|update| apply(&mut kernel, update));
                    told.read(&mut rib, group, false, budget);
                }
                Op::Rejoin => {
                    rib.leave(READER, group);
                    group = rib.join(READER, to_clients(), true);
                    told = Told::default();
                }
            }
        }
        rib.settle(|update| apply(&mut kernel, update));
        told.read_all(&mut rib, group);
        prop_assert_eq!(told.ended, 1);

        let fresh = rib.join(PeerIndex(7), to_clients(), false);
        prop_assert_eq!(fresh, group);
        rib.leave(READER, group);
        rib.join(READER, to_clients(), false);
        let mut expected = Told::default();
        expected.read_all(&mut rib, group);
        prop_assert_eq!(&told.routes, &expected.routes);

        for view in rib.routes(Family::Ipv4, None) {
            let mut used: Vec<_> = view.paths.iter().filter(|p| p.verdict.is_used()).map(|p| p.next_hop).collect();
            used.sort_unstable();
            let used = if view.own { None } else { Some(used).filter(|used| !used.is_empty()) };
            // The keepers' routes went in before the kernel was watched.
            if view.prefix.len() == 26 {
                prop_assert_eq!(kernel.remove(&view.prefix), used);
            }
        }
        kernel.retain(|prefix: &Prefix, _| prefix.len() == 26);
        prop_assert_eq!(kernel, BTreeMap::new());
    }
}

fn apply(kernel: &mut BTreeMap<Prefix, Vec<IpAddr>>, update: FibUpdate) {
    match update {
        FibUpdate::Set { prefix, next_hops } => {
            kernel.insert(prefix, next_hops);
        }
        FibUpdate::Withdraw { prefix } => {
            assert!(kernel.remove(&prefix).is_some() || prefix.is_host());
        }
        FibUpdate::InSync { .. } => {}
    }
}

#[test]
fn a_listing_that_is_begun_behind_any_prefix_is_the_rest_of_the_whole_one() {
    let mut rib = rib();
    let texts = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.65.0.0/16",
        "10.65.0.0/26",
        "10.65.0.1/32",
        "10.65.0.63/32",
        "10.65.1.0/24",
        "128.0.0.0/1",
        "192.0.2.0/24",
        "255.255.255.255/32",
        "::/0",
        "fd00::/8",
        "fd00:65::/122",
        "fd00:65::1/128",
        "ffff::/16",
    ];
    let prefixes: Vec<Prefix> = texts.map(|text| text.parse().unwrap()).to_vec();
    rib.announce(PeerIndex(1), Source::External, route(1, 100), prefixes);
    rib.settle(|_| {});
    for family in Family::ALL {
        let all: Vec<Prefix> = rib.routes(family, None).map(|route| route.prefix).collect();
        for (place, prefix) in all.iter().enumerate() {
            let rest: Vec<Prefix> = rib.routes_after(family, Some(*prefix)).map(|route| route.prefix).collect();
            assert_eq!(rest, all[place + 1..], "behind {prefix}");
        }
        let absent: Prefix = if family == Family::Ipv4 { "10.65.0.2/32" } else { "fd00:65::2/128" }.parse().unwrap();
        let rest: Vec<Prefix> = rib.routes_after(family, Some(absent)).map(|route| route.prefix).collect();
        let expected = all.iter().position(|prefix| *prefix > absent && !prefix.covers(&absent)).unwrap_or(all.len());
        assert_eq!(rest, all[expected..], "behind what is not there");
    }
}
