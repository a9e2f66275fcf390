//! What holds for all octets and all values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bgp_proto::wire::{
    AfiSafi, Aggregator, AsPath, Capability, ErrorCode, GracefulRestart, HoldTime, Message, Notification, Open, Origin,
    Packer, Partial, PathAttributes, RestartFamily, SegmentKind, UnknownAttribute, frame_length,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use types::{ClusterId, Family};

use super::*;

pub(super) fn any_asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=70_000_u32, 1..=u32::MAX].prop_map(asn)
}

pub(super) fn any_prefix(family: Family) -> impl Strategy<Value = Prefix> {
    (any::<u128>(), 0..=family.bits()).prop_map(move |(bits, length)| {
        let addr = match family {
            Family::Ipv4 => IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32)),
            Family::Ipv6 => IpAddr::from(Ipv6Addr::from_bits(bits)),
        };
        Prefix::new(addr, length).unwrap()
    })
}

fn any_id() -> impl Strategy<Value = RouterId> {
    (1..=u32::MAX).prop_map(|bits| RouterId::new(Ipv4Addr::from_bits(bits)).unwrap())
}

fn any_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![3 => Just(SegmentKind::Sequence), 1 => Just(SegmentKind::Set)];
    vec((kind, vec(any_asn(), 1..=6)), 0..=4).prop_map(AsPath::new)
}

/// Attributes as an internal peer may send them.
pub(super) fn any_attributes() -> impl Strategy<Value = PathAttributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let aggregator =
        (any_asn(), any::<u32>()).prop_map(|(asn, address)| Aggregator { asn, address: Ipv4Addr::from_bits(address) });
    let reflection = (
        proptest::option::of(any_id()),
        vec(any::<u32>().prop_map(|bits| ClusterId(Ipv4Addr::from_bits(bits))), 0..=3),
    );
    let values = (origin, any_path(), any::<Option<u32>>(), any::<u32>(), any::<bool>());
    let more = (
        proptest::option::of((aggregator, any::<bool>())),
        reflection,
        vec(any::<u32>(), 0..=80),
        any::<bool>(),
        btree_map(128..=254_u8, vec(any::<u8>(), 0..=300), 0..=2),
    );
    (values, more).prop_map(
        |(
            (origin, as_path, med, local_pref, atomic_aggregate),
            (aggregator, reflection, communities, partial, unknown),
        )| {
            PathAttributes {
                origin,
                as_path,
                med,
                local_pref: Some(local_pref),
                atomic_aggregate,
                aggregator: aggregator.map(|(aggregator, _)| aggregator),
                originator_id: reflection.0,
                cluster_list: reflection.1,
                partial: Partial {
                    aggregator: aggregator.is_some_and(|(_, partial)| partial),
                    communities: partial && !communities.is_empty(),
                },
                communities,
                unknown: unknown
                    .into_iter()
                    .map(|(code, value)| UnknownAttribute { code, value: value.into() })
                    .collect(),
            }
        },
    )
}

pub(super) fn any_next_hop(family: Family) -> impl Strategy<Value = IpAddr> {
    (1..=u16::MAX).prop_map(move |number| match family {
        Family::Ipv4 => IpAddr::from(Ipv4Addr::from_bits(0xc000_0000 | u32::from(number))),
        Family::Ipv6 => IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number))),
    })
}

fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
}

pub(super) fn any_capability() -> impl Strategy<Value = Capability> {
    let family = || {
        let other = (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi });
        prop_oneof![2 => any_family().prop_map(AfiSafi::unicast), 1 => other]
    };
    let restart_family =
        (family(), any::<bool>()).prop_map(|(family, forwarding)| RestartFamily { family, forwarding });
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        (any::<bool>(), 0..=4_095_u64, vec(restart_family, 0..=4)).prop_map(|(restarting, secs, families)| {
            Capability::GracefulRestart(GracefulRestart { restarting, time: Duration::from_secs(secs), families })
        }),
        (128..=255_u8, vec(any::<u8>(), 0..=255)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

/// The messages of a stream.
pub(super) fn messages(codec: Codec, mut octets: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(length) = frame_length(octets).unwrap() {
        let (message, rest) = octets.split_at(length);
        messages.push(codec.decode(message).unwrap());
        octets = rest;
    }
    messages
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn what_is_announced_is_what_is_read(
        family in any_family(),
        four_octet_as: bool,
        attributes in any_attributes(),
        seed in vec(any_prefix(Family::Ipv4), 1..=1_500),
        next_hop in any_next_hop(Family::Ipv6),
    ) {
        let prefixes: Vec<_> = match family {
            Family::Ipv4 => seed,
            Family::Ipv6 => seed.iter().map(|prefix| Prefix::new(next_hop, prefix.len() * 4).unwrap()).collect(),
        };
        let next_hop = match family {
            Family::Ipv4 => IpAddr::from([192, 0, 2, 1]),
            Family::Ipv6 => next_hop,
        };
        let codec = Codec { four_octet_as, ..INTERNAL };
        let mut packer = Packer::new(codec);
        packer.reach(next_hop, None, &attributes, prefixes.iter().copied()).unwrap();
        let packed = packer.take();
        let mut found = Vec::new();
        let messages = messages(codec, &packed.octets);
        prop_assert_eq!(messages.len(), packed.messages);
        for message in messages {
            let Message::Update(update) = message else { panic!("no UPDATE") };
            prop_assert_eq!(&update.faults[..], &[]);
            prop_assert_eq!(update.attributes.as_ref(), Some(&attributes));
            for reach in update.reach {
                prop_assert_eq!((reach.family, reach.next_hop), (family, next_hop));
                found.extend(reach.prefixes);
            }
        }
        prop_assert_eq!(found, prefixes);
    }

    #[test]
    fn an_open_survives_its_octets(
        number in any_asn(),
        hold_time in 0..=u16::MAX,
        router_id in any_id(),
        mut capabilities in vec(any_capability(), 0..=12),
    ) {
        capabilities.push(Capability::FourOctetAs(number));
        let hold_time = HoldTime::clamped(Duration::from_secs(hold_time.into()));
        let open = Open { asn: number, hold_time, router_id, capabilities };
        prop_assert_eq!(INTERNAL.decode(&open.encode()), Ok(Message::Open(open)));
    }

    #[test]
    fn a_notification_survives_its_octets(code: u8, subcode: u8, data in vec(any::<u8>(), 0..=100)) {
        let error = ErrorCode::new(code, subcode);
        prop_assert_eq!(error.numbers(), (code, subcode));
        let notification = Notification::with_data(error, data);
        prop_assert_eq!(INTERNAL.decode(&notification.encode()), Ok(Message::Notification(notification)));
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn decoding_never_panics(octets in vec(any::<u8>(), 0..=100), kind in 1..=5_u8, internal: bool, four: bool) {
        let peer_type = if internal { PeerType::Internal } else { PeerType::External };
        let codec = Codec { four_octet_as: four, peer_type, families: Families::ALL };
        let _ = codec.decode(&octets);
        let _ = codec.decode(&framed(kind, octets));
    }

    #[test]
    fn a_message_with_a_changed_octet_is_read_or_refused_but_loses_no_route_silently(
        attributes in any_attributes(),
        at: prop::sample::Index,
        to: u8,
    ) {
        let prefix: Prefix = "10.65.0.0/24".parse().unwrap();
        let mut packer = Packer::new(INTERNAL);
        packer.reach([192, 0, 2, 1].into(), None, &attributes, [prefix]).unwrap();
        let mut octets = packer.take().octets.to_vec();
        // Not in the header, the lengths of the fields, or the prefix.
        let place = 23 + at.index(octets.len() - 23 - 4);
        octets[place] = to;
        if let Ok(Message::Update(update)) = INTERNAL.decode(&octets) {
            let announced = update.reach.iter().any(|reach| reach.prefixes.contains(&prefix));
            prop_assert!(announced || update.withdrawn.contains(&prefix));
            prop_assert_eq!(update.attributes.is_some(), !update.reach.is_empty());
        }
    }
}
