//! Messages as octets and as values, each pair checked in both directions. The octets are put together by hand from the
//! layouts in the RFCs; those of other speakers are in `captures`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp_proto::wire::{
    AfiSafi, Aggregator, AsPath, Capability, Cease, Codec, ErrorCode, Families, FsmError, GracefulRestart, HoldTime,
    Message, MessageType, Notification, Open, OpenError, Origin, Packer, Partial, PathAttributes, Reach, RestartFamily,
    RouteRefresh, SegmentKind, UnknownAttribute, Update, frame_length, keepalive,
};
use types::{ClusterId, Family, Prefix};

use super::*;

fn decode(codec: Codec, octets: &[u8]) -> Message {
    assert_eq!(frame_length(octets), Ok(Some(octets.len())));
    codec.decode(octets).unwrap()
}

fn decode_update(codec: Codec, octets: &[u8]) -> Update {
    match decode(codec, octets) {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}

/// The UPDATEs that a value takes.
fn encode_update(codec: Codec, update: &Update) -> Vec<u8> {
    let mut packer = Packer::new(codec);
    if let Some(family) = update.end_of_rib {
        packer.end_of_rib(family);
    }
    for family in Family::ALL {
        packer.withdraw(family, update.withdrawn.iter().copied());
    }
    for reach in &update.reach {
        let attributes = update.attributes.as_ref().unwrap();
        packer.reach(reach.next_hop, reach.link_local, attributes, reach.prefixes.iter().copied()).unwrap();
    }
    packer.take().octets.to_vec()
}

/// The octets and the value are each other's.
fn pair(codec: Codec, octets: &[u8], update: &Update) {
    assert_eq!(decode_update(codec, octets), *update);
    assert_eq!(encode_update(codec, update), octets);
}

fn ipv4_reach<const N: usize>(next_hop: &str, texts: [&str; N]) -> Vec<Reach> {
    let next_hop: Ipv4Addr = next_hop.parse().unwrap();
    vec![Reach { family: Family::Ipv4, next_hop: next_hop.into(), link_local: None, prefixes: prefixes(texts) }]
}

#[test]
fn rfc4271_4_4_keepalive_is_a_header_alone() {
    let octets = message(4, "");
    assert_eq!(decode(INTERNAL, &octets), Message::Keepalive);
    assert_eq!(keepalive()[..], octets);
    assert_eq!(Message::Keepalive.kind(), MessageType::Keepalive);
}

#[test]
fn rfc4271_4_2_and_rfc4724_3_and_rfc4760_8_and_rfc5492_4_open_with_all_capabilities() {
    let body = "
        04                          # version
        5ba0                        # AS_TRANS: the number needs four octets
        005a                        # 90 s
        0a000001
        24                          # optional parameters: 36 octets
        02 22                       # capabilities: 34 octets
        01 04 0001 00 01            # IPv4 unicast
        01 04 0002 00 01            # IPv6 unicast
        02 00                       # route refresh
        40 0a 8078 0001 01 80 0002 01 00  # graceful restart: R, 120 s, F for IPv4 only
        41 04 fa56ea00              # AS 4200000000
        06 00                       # extended messages: not known here
    ";
    let asn = asn(4_200_000_000);
    let open = Open {
        asn,
        hold_time: HoldTime::from_secs(90).unwrap(),
        router_id: id("10.0.0.1"),
        capabilities: vec![
            Capability::Multiprotocol(AfiSafi { afi: 1, safi: 1 }),
            Capability::Multiprotocol(AfiSafi { afi: 2, safi: 1 }),
            Capability::RouteRefresh,
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                time: Duration::from_secs(120),
                families: vec![
                    RestartFamily { family: AfiSafi { afi: 1, safi: 1 }, forwarding: true },
                    RestartFamily { family: AfiSafi { afi: 2, safi: 1 }, forwarding: false },
                ],
            }),
            Capability::FourOctetAs(asn),
            Capability::Unknown { code: 6, value: vec![] },
        ],
    };
    assert_eq!(decode(INTERNAL, &message(1, body)), Message::Open(open.clone()));
    assert_eq!(open.encode()[..], message(1, body));
    let terms = open.graceful_restart().unwrap();
    assert_eq!((terms.families(), terms.forwarding()), (Families::ALL, Families::only(Family::Ipv4)));
}

#[test]
fn rfc4271_4_2_open_without_parameters() {
    let open = Open { asn: asn(64_512), hold_time: HoldTime::NONE, router_id: id("10.0.0.1"), capabilities: vec![] };
    let octets = message(1, "04 fc00 0000 0a000001 00");
    assert_eq!(decode(INTERNAL, &octets), Message::Open(open.clone()));
    assert_eq!(open.encode()[..], octets);
    assert_eq!(open.families(), Families::only(Family::Ipv4));
}

#[test]
fn rfc5492_4_capabilities_may_be_spread_over_parameters() {
    let octets = message(1, "04 fc00 005a 0a000001 0c  02 02 0200  02 06 0104 0001 0001");
    let Message::Open(open) = decode(INTERNAL, &octets) else { panic!("no OPEN") };
    assert_eq!(open.capabilities, [Capability::RouteRefresh, Capability::Multiprotocol(AfiSafi { afi: 1, safi: 1 })]);
}

#[test]
fn rfc9072_2_parameters_with_lengths_of_two_octets() {
    let Message::Open(open) = decode(INTERNAL, &message(1, "04 fc00 005a 0a000001 ff ff 0005  02 0002 0200")) else {
        panic!("no OPEN")
    };
    assert_eq!(open.capabilities, [Capability::RouteRefresh]);
    let many = vec![Capability::Unknown { code: 200, value: vec![7; 200] }; 5];
    let open = Open { capabilities: many, ..open };
    let encoded = open.encode();
    assert_eq!(encoded[28..30], [0xff, 0xff]);
    assert_eq!(decode(INTERNAL, &encoded), Message::Open(open));
}

#[test]
fn rfc4271_4_5_notifications_in_words_and_octets() {
    let shutdown = Notification::shutdown(Cease::AdministrativeShutdown, "drain");
    for (body, notification, words) in [
        ("06 02 05 6472 61696e", shutdown, "cease: administrative shutdown (\"drain\")"),
        (
            "02 01 0004",
            Notification::with_data(ErrorCode::Open(OpenError::UnsupportedVersion), vec![0, 4]),
            "OPEN message error: unsupported version number",
        ),
        ("04 00", Notification::new(ErrorCode::HoldTimerExpired), "hold timer expired"),
        (
            "05 03",
            Notification::new(ErrorCode::Fsm(FsmError::InEstablished)),
            "finite state machine error: unexpected message in Established state",
        ),
        ("06 63", Notification::new(ErrorCode::Cease(Cease::Other(99))), "cease: subcode 99"),
        ("4d 01 ff", Notification::with_data(ErrorCode::Other { code: 77, subcode: 1 }, vec![255]), "error 77/1"),
    ] {
        let octets = message(3, body);
        assert_eq!(decode(INTERNAL, &octets), Message::Notification(notification.clone()));
        assert_eq!(notification.encode()[..], octets);
        assert_eq!(notification.to_string(), words);
    }
}

#[test]
fn rfc9003_2_words_are_cut_between_characters_and_shown_escaped() {
    let long = "ä".repeat(200);
    let notification = Notification::shutdown(Cease::AdministrativeReset, &long);
    assert_eq!((notification.data.len(), notification.data[0]), (255, 254));
    assert_eq!(notification.words(), Some(&*"ä".repeat(127)));
    assert_eq!(Notification::shutdown(Cease::AdministrativeReset, "").data.len(), 0);
    let hostile = Notification::shutdown(Cease::AdministrativeReset, "\u{1b}[2J");
    assert_eq!(hostile.to_string(), "cease: administrative reset (\"\\u{1b}[2J\")");
    for data in [&[5, b'a'][..], &[1, 0xff], &[]] {
        let broken = Notification::with_data(ErrorCode::Cease(Cease::AdministrativeShutdown), data.to_vec());
        assert_eq!(broken.words(), None);
    }
}

#[test]
fn rfc2918_3_route_refresh() {
    let request = RouteRefresh::request(AfiSafi::unicast(Family::Ipv6));
    let octets = message(5, "0002 00 01");
    assert_eq!(decode(INTERNAL, &octets), Message::RouteRefresh(request));
    assert_eq!(request.encode()[..], octets);
}

#[test]
fn rfc4271_4_3_an_announcement_from_an_internal_peer_with_every_attribute() {
    let octets = update(
        "",
        "
        4001 01 01                              # ORIGIN EGP
        4002 10 02 02 0000fc01 fa56ea00 01 01 00000007  # AS_PATH 64513 4200000000 {7}
        4003 04 c0000201                        # NEXT_HOP
        8004 04 00000064                        # MULTI_EXIT_DISC
        4005 04 000000c8                        # LOCAL_PREF
        4006 00                                 # ATOMIC_AGGREGATE
        c007 08 fa56ea00 0a000009               # AGGREGATOR
        c008 08 fc000001 ffffff01               # COMMUNITIES
        8009 04 0a000007                        # ORIGINATOR_ID
        800a 08 0a000001 0a000002               # CLUSTER_LIST
        e020 0c 00000001 00000002 00000003      # LARGE_COMMUNITY, not known here: kept, Partial
    ",
        "18 0a4100 1a 0a410040",
    );
    let value = Update {
        reach: ipv4_reach("192.0.2.1", ["10.65.0.0/24", "10.65.0.64/26"]),
        attributes: Some(PathAttributes {
            origin: Origin::Egp,
            as_path: AsPath::new([
                (SegmentKind::Sequence, vec![asn(64_513), asn(4_200_000_000)]),
                (SegmentKind::Set, vec![asn(7)]),
            ]),
            med: Some(100),
            local_pref: Some(200),
            atomic_aggregate: true,
            aggregator: Some(Aggregator { asn: asn(4_200_000_000), address: Ipv4Addr::new(10, 0, 0, 9) }),
            originator_id: Some(id("10.0.0.7")),
            cluster_list: ["10.0.0.1", "10.0.0.2"].map(|text| ClusterId(text.parse().unwrap())).to_vec(),
            communities: vec![0xfc00_0001, 0xffff_ff01],
            unknown: vec![UnknownAttribute { code: 32, value: [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3].into() }],
            partial: Partial::default(),
        }),
        ..Update::default()
    };
    pair(INTERNAL, &octets, &value);
}

#[test]
fn rfc4271_5_1_5_attributes_without_a_place_at_an_external_peer_are_not_sent() {
    let attributes = PathAttributes {
        local_pref: Some(100),
        originator_id: Some(id("10.0.0.7")),
        cluster_list: vec![ClusterId(Ipv4Addr::new(10, 0, 0, 1))],
        as_path: AsPath::sequence([asn(64_512)]),
        ..PathAttributes::default()
    };
    let value = Update {
        reach: ipv4_reach("192.0.2.1", ["10.65.0.0/26"]),
        attributes: Some(attributes.clone()),
        ..Update::default()
    };
    let octets = update("", "4001 01 00 4002 06 02 01 0000fc00 4003 04 c0000201", "1a 0a410000");
    assert_eq!(encode_update(EXTERNAL, &value), octets);
    let plain = PathAttributes { local_pref: None, originator_id: None, cluster_list: vec![], ..attributes };
    pair(EXTERNAL, &octets, &Update { attributes: Some(plain), ..value });
}

#[test]
fn rfc6793_4_2_2_to_a_speaker_of_two_octets_the_numbers_go_in_as4_path_and_as4_aggregator() {
    let octets = update(
        "",
        "
        4001 01 00
        4002 06 02 02 fc01 5ba0                 # 64513 AS_TRANS
        4003 04 c0000201
        c007 06 5ba0 0a000009
        c011 0a 02 02 0000fc01 fa56ea00         # AS4_PATH 64513 4200000000
        c012 08 fa56ea00 0a000009               # AS4_AGGREGATOR
    ",
        "18 0a4100",
    );
    let value = Update {
        reach: ipv4_reach("192.0.2.1", ["10.65.0.0/24"]),
        attributes: Some(PathAttributes {
            as_path: AsPath::sequence([asn(64_513), asn(4_200_000_000)]),
            aggregator: Some(Aggregator { asn: asn(4_200_000_000), address: Ipv4Addr::new(10, 0, 0, 9) }),
            ..PathAttributes::default()
        }),
        ..Update::default()
    };
    pair(TWO_OCTETS, &octets, &value);
}

#[test]
fn rfc6793_4_2_2_two_octets_suffice_where_every_number_fits() {
    let attributes = "4001 01 00 4002 04 02 01 fc01 4003 04 c0000201 c007 06 fc01 0a000009";
    let octets = update("", attributes, "18 0a4100");
    let value = Update {
        reach: ipv4_reach("192.0.2.1", ["10.65.0.0/24"]),
        attributes: Some(PathAttributes {
            as_path: AsPath::sequence([asn(64_513)]),
            aggregator: Some(Aggregator { asn: asn(64_513), address: Ipv4Addr::new(10, 0, 0, 9) }),
            ..PathAttributes::default()
        }),
        ..Update::default()
    };
    pair(TWO_OCTETS, &octets, &value);
}

#[test]
fn rfc6793_4_2_3_as4_attributes_older_than_the_last_aggregator_are_ignored() {
    let octets = update(
        "",
        "
        4001 01 00 4002 06 02 02 fc01 5ba0 4003 04 c0000201
        c007 06 fc02 0a000008                   # aggregated by 64514, which knows no four octets
        c011 0a 02 02 0000fc01 fa56ea00 c012 08 fa56ea00 0a000009
    ",
        "18 0a4100",
    );
    let value = decode_update(TWO_OCTETS, &octets);
    let attributes = value.attributes.unwrap();
    assert_eq!(attributes.as_path.to_string(), "64513 23456");
    assert_eq!(attributes.aggregator.unwrap().asn, asn(64_514));
    assert_eq!(value.faults, []);
}

#[test]
fn rfc4760_3_and_rfc7606_5_1_ipv6_is_announced_in_mp_reach_nlri_which_comes_first() {
    let octets = update(
        "",
        "
        900e 002f                               # MP_REACH_NLRI, 47 octets
             0002 01 10 20010db8000000000000000000000001 00
             40 20010db800000001                # 2001:db8:0:1::/64
             78 fd00000000000000000000000000ab  # fd00::ab00/120
             00                                 # ::/0
        4001 01 00
        4002 06 02 01 0000fc00
        4005 04 00000064
    ",
        "",
    );
    let value = Update {
        reach: vec![Reach {
            family: Family::Ipv6,
            next_hop: "2001:db8::1".parse().unwrap(),
            link_local: None,
            prefixes: prefixes(["2001:db8:0:1::/64", "fd00::ab00/120", "::/0"]),
        }],
        attributes: Some(PathAttributes {
            as_path: AsPath::sequence([asn(64_512)]),
            local_pref: Some(100),
            ..PathAttributes::default()
        }),
        ..Update::default()
    };
    pair(INTERNAL, &octets, &value);
}

#[test]
fn rfc2545_3_a_link_local_next_hop_stands_beside_the_global_one() {
    let octets = update(
        "",
        "
        900e 002e 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001 00
             40 20010db800000001
        4001 01 00 4002 00
    ",
        "",
    );
    let value = Update {
        reach: vec![Reach {
            family: Family::Ipv6,
            next_hop: "2001:db8::1".parse().unwrap(),
            link_local: Some("fe80::1".parse().unwrap()),
            prefixes: prefixes(["2001:db8:0:1::/64"]),
        }],
        attributes: Some(PathAttributes::default()),
        ..Update::default()
    };
    pair(EXTERNAL, &octets, &value);
}

#[test]
fn without_a_global_address_the_link_local_one_is_the_next_hop() {
    let octets = update(
        "",
        "
        900e 002e 0002 01 20 00000000000000000000000000000000 fe800000000000000000000000000001 00
             40 20010db800000001
        4001 01 00 4002 00
    ",
        "",
    );
    let value = decode_update(EXTERNAL, &octets);
    assert_eq!(value.reach[0].next_hop, "fe80::1".parse::<IpAddr>().unwrap());
    assert_eq!(value.reach[0].link_local, None);
}

#[test]
fn rfc4271_4_3_withdrawals() {
    let value = Update { withdrawn: prefixes(["10.65.0.0/26", "0.0.0.0/0", "10.65.0.77/32"]), ..Update::default() };
    pair(INTERNAL, &update("1a 0a410000 00 20 0a41004d", "", ""), &value);
}

#[test]
fn rfc4760_4_withdrawals_of_ipv6() {
    let value = Update { withdrawn: prefixes(["2001:db8:0:1::/64", "::/0"]), ..Update::default() };
    pair(INTERNAL, &update("", "900f 000d 0002 01 40 20010db800000001 00", ""), &value);
}

#[test]
fn rfc4724_2_end_of_rib_of_both_families() {
    let end = |family| Update { end_of_rib: Some(family), ..Update::default() };
    pair(INTERNAL, &update("", "", ""), &end(Family::Ipv4));
    pair(INTERNAL, &update("", "900f 0003 0002 01", ""), &end(Family::Ipv6));
    // As others write it.
    assert_eq!(decode_update(INTERNAL, &update("", "800f 03 0002 01", "")), end(Family::Ipv6));
    assert_eq!(decode_update(INTERNAL, &update("", "800f 03 0001 01", "")), end(Family::Ipv4));
}

#[test]
fn rfc7606_5_1_one_update_may_announce_and_withdraw_in_both_families() {
    let value = decode_update(EXTERNAL, &everything());
    assert_eq!(value.withdrawn, prefixes(["10.66.0.0/24", "fd00::/8"]));
    let announced: Vec<_> = value.reach.iter().map(|reach| (reach.family, reach.prefixes.clone())).collect();
    assert_eq!(
        announced,
        [(Family::Ipv4, prefixes(["10.65.0.0/24"])), (Family::Ipv6, prefixes(["2001:db8:0:1::/64"]))]
    );
    assert_eq!((value.end_of_rib, &value.faults[..]), (None, &[][..]));
}

/// Routes of both families announced and withdrawn at once.
fn everything() -> Vec<u8> {
    update(
        "18 0a4200",
        "
        4001 01 00 4002 00 4003 04 c0000201
        800f 05 0002 01 08 fd
        800e 1e 0002 01 10 20010db8000000000000000000000001 00 40 20010db800000001
    ",
        "18 0a4100",
    )
}

#[test]
fn rfc4760_8_routes_of_families_that_were_not_agreed_on_are_ignored() {
    let only = |family| Codec { families: Families::only(family), ..EXTERNAL };
    let update = decode_update(only(Family::Ipv4), &everything());
    assert_eq!(update.withdrawn, prefixes(["10.66.0.0/24"]));
    assert_eq!((update.reach.len(), update.faults.len()), (1, 2));
    let update = decode_update(only(Family::Ipv6), &everything());
    assert_eq!(update.withdrawn, prefixes(["fd00::/8"]));
    assert_eq!(update.reach.iter().map(|reach| reach.family).collect::<Vec<_>>(), [Family::Ipv6]);
    // A family that nobody here knows: EVPN.
    let update = decode_update(EXTERNAL, &self::update("", "800f 05 0019 46 0102", ""));
    assert_eq!((update.withdrawn.len(), update.end_of_rib, update.faults.len()), (0, None, 1));
}

#[test]
fn rfc4271_5_known_attributes_keep_their_partial_bit_and_unknown_ones_get_it() {
    let attributes = "4001 01 00 4002 00 4003 04 c0000201 e007 08 0000fc00 0a000009 e008 04 fc000001 e0c8 02 abcd";
    let octets = |attributes: &str| update("", attributes, "18 0a4100");
    let value = decode_update(EXTERNAL, &octets(attributes));
    let partial = value.attributes.as_ref().unwrap().partial;
    assert_eq!(partial, Partial { aggregator: true, communities: true });
    assert_eq!(encode_update(EXTERNAL, &value), octets(attributes));
    let whole = octets(&attributes.replace("e0c8", "c0c8"));
    assert_eq!(encode_update(EXTERNAL, &decode_update(EXTERNAL, &whole)), octets(attributes));
    let not_transitive = octets(&attributes.replace("e0c8", "80c8"));
    assert_eq!(decode_update(EXTERNAL, &not_transitive).attributes.unwrap().unknown, []);
}

#[test]
fn rfc4271_5_equal_attributes_are_equal_values_however_they_are_written() {
    let decode = |attributes| decode_update(EXTERNAL, &update("", attributes, "18 0a4100"));
    assert_eq!(
        decode("4001 01 00 4002 06 02 01 0000fc01 4003 04 c0000201 c0c8 01 01 c0c9 01 02"),
        decode("d0c9 0001 02 c0c8 01 01 4003 04 c0000201 4002 06 02 01 0000fc01 5001 0001 00"),
    );
}

#[test]
fn rfc4271_4_1_prefixes_fill_messages_and_none_is_lost_or_longer_than_4096() {
    let v4: Vec<Prefix> =
        (0..10_000_u32).map(|n| Prefix::new(Ipv4Addr::from(0x0a00_0000 + n * 64).into(), 26).unwrap()).collect();
    let v6: Vec<Prefix> = (0..10_000_u128)
        .map(|n| Prefix::new(IpAddr::from((0xfd00_u128 << 112 | n << 6).to_be_bytes()), 122).unwrap())
        .collect();
    let attributes = PathAttributes { local_pref: Some(100), ..PathAttributes::default() };
    let next_hops: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let mut packer = Packer::new(INTERNAL);
    for (family, prefixes, next_hop) in [(Family::Ipv4, &v4, next_hops[0]), (Family::Ipv6, &v6, next_hops[1])] {
        packer.reach(next_hop, None, &attributes, prefixes.iter().copied()).unwrap();
        let announced = packer.take();
        packer.withdraw(family, prefixes.iter().copied());
        let withdrawn = packer.take();
        for (packed, announces) in [(announced, true), (withdrawn, false)] {
            let (mut rest, mut count, mut found) = (&packed.octets[..], 0, Vec::new());
            while let Some(length) = frame_length(rest).unwrap() {
                let Message::Update(update) = INTERNAL.decode(&rest[..length]).unwrap() else { panic!("no UPDATE") };
                assert_eq!((&update.faults[..], update.end_of_rib), (&[][..], None));
                found.extend(update.withdrawn);
                found.extend(update.reach.into_iter().flat_map(|reach| reach.prefixes));
                rest = &rest[length..];
                count += 1;
                assert!(rest.is_empty() || length > 4_096 - 17, "a message that is not full: {length}");
            }
            assert_eq!((count, &found), (packed.messages, prefixes), "{family} {announces}");
        }
    }
}

#[test]
fn rfc4271_9_2_attributes_that_leave_no_room_are_refused_and_nothing_is_packed() {
    let with = |count| PathAttributes { communities: vec![7; count], ..PathAttributes::default() };
    let next_hop = "192.0.2.1".parse().unwrap();
    let prefix = || prefixes(["10.65.0.77/32"]);
    let mut packer = Packer::new(EXTERNAL);
    assert!(packer.reach(next_hop, None, &with(2_000), prefix()).is_err());
    assert_eq!(packer.take().messages, 0);
    packer.reach(next_hop, None, &with(1_000), prefix()).unwrap();
    assert_eq!(packer.take().messages, 1);
    assert_eq!(packer.reach(next_hop, None, &with(2_000), []), Ok(()), "nothing to announce, nothing wrong");
}

#[test]
fn the_packer_sorts_prefixes_of_the_other_family_out() {
    let mixed = prefixes(["10.65.0.0/26", "fd00::/122", "10.65.0.64/26"]);
    let mut packer = Packer::new(EXTERNAL);
    packer.withdraw(Family::Ipv4, mixed.iter().copied());
    let Message::Update(update) = decode(EXTERNAL, &packer.take().octets) else { panic!("no UPDATE") };
    assert_eq!(update.withdrawn, prefixes(["10.65.0.0/26", "10.65.0.64/26"]));
}

#[test]
fn rfc4271_4_1_messages_are_cut_out_of_a_stream() {
    let octets = message(2, "0000 0000");
    for length in 0..19 {
        assert_eq!(frame_length(&octets[..length]), Ok(None));
    }
    for length in 19..=23 {
        assert_eq!(frame_length(&octets[..length]), Ok(Some(23)));
    }
}
