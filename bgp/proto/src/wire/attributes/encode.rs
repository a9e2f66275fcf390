//! Path attributes into an UPDATE.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, BytesMut};

use super::code::{self, EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE};
use super::{Aggregator, Origin, PathAttributes};
use crate::wire::codec::{Codec, PeerType};

/// Appends the attributes in ascending order of their codes (RFC 4271 section 5), with NEXT_HOP where the routes are in
/// the NLRI field. What has no place in a session with an external peer is left out.
pub(in crate::wire) fn put(out: &mut BytesMut, codec: &Codec, attributes: &PathAttributes, next_hop: Option<Ipv4Addr>) {
    let internal = codec.peer_type == PeerType::Internal;
    let as4_path = !codec.four_octet_as && attributes.as_path.needs_four_octets();
    let as4_aggregator = attributes.aggregator.filter(|a| !codec.four_octet_as && a.asn.number() > u16::MAX.into());

    put_value(out, code::ORIGIN, false, &[origin(attributes.origin)]);
    put_as_path(out, codec, attributes);
    if let Some(next_hop) = next_hop {
        put_value(out, code::NEXT_HOP, false, &next_hop.octets());
    }
    if let Some(med) = attributes.med {
        put_value(out, code::MULTI_EXIT_DISC, false, &med.to_be_bytes());
    }
    if let Some(local_pref) = attributes.local_pref.filter(|_| internal) {
        put_value(out, code::LOCAL_PREF, false, &local_pref.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        put_value(out, code::ATOMIC_AGGREGATE, false, &[]);
    }
    if let Some(Aggregator { asn, address }) = attributes.aggregator {
        let partial = attributes.partial.aggregator;
        put_known_header(out, code::AGGREGATOR, partial, if codec.four_octet_as { 8 } else { 6 });
        if codec.four_octet_as {
            out.put_u32(asn.number())
        } else {
            out.put_u16(asn.two_octets())
        }
        out.put_slice(&address.octets());
    }
    if !attributes.communities.is_empty() {
        let partial = attributes.partial.communities;
        put_known_header(out, code::COMMUNITIES, partial, attributes.communities.len() * 4);
        attributes.communities.iter().for_each(|community| out.put_u32(*community));
    }
    if let Some(id) = attributes.originator_id.filter(|_| internal) {
        put_value(out, code::ORIGINATOR_ID, false, &id.addr().octets());
    }
    if internal && !attributes.cluster_list.is_empty() {
        put_known_header(out, code::CLUSTER_LIST, false, attributes.cluster_list.len() * 4);
        attributes.cluster_list.iter().for_each(|id| out.put_slice(&id.0.octets()));
    }
    if as4_path {
        put_value(out, code::AS4_PATH, false, attributes.as_path.octets());
    }
    if let Some(Aggregator { asn, address }) = as4_aggregator {
        put_known_header(out, code::AS4_AGGREGATOR, false, 8);
        out.put_u32(asn.number());
        out.put_slice(&address.octets());
    }
    for unknown in &attributes.unknown {
        put_header(out, OPTIONAL | TRANSITIVE | PARTIAL, unknown.code, unknown.value.len());
        out.put_slice(&unknown.value);
    }
}

/// Appends flags, code and length; the length has two octets only where it needs them.
fn put_header(out: &mut BytesMut, flags: u8, code: u8, length: usize) {
    match u8::try_from(length) {
        Ok(length) => out.put_slice(&[flags & !EXTENDED_LENGTH, code, length]),
        Err(_) => {
            out.put_slice(&[flags | EXTENDED_LENGTH, code]);
            // Longer than any message: such attributes are refused before they are sent.
            out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        }
    }
}

fn put_as_path(out: &mut BytesMut, codec: &Codec, attributes: &PathAttributes) {
    let path = &attributes.as_path;
    if codec.four_octet_as {
        put_value(out, code::AS_PATH, false, path.octets());
    } else {
        put_known_header(out, code::AS_PATH, false, path.two_octet_length());
        path.put_two_octets(out);
    }
}

fn put_value(out: &mut BytesMut, code: u8, partial: bool, value: &[u8]) {
    put_known_header(out, code, partial, value.len());
    out.put_slice(value);
}

fn put_known_header(out: &mut BytesMut, code: u8, partial: bool, length: usize) {
    let flags = code::flags(code).unwrap_or(OPTIONAL) | if partial { PARTIAL } else { 0 };
    put_header(out, flags, code, length);
}

const fn origin(origin: Origin) -> u8 {
    match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}
