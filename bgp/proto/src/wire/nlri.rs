//! Prefixes as they stand in UPDATEs (RFC 4271 section 4.3): a length in bits and as many octets as it needs.

use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use nom::Parser as _;
use nom::bytes::complete::take;
use nom::number::complete::be_u8;
use types::{Family, Prefix};

use super::octets::{Parsed, Unreadable, unreadable};

/// All prefixes of a field. An error is a length that the family does not have, or a field that ends within a prefix; it
/// means that the other prefixes cannot be trusted either (RFC 7606 section 5.3).
pub(super) fn parse(family: Family, mut field: &[u8], prefixes: &mut Vec<Prefix>) -> Result<(), Unreadable> {
    while !field.is_empty() {
        let (rest, prefix) = prefix(family, field)?;
        prefixes.push(prefix);
        field = rest;
    }
    Ok(())
}

/// Bits behind the prefix length mean nothing (RFC 4271 section 4.3) and are cleared.
fn prefix(family: Family, input: &[u8]) -> Parsed<'_, Prefix> {
    let (rest, length) = be_u8(input)?;
    if length > family.bits() {
        return Err(unreadable(input));
    }
    let (rest, octets) = take(octets(length)).parse(rest)?;
    let addr = match family {
        Family::Ipv4 => IpAddr::from(padded::<4>(octets)),
        Family::Ipv6 => IpAddr::from(padded::<16>(octets)),
    };
    let prefix = Prefix::new(addr, length).map_err(|_| unreadable(input))?;
    Ok((rest, prefix))
}

/// Appends a prefix.
pub(super) fn put(out: &mut BytesMut, prefix: &Prefix) {
    let length = octets(prefix.len());
    out.put_u8(prefix.len());
    match prefix.addr() {
        IpAddr::V4(addr) => out.put_slice(addr.octets().get(..length).unwrap_or_default()),
        IpAddr::V6(addr) => out.put_slice(addr.octets().get(..length).unwrap_or_default()),
    }
}

/// The octets that [`put`] appends.
pub(super) fn length(prefix: &Prefix) -> usize {
    1 + octets(prefix.len())
}

/// The octets that so many bits need.
fn octets(bits: u8) -> usize {
    usize::from(bits).div_ceil(8)
}

/// At most `N` octets, with zeros behind them.
fn padded<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4271_4_3_bits_behind_the_length_mean_nothing() {
        let mut prefixes = Vec::new();
        parse(Family::Ipv4, &[9, 10, 0xff, 0, 32, 192, 0, 2, 1], &mut prefixes).unwrap();
        let texts: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.128.0.0/9", "0.0.0.0/0", "192.0.2.1/32"]);
        let mut out = BytesMut::new();
        prefixes.iter().for_each(|prefix| put(&mut out, prefix));
        assert_eq!(out[..], [9, 10, 0x80, 0, 32, 192, 0, 2, 1]);
        assert_eq!(out.len(), prefixes.iter().map(length).sum::<usize>());
    }

    #[test]
    fn rfc7606_5_3_a_length_that_the_family_does_not_have_and_a_cut_prefix_are_errors_with_their_place() {
        for (family, octets, left) in [
            (Family::Ipv4, &[24, 10, 0, 0, 33, 1, 2, 3, 4, 5][..], 6),
            (Family::Ipv4, &[24, 10, 0], 2),
            (Family::Ipv6, &[129], 1),
        ] {
            assert_eq!(parse(family, octets, &mut Vec::new()), Err(Unreadable { left }), "{octets:?}");
        }
    }
}
