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
mod tests;
