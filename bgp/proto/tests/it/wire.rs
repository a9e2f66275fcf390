//! The wire format, seen from outside: octets against values, against malformed octets, against other implementations.

#![allow(clippy::expect_used, clippy::cast_possible_truncation, reason = "tests say what went wrong by panicking")]

mod captures;
mod malformed;
mod oracle;
mod oracle_netgauze;
mod pairs;
mod properties;

use bgp_proto::wire::{Codec, Families, PeerType};
use types::{Asn, Prefix, RouterId};

const INTERNAL: Codec = Codec { four_octet_as: true, peer_type: PeerType::Internal, families: Families::ALL };
const EXTERNAL: Codec = Codec { peer_type: PeerType::External, ..INTERNAL };
const TWO_OCTETS: Codec = Codec { four_octet_as: false, ..EXTERNAL };

/// Octets from hex digits; anything behind `#` on a line is a comment, spaces mean nothing.
fn octets(hex: &str) -> Vec<u8> {
    let digits: String = hex.lines().map(|line| line.split('#').next().unwrap()).collect();
    let digits: Vec<_> = digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A message of this type with this body.
fn message(kind: u8, body: &str) -> Vec<u8> {
    framed(kind, octets(body))
}

/// An UPDATE with these withdrawn routes, path attributes and NLRI; the lengths of the three are put in.
fn update(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let field = |hex| {
        let octets = octets(hex);
        [u16::try_from(octets.len()).unwrap().to_be_bytes().to_vec(), octets].concat()
    };
    framed(2, [field(withdrawn), field(attributes), octets(nlri)].concat())
}

fn framed(kind: u8, body: Vec<u8>) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn prefixes<const N: usize>(texts: [&str; N]) -> Vec<Prefix> {
    texts.map(|text| text.parse().unwrap()).to_vec()
}

fn id(text: &str) -> RouterId {
    RouterId::new(text.parse().unwrap()).unwrap()
}
