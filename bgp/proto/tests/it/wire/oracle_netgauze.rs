//! The same octets, read and written again by a second independent implementation (netgauze-bgp-pkt), which holds every
//! field as a value: what comes back must mean what was sent.

use bgp_proto::wire::{Capability, HoldTime, Message, Open, Packer};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu as _;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput as _;
use proptest::collection::vec;
use proptest::prelude::*;
use types::Family;

use super::oracle::split;
use super::properties::{any_asn, any_attributes, any_capability, any_next_hop, any_prefix};
use super::*;

/// Read there.
fn theirs(codec: Codec, octets: &[u8]) -> BgpMessage {
    let mut context = BgpParsingContext::default();
    context.set_asn4(codec.four_octet_as);
    BgpMessage::parse(&mut SliceReader::new(octets), &mut context).unwrap()
}

/// Read there and written there.
fn written_again(codec: Codec, octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    theirs(codec, octets).write(&mut out).unwrap();
    out
}

/// It takes no multicast prefixes for unicast ones, which is not this layer's to judge.
fn unicast(prefix: &Prefix) -> bool {
    !prefix.addr().is_multicast()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn updates_mean_the_same_to_both(
        four_octet_as: bool,
        attributes in any_attributes(),
        ipv4 in vec(any_prefix(Family::Ipv4).prop_filter("unicast", unicast), 0..=30),
        ipv6 in vec(any_prefix(Family::Ipv6).prop_filter("unicast", unicast), 0..=30),
        next_hops in (any_next_hop(Family::Ipv4), any_next_hop(Family::Ipv6)),
    ) {
        let codec = Codec { four_octet_as, ..INTERNAL };
        let mut packer = Packer::new(codec);
        packer.reach(next_hops.0, None, &attributes, ipv4.iter().copied()).unwrap();
        packer.reach(next_hops.1, None, &attributes, ipv6.iter().copied()).unwrap();
        packer.withdraw(Family::Ipv4, ipv4);
        packer.withdraw(Family::Ipv6, ipv6);
        packer.end_of_rib(Family::Ipv4);
        packer.end_of_rib(Family::Ipv6);
        let packed = packer.take();
        for message in split(&packed.octets) {
            let again = written_again(codec, message);
            prop_assert_eq!(codec.decode(&again), codec.decode(message));
        }
    }

    #[test]
    fn opens_mean_the_same_to_both(number in any_asn(), capabilities in vec(any_capability(), 0..=6)) {
        let known = capabilities.into_iter().filter(|capability| match capability {
            Capability::Multiprotocol(family) => family.family().is_some(),
            Capability::GracefulRestart(terms) => terms.families.iter().all(|entry| entry.family.family().is_some()),
            Capability::RouteRefresh | Capability::FourOctetAs(_) => true,
            Capability::Unknown { .. } => false,
        });
        let open = Open {
            asn: number,
            hold_time: HoldTime::from_secs(90).unwrap(),
            router_id: RouterId::new([10, 0, 0, 1].into()).unwrap(),
            capabilities: known.chain([Capability::FourOctetAs(number)]).collect(),
        };
        let again = written_again(INTERNAL, &open.encode());
        prop_assert_eq!(INTERNAL.decode(&again), Ok(Message::Open(open)));
    }
}

#[test]
fn captures_mean_the_same_to_both() {
    for (codec, hex) in [
        (EXTERNAL, include_str!("../../data/frr.hex")),
        (TWO_OCTETS, include_str!("../../data/frr-two-octets.hex")),
        (Codec { four_octet_as: false, ..INTERNAL }, include_str!("../../data/bird.hex")),
        (EXTERNAL, include_str!("../../data/gobgp.hex")),
    ] {
        for line in hex.lines().filter(|line| !line.starts_with('#')) {
            let octets = octets(line);
            let read = codec.decode(&octets).unwrap();
            assert_eq!(codec.decode(&written_again(codec, &octets)), Ok(read));
        }
    }
}
