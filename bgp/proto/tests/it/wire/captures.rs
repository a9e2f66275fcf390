//! What FRR, BIRD and GoBGP really send. Each file in `tests/data` says where it comes from.

use bgp_proto::wire::{Capability, Message, Open, Packer, Update};
use types::Family;

use super::*;

/// The OPEN and the UPDATEs of a capture; everything in it can be read, and nothing in it is a fault.
fn capture(codec: Codec, hex: &str) -> (Open, Vec<Update>) {
    let (mut opens, mut updates) = (Vec::new(), Vec::new());
    for line in hex.lines().filter(|line| !line.starts_with('#')) {
        match codec.decode(&octets(line)).unwrap() {
            Message::Open(open) => opens.push(open),
            Message::Update(update) => updates.push(update),
            Message::Keepalive => {}
            other => panic!("{other:?}"),
        }
    }
    for update in &updates {
        assert_eq!(update.faults, []);
        assert_eq!(read_again(codec, update), update.reach);
    }
    let [open] = &opens[..] else { panic!("one OPEN") };
    assert_eq!(codec.decode(&open.encode()), Ok(Message::Open(open.clone())));
    (open.clone(), updates)
}

/// The routes of an UPDATE after they were sent on by us.
fn read_again(codec: Codec, update: &Update) -> Vec<bgp_proto::wire::Reach> {
    let mut packer = Packer::new(codec);
    for reach in &update.reach {
        let attributes = update.attributes.as_ref().unwrap();
        packer.reach(reach.next_hop, reach.link_local, attributes, reach.prefixes.iter().copied()).unwrap();
    }
    let again = properties::messages(codec, &packer.take().octets);
    again
        .into_iter()
        .flat_map(|message| match message {
            Message::Update(again) => {
                assert_eq!(again.attributes, update.attributes);
                again.reach
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Every announced prefix, with next hop and path.
fn announced(updates: &[Update]) -> Vec<String> {
    let mut routes = Vec::new();
    for update in updates {
        for reach in &update.reach {
            let path = &update.attributes.as_ref().unwrap().as_path;
            routes.extend(reach.prefixes.iter().map(|prefix| format!("{prefix} via {} path {path}", reach.next_hop)));
        }
    }
    routes.sort();
    routes
}

fn ends_of_rib(updates: &[Update]) -> Families {
    updates.iter().filter_map(|update| update.end_of_rib).collect()
}

const FRR_ROUTES: [&str; 5] = [
    "0.0.0.0/0 via 127.0.0.1 path 4200000001",
    "10.77.0.0/16 via 127.0.0.1 path 4200000001",
    "10.78.1.0/24 via 127.0.0.1 path 4200000001",
    "2001:db8:1:2::/64 via 2001:db8::2 path 4200000001 65001 65002",
    "fd77::/48 via 2001:db8::2 path 4200000001 65001 65002",
];

#[test]
fn frr_in_four_octets() {
    let (open, updates) = capture(EXTERNAL, include_str!("../../data/frr.hex"));
    assert_eq!((open.asn, open.router_id.to_string()), (asn(4_200_000_001), "10.0.0.2".to_owned()));
    assert_eq!((open.hold_time.secs(), open.families()), (180, Families::ALL));
    assert!(open.four_octet_as() && open.route_refresh());
    assert_eq!(open.graceful_restart().unwrap().families(), Families::ALL);
    assert_eq!(announced(&updates), FRR_ROUTES);
    assert_eq!(ends_of_rib(&updates), Families::ALL);
    let marked = updates.iter().filter_map(|update| update.attributes.as_ref()).find(|a| a.med == Some(77)).unwrap();
    assert_eq!(marked.communities, [0xfc00_0001]);
    assert_eq!(marked.unknown.iter().map(|unknown| unknown.code).collect::<Vec<_>>(), [32]);
    assert_eq!(marked.origin.to_string(), "incomplete");
}

#[test]
fn rfc6793_4_2_3_frr_in_two_octets_means_the_same_routes() {
    let (_, two) = capture(TWO_OCTETS, include_str!("../../data/frr-two-octets.hex"));
    let (_, four) = capture(EXTERNAL, include_str!("../../data/frr.hex"));
    assert_eq!(announced(&two), FRR_ROUTES);
    let attributes = |updates: &[Update]| {
        let mut all: Vec<_> = updates.iter().filter_map(|update| update.attributes.clone()).collect();
        all.sort();
        all
    };
    assert_eq!(attributes(&two), attributes(&four));
}

#[test]
fn bird_as_a_reflector_in_two_octets() {
    let codec = Codec { four_octet_as: false, ..INTERNAL };
    let (open, updates) = capture(codec, include_str!("../../data/bird.hex"));
    assert_eq!((open.asn, open.router_id.to_string()), (Asn::DEFAULT, "10.0.0.3".to_owned()));
    assert!(open.capabilities.contains(&Capability::Unknown { code: 70, value: vec![] }), "enhanced route refresh");
    assert_eq!(
        announced(&updates),
        ["10.88.0.0/20 via 192.0.2.3 path ", "10.88.64.0/26 via 192.0.2.3 path ", "fd88::/122 via 2001:db8::3 path ",]
    );
    let local_prefs: Vec<_> = updates.iter().filter_map(|update| update.attributes.as_ref()?.local_pref).collect();
    assert_eq!(local_prefs, [250, 100]);
    assert_eq!(ends_of_rib(&updates), Families::ALL);
}

#[test]
fn gobgp_in_four_octets() {
    let (open, updates) = capture(EXTERNAL, include_str!("../../data/gobgp.hex"));
    assert_eq!((open.asn, open.families()), (asn(65_010), Families::ALL));
    assert_eq!(open.graceful_restart().unwrap().time, std::time::Duration::from_secs(120));
    assert_eq!(announced(&updates), ["10.99.0.0/24 via 127.0.0.1 path 65010", "fd99::/64 via 2001:db8::4 path 65010",]);
    let ends: Vec<_> = updates.iter().filter_map(|update| update.end_of_rib).collect();
    assert_eq!(ends, [Family::Ipv6, Family::Ipv4]);
}
