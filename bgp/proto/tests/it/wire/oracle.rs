//! The same octets, read and written by an independent implementation (routecore): both sides must mean the same routes.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr as _;

use bgp_proto::wire::{Message, Packer, PathAttributes, frame_length};
use proptest::collection::vec;
use proptest::prelude::*;
use routecore::bgp::aspath::HopPath;
use routecore::bgp::message::UpdateMessage;
use routecore::bgp::message::update::SessionConfig;
use routecore::bgp::message::update_builder::UpdateBuilder;
use routecore::bgp::nlri::afisafi::{AfiSafiNlri, Ipv4UnicastNlri, Ipv6UnicastNlri, NlriCompose};
use routecore::bgp::path_attributes::PaMap;
use routecore::bgp::types::{LocalPref, MultiExitDisc, NextHop, Origin, OriginType};
use types::Family;

use super::properties::{any_asn, any_attributes, any_next_hop, any_prefix};
use super::*;

/// What is compared, in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Meaning {
    announced: Vec<String>,
    withdrawn: Vec<String>,
    next_hop: Option<String>,
    path: Option<Vec<u32>>,
    origin: Option<String>,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Vec<u32>,
}

fn texts(values: impl IntoIterator<Item = impl Display>) -> Vec<String> {
    let mut texts: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    texts.sort();
    texts
}

/// As read here.
fn ours(codec: Codec, octets: &[u8]) -> Meaning {
    let Ok(Message::Update(update)) = codec.decode(octets) else { panic!("no UPDATE") };
    assert_eq!(update.faults, []);
    let attributes = update.attributes.as_ref();
    Meaning {
        announced: texts(update.reach.iter().flat_map(|reach| &reach.prefixes)),
        withdrawn: texts(&update.withdrawn),
        next_hop: update.reach.first().map(|reach| reach.next_hop.to_string()),
        path: attributes.map(|attributes| {
            attributes.as_path.segments().flat_map(|s| s.asns().map(Asn::number).collect::<Vec<_>>()).collect()
        }),
        origin: attributes.map(|attributes| attributes.origin.to_string().to_lowercase()),
        med: attributes.and_then(|attributes| attributes.med),
        local_pref: attributes.and_then(|attributes| attributes.local_pref),
        communities: attributes.map(|attributes| attributes.communities.clone()).unwrap_or_default(),
    }
}

/// As read there.
fn theirs(codec: Codec, octets: &[u8]) -> Meaning {
    let config = if codec.four_octet_as { SessionConfig::modern() } else { SessionConfig::legacy() };
    let update = UpdateMessage::from_octets(octets, &config).unwrap();
    let announced = texts(update.announcements_vec().unwrap());
    let path = update.as4path().unwrap().or_else(|| update.aspath().unwrap());
    let next_hop = update.conventional_next_hop().unwrap().or_else(|| update.mp_next_hop().unwrap());
    Meaning {
        withdrawn: texts(update.withdrawals_vec().unwrap()),
        next_hop: next_hop.map(|next_hop| next_hop.to_string()),
        path: path
            .filter(|_| !announced.is_empty())
            .map(|path| path.segments().flat_map(|s| s.asns().map(|asn| asn.into_u32()).collect::<Vec<_>>()).collect()),
        origin: update.origin().unwrap().map(|origin| origin.to_string().to_lowercase()),
        med: update.multi_exit_disc().unwrap().map(|med| med.0),
        local_pref: update.local_pref().unwrap().map(|local_pref| local_pref.0),
        communities: update
            .communities()
            .unwrap()
            .map(|communities| communities.map(|community| community.to_u32()).collect())
            .unwrap_or_default(),
        announced,
    }
}

pub(super) fn split(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(length) = frame_length(octets).unwrap() {
        let (message, rest) = octets.split_at(length);
        messages.push(message);
        octets = rest;
    }
    messages
}

/// An UPDATE written there.
fn written<N: AfiSafiNlri + NlriCompose + Clone>(
    next_hop: IpAddr,
    path: &[Asn],
    (med, local_pref): (u32, u32),
    announced: Vec<N>,
) -> Vec<u8> {
    let mut attributes = PaMap::empty();
    attributes.set(Origin(OriginType::Egp));
    let mut hops = HopPath::new();
    path.iter().rev().for_each(|asn| hops.prepend_n(asn.number().into(), 1));
    attributes.set(hops);
    attributes.set(MultiExitDisc(med));
    attributes.set(LocalPref(local_pref));
    let mut builder = UpdateBuilder::<Vec<u8>, N>::from_attributes_builder(attributes);
    builder.set_nexthop(NextHop::Unicast(next_hop)).unwrap();
    announced.into_iter().for_each(|nlri| builder.add_announcement(nlri).unwrap());
    builder.into_message(&SessionConfig::modern()).unwrap().as_ref().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_here_is_read_the_same_there(
        four_octet_as: bool,
        attributes in any_attributes(),
        ipv4 in vec(any_prefix(Family::Ipv4), 0..=30),
        ipv6 in vec(any_prefix(Family::Ipv6), 0..=30),
        next_hops in (any_next_hop(Family::Ipv4), any_next_hop(Family::Ipv6)),
    ) {
        let codec = Codec { four_octet_as, ..INTERNAL };
        // The other implementation leaves it to its user to merge AGGREGATOR and AS4_AGGREGATOR.
        let attributes = PathAttributes { aggregator: None, partial: Default::default(), ..attributes };
        let mut packer = Packer::new(codec);
        packer.reach(next_hops.0, None, &attributes, ipv4.iter().copied()).unwrap();
        packer.reach(next_hops.1, None, &attributes, ipv6.iter().copied()).unwrap();
        packer.withdraw(Family::Ipv4, ipv4);
        packer.withdraw(Family::Ipv6, ipv6);
        let packed = packer.take();
        for message in split(&packed.octets) {
            prop_assert_eq!(ours(codec, message), theirs(codec, message));
        }
    }

    #[test]
    fn what_is_written_there_is_read_the_same_here(
        path in vec(any_asn(), 0..=20),
        numbers: (u32, u32),
        ipv4 in vec(any_prefix(Family::Ipv4), 1..=30),
        ipv6 in vec(any_prefix(Family::Ipv6), 1..=30),
        next_hops in (any_next_hop(Family::Ipv4), any_next_hop(Family::Ipv6)),
    ) {
        let nlri = |prefix: &Prefix| Ipv4UnicastNlri::from_str(&prefix.to_string()).unwrap();
        let message = written(next_hops.0, &path, numbers, ipv4.iter().map(nlri).collect());
        prop_assert_eq!(ours(INTERNAL, &message), theirs(INTERNAL, &message));
        prop_assert_eq!(ours(INTERNAL, &message).announced, texts(&ipv4));
        let nlri = |prefix: &Prefix| Ipv6UnicastNlri::from_str(&prefix.to_string()).unwrap();
        let message = written(next_hops.1, &path, numbers, ipv6.iter().map(nlri).collect());
        prop_assert_eq!(ours(INTERNAL, &message), theirs(INTERNAL, &message));
        prop_assert_eq!(ours(INTERNAL, &message).announced, texts(&ipv6));
    }
}
