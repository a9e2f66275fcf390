//! The head of an IP packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Tuple;

/// What can be seen in the first octets of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// From where to where. The ports are zero where the protocol has none, in a fragment that is not the first, and where
    /// they were cut off.
    pub tuple: Tuple,
    /// What an ICMP message says, of either family.
    pub icmp: Option<Icmp>,
}

/// Kind of an ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// Its type: 8 or 128 is a ping.
    pub kind: u8,
    /// Its code.
    pub code: u8,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const ICMP: u8 = 1;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Extension headers of IPv6 (RFC 8200 section 4) that have a length in units of eight octets.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
/// Its length is in units of four octets (RFC 4302 section 2.2).
const AUTHENTICATION: u8 = 51;

impl Packet {
    /// Reads an IP packet, of which the end may be missing. None if it is not IP, or cut before its addresses end.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => parse_ipv4(bytes),
            6 => parse_ipv6(bytes),
            _ => None,
        }
    }

    /// `transport` is what follows the last IP header; nothing if it is a later fragment.
    fn new(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> Self {
        let mut tuple = Tuple { source, destination, protocol, source_port: 0, destination_port: 0 };
        let mut icmp = None;
        match (protocol, transport) {
            (TCP | UDP | SCTP | UDP_LITE, [s1, s2, d1, d2, ..]) => {
                tuple.source_port = u16::from_be_bytes([*s1, *s2]);
                tuple.destination_port = u16::from_be_bytes([*d1, *d2]);
            }
            (ICMP | ICMPV6, [kind, code, ..]) => icmp = Some(Icmp { kind: *kind, code: *code }),
            _ => {}
        }
        Self { tuple, icmp }
    }
}

/// RFC 791 section 3.1.
fn parse_ipv4(bytes: &[u8]) -> Option<Packet> {
    let header = bytes.first_chunk::<20>()?;
    let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, _, _, s1, s2, s3, s4, d1, d2, d3, d4] =
        *header;
    let length = usize::from(first & 0x0f) * 4;
    let later_fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0;
    let transport = if later_fragment || length < 20 { None } else { bytes.get(length..) };
    let (source, destination) = (Ipv4Addr::new(s1, s2, s3, s4), Ipv4Addr::new(d1, d2, d3, d4));
    Some(Packet::new(source.into(), destination.into(), protocol, transport.unwrap_or_default()))
}

/// RFC 8200 section 3.
fn parse_ipv6(bytes: &[u8]) -> Option<Packet> {
    let (header, mut rest) = bytes.split_first_chunk::<40>()?;
    let mut next = *header.get(6)?;
    let address = |at: usize| header.get(at..at + 16)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    let (source, destination) = (address(8)?, address(24)?);
    let mut later_fragment = false;
    // The loop ends, as each step takes octets away.
    while let [following, length, third, fourth, ..] = *rest {
        let octets = if EXTENSIONS.contains(&next) {
            (usize::from(length) + 1) * 8
        } else if next == AUTHENTICATION {
            (usize::from(length) + 2) * 4
        } else if next == FRAGMENT {
            later_fragment = u16::from_be_bytes([third, fourth]) & 0xfff8 != 0;
            8
        } else {
            break;
        };
        next = following;
        rest = rest.get(octets..).unwrap_or_default();
        if later_fragment {
            break;
        }
    }
    let transport = if later_fragment { &[] } else { rest };
    Some(Packet::new(source.into(), destination.into(), next, transport))
}

#[cfg(test)]
mod tests;
