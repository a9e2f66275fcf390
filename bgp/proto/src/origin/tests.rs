use types::RouterId;

use super::*;
use crate::wire::{AsPath, PathAttributes};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn address(node: u8) -> IpAddr {
    [192, 0, 2, node].into()
}

fn name(node: u8) -> NodeName {
    format!("n{node}").parse().unwrap()
}

/// Nodes 1 to 4 of AS 64501 to 64504, of which 1 is this one. Node N has 10.42.N.0/26 and IPv6 fd00:42::N00/122, and node 3 has
/// borrowed 10.42.2.9 from node 2 and 10.42.1.9 from this one.
fn origins() -> Origins {
    let mut origins = Origins::default();
    let ranges = [("10.42.0.0/16", 26), ("fd00:42::/64", 122)];
    origins
        .apply(OriginChange::Ranges(ranges.map(|(cidr, block_len)| Range { cidr: prefix(cidr), block_len }).to_vec()));
    let node = |node| OriginNode {
        name: name(node),
        addresses: vec![address(node), format!("2001:db8::{node}").parse().unwrap()],
        asn: asn(64_500 + u32::from(node)),
    };
    origins.apply(OriginChange::Nodes((1..=4).map(node).collect()));
    for node in 1..=4 {
        let holder = if node == 1 { Holder::Own } else { Holder::Node(name(node)) };
        for block in [format!("10.42.{node}.0/26"), format!("fd00:42::{node}00/122")] {
            origins.apply(OriginChange::Holder(prefix(&block), Some(holder.clone())));
        }
    }
    for lent in ["10.42.2.9/32", "10.42.1.9/32"] {
        origins.apply(OriginChange::Holder(prefix(lent), Some(Holder::Node(name(3)))));
    }
    origins
}

/// What an UPDATE says beside its prefixes.
struct Said {
    role: PeerRole,
    peer: IpAddr,
    next_hop: IpAddr,
    as_path: Vec<u32>,
    originator: Option<u8>,
    aggregates: Vec<Prefix>,
}

impl Said {
    /// A node of itself.
    fn by(node: u8) -> Self {
        let (peer, next_hop) = (address(node), address(node));
        Self { role: PeerRole::Node, peer, next_hop, as_path: Vec::new(), originator: None, aggregates: Vec::new() }
    }

    /// A router, of AS 65000.
    fn by_router() -> Self {
        let router = [198, 51, 100, 1].into();
        Self { role: PeerRole::Fabric, peer: router, next_hop: router, as_path: vec![65_000], ..Self::by(1) }
    }

    /// A reflector, which is node 4, of a route of this node's.
    fn reflected(node: u8) -> Self {
        Self { role: PeerRole::Reflector, peer: address(4), originator: Some(node), ..Self::by(node) }
    }

    fn judged(&self, origins: &Origins, text: &str) -> Validity {
        let import = PeerImport { aggregates: self.aggregates.clone(), ..PeerImport::new(self.role) };
        let path = PathAttributes {
            as_path: AsPath::sequence(self.as_path.iter().copied().map(asn)),
            originator_id: self.originator.map(|node| RouterId::new([192, 0, 2, node].into()).unwrap()),
            ..PathAttributes::default()
        };
        let attributes = RouteAttributes { path, next_hop: Some(self.next_hop) };
        origins.judge(&prefix(text), &Voice { import: &import, peer: self.peer, attributes: &attributes })
    }

    fn is_refused(&self, origins: &Origins, text: &str, refusal: Refusal) {
        assert_eq!(self.judged(origins, text), Validity::Invalid(refusal), "{text} by {}", self.peer);
    }

    fn is_valid(&self, origins: &Origins, text: &str) {
        assert_eq!(self.judged(origins, text), Validity::Valid, "{text} by {}", self.peer);
    }
}

#[test]
fn a_node_speaks_for_its_own_blocks_and_for_what_it_has_borrowed() {
    let origins = origins();
    for own in ["10.42.3.0/26", "fd00:42::300/122", "10.42.2.9/32", "10.42.1.9/32"] {
        Said::by(3).is_valid(&origins, own);
    }
    for (anothers, refusal) in [
        ("10.42.2.0/26", Refusal::NotTheOwner),
        ("10.42.1.0/26", Refusal::OwnBlock),
        ("10.42.1.1/32", Refusal::PartOfBlock),
        ("10.42.2.8/32", Refusal::PartOfBlock),
        ("10.42.3.1/32", Refusal::PartOfBlock),
        ("10.42.3.0/27", Refusal::PartOfBlock),
        ("10.42.9.0/26", Refusal::Unclaimed),
        ("10.42.2.0/24", Refusal::NotABlock),
        ("10.42.9.1/32", Refusal::NotABlock),
    ] {
        Said::by(3).is_refused(&origins, anothers, refusal);
    }
    let elsewhere = Said { next_hop: address(2), ..Said::by(3) };
    elsewhere.is_refused(&origins, "10.42.3.0/26", Refusal::NextHop);
    Said { as_path: vec![64_503, 64_503], ..Said::by(3) }.is_valid(&origins, "10.42.3.0/26");
    Said { as_path: vec![64_503, 64_502], ..Said::by(3) }.is_refused(&origins, "10.42.3.0/26", Refusal::AsPath);
}

#[test]
fn what_no_range_covers_is_not_judged() {
    let origins = origins();
    for other in ["10.43.0.0/26", "0.0.0.0/0", "10.0.0.0/8", "fd00:43::/122"] {
        assert_eq!(Said::by(3).judged(&origins, other), Validity::NotCovered, "{other}");
    }
}

#[test]
fn rfc4456_10_a_reflector_leaves_next_hop_and_originator_as_the_owner_said_them() {
    let origins = origins();
    Said::reflected(2).is_valid(&origins, "10.42.2.0/26");
    Said { originator: None, ..Said::reflected(2) }.is_valid(&origins, "10.42.2.0/26");
    // The identifier of a node without an IPv4 address is drawn, and nobody's.
    Said { originator: Some(77), ..Said::reflected(2) }.is_valid(&origins, "10.42.2.0/26");
    Said { next_hop: address(4), ..Said::reflected(2) }.is_refused(&origins, "10.42.2.0/26", Refusal::NextHop);
    Said { originator: Some(3), ..Said::reflected(2) }.is_refused(&origins, "10.42.2.0/26", Refusal::Originator);
    // Its own block is the reflector's like any other node's.
    Said::reflected(4).is_valid(&origins, "10.42.4.0/26");
}

#[test]
fn through_the_fabric_the_prefix_counts_and_what_another_node_is_named_for() {
    let origins = origins();
    let router = Said::by_router();
    router.is_valid(&origins, "10.42.2.0/26");
    router.is_refused(&origins, "10.42.2.1/32", Refusal::PartOfBlock);
    router.is_refused(&origins, "10.42.1.0/26", Refusal::OwnBlock);
    // A next hop on a shared subnet stays.
    Said { next_hop: address(2), ..Said::by_router() }.is_valid(&origins, "10.42.2.0/26");
    Said { next_hop: address(3), ..Said::by_router() }.is_refused(&origins, "10.42.2.0/26", Refusal::NextHop);
    let by_path = |as_path| Said { as_path, ..Said::by_router() };
    by_path(vec![65_000, 64_502]).is_valid(&origins, "10.42.2.0/26");
    by_path(vec![65_000, 65_001]).is_valid(&origins, "10.42.2.0/26");
    by_path(vec![65_000, 64_503]).is_refused(&origins, "10.42.2.0/26", Refusal::AsPath);
    // A node that passes others' routes on is their next hop.
    let relayed = Said {
        role: PeerRole::Relay,
        as_path: vec![64_504, 64_502],
        next_hop: address(4),
        peer: address(4),
        ..Said::by(4)
    };
    relayed.is_valid(&origins, "10.42.2.0/26");
    Said { next_hop: address(3), ..relayed }.is_refused(&origins, "10.42.2.0/26", Refusal::NextHop);
}

#[test]
fn a_pod_that_is_a_router_speaks_for_nothing_inside_of_pools_whatever_is_known_of_claims() {
    let mut origins = origins();
    let pod: IpAddr = [10, 42, 1, 7].into();
    let said = || Said { role: PeerRole::Pod, peer: pod, next_hop: pod, as_path: vec![65_010], ..Said::by(1) };
    for freshness in [Freshness::Live, Freshness::Expired] {
        origins.apply(OriginChange::Freshness(freshness));
        for (prefix, refusal) in [
            ("10.42.1.7/32", Refusal::PartOfBlock),
            ("10.42.1.0/26", Refusal::OwnBlock),
            ("10.42.2.0/26", Refusal::NotTheOwner),
            ("10.42.9.0/26", Refusal::Unclaimed),
        ] {
            said().is_refused(&origins, prefix, refusal);
        }
    }
    origins.apply(OriginChange::Holder(prefix("10.42.2.0/26"), Some(Holder::Former(name(2)))));
    said().is_refused(&origins, "10.42.2.0/26", Refusal::Unclaimed);
    assert_eq!(said().judged(&origins, "198.51.100.0/24"), Validity::NotCovered);
}

#[test]
fn an_aggregate_is_good_from_a_peer_for_which_it_is_listed_and_only_as_it_is_listed() {
    let origins = origins();
    let aggregates = vec![prefix("10.42.2.0/23"), prefix("10.42.2.0/27"), prefix("10.42.1.0/26")];
    let router = Said { aggregates, ..Said::by_router() };
    router.is_valid(&origins, "10.42.2.0/23");
    router.is_refused(&origins, "10.42.2.0/24", Refusal::NotABlock);
    Said::by_router().is_refused(&origins, "10.42.2.0/23", Refusal::NotABlock);
    // Neither a part of a block nor this node's own is an aggregate of others' blocks.
    router.is_refused(&origins, "10.42.2.0/27", Refusal::PartOfBlock);
    router.is_refused(&origins, "10.42.1.0/26", Refusal::OwnBlock);
}

#[test]
fn what_claims_cannot_tell_is_in_doubt_and_not_refused() {
    let mut origins = origins();
    origins.apply(OriginChange::Holder(prefix("10.42.8.0/26"), Some(Holder::Unreadable)));
    assert_eq!(Said::by(3).judged(&origins, "10.42.8.0/26"), Validity::Unknown);
    // A store that forgets a claim does not take the route: its last owner's counts until another claims the block.
    origins.apply(OriginChange::Holder(prefix("10.42.3.0/26"), Some(Holder::Former(name(3)))));
    assert_eq!(Said::by(3).judged(&origins, "10.42.3.0/26"), Validity::Unknown);
    Said::by(2).is_refused(&origins, "10.42.3.0/26", Refusal::Unclaimed);
    // What is not known to be claimed may have been since the store was heard of last, by whoever has it as next hop.
    origins.apply(OriginChange::Freshness(Freshness::Stale));
    assert_eq!(Said::by(3).judged(&origins, "10.42.9.0/26"), Validity::Unknown);
    Said { next_hop: address(2), ..Said::by(3) }.is_refused(&origins, "10.42.9.0/26", Refusal::Unclaimed);
    Said::by(3).is_refused(&origins, "10.42.2.0/26", Refusal::NotTheOwner);
    // And blocks may have changed hands.
    origins.apply(OriginChange::Freshness(Freshness::Expired));
    assert_eq!(Said::by(3).judged(&origins, "10.42.2.0/26"), Validity::Unknown);
    Said::by(3).is_refused(&origins, "10.42.2.1/32", Refusal::PartOfBlock);
    Said::by(3).is_refused(&origins, "10.42.1.0/26", Refusal::OwnBlock);
}

#[test]
fn a_refusal_says_whose_the_block_is() {
    let origins = origins();
    for (text, refusal, said) in [
        ("10.42.2.1/32", Refusal::PartOfBlock, "refused: part of node n2's block 10.42.2.0/26"),
        ("10.42.1.1/32", Refusal::PartOfBlock, "refused: part of this node's own block 10.42.1.0/26"),
        ("10.42.2.0/26", Refusal::NotTheOwner, "refused: the block is node n2's, and the peer is not"),
        ("10.42.9.0/26", Refusal::Unclaimed, "refused: no node has claimed the block"),
    ] {
        assert_eq!(origins.explain(&prefix(text), refusal), said);
    }
}

#[test]
fn a_refusal_survives_its_number() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_number(refusal as u8), Some(refusal));
        assert_eq!(Refusal::ALL.get(refusal.place()), Some(&refusal));
    }
    assert_eq!(Refusal::from_number(0), None);
}
