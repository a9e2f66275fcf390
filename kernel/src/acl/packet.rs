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
    // Each step takes octets away, so this ends.
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
mod tests {
    use super::*;

    fn ipv4(protocol: u8, fragment: u16, options: usize, transport: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45 + u8::try_from(options).unwrap(), 0, 0, 0, 0, 0];
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 65, 0, 5, 10, 65, 1, 6]);
        bytes.extend(vec![1; options * 4]);
        bytes.extend(transport);
        bytes
    }

    fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        bytes.extend("fd00::5".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("fd00::6".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(rest);
        bytes
    }

    const PORTS: [u8; 8] = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0];

    fn ports(bytes: &[u8]) -> (u8, u16, u16) {
        let tuple = Packet::parse(bytes).unwrap().tuple;
        (tuple.protocol, tuple.source_port, tuple.destination_port)
    }

    #[test]
    fn ports_are_read_behind_options_and_extension_headers() {
        for protocol in [TCP, UDP, SCTP] {
            assert_eq!(ports(&ipv4(protocol, 0x4000, 2, &PORTS)), (protocol, 40_000, 443));
            assert_eq!(ports(&ipv6(protocol, &PORTS)), (protocol, 40_000, 443));
        }
        // Hop-by-hop options of 8 octets, routing of 16, authentication of 12, the first fragment.
        let mut rest = vec![43, 0, 0, 0, 0, 0, 0, 0];
        rest.extend([51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([TCP, 0, 0, 1, 0, 0, 0, 9]);
        rest.extend(PORTS);
        assert_eq!(ports(&ipv6(0, &rest)), (TCP, 40_000, 443));
        let tuple = Packet::parse(&ipv6(TCP, &PORTS)).unwrap().tuple;
        assert_eq!(tuple.to_string(), "TCP [fd00::5]:40000 > [fd00::6]:443");
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        assert_eq!(ports(&ipv4(UDP, 185, 0, &PORTS)), (UDP, 0, 0));
        let mut rest = vec![UDP, 0, 0x05, 0xc8, 0, 0, 0, 9];
        rest.extend(PORTS);
        assert_eq!(ports(&ipv6(FRAGMENT, &rest)), (UDP, 0, 0));
    }

    #[test]
    fn an_icmp_message_has_type_and_code() {
        let icmp = |bytes: &[u8]| Packet::parse(bytes).unwrap().icmp;
        assert_eq!(icmp(&ipv4(ICMP, 0, 0, &[3, 1, 0, 0])), Some(Icmp { kind: 3, code: 1 }));
        assert_eq!(icmp(&ipv6(ICMPV6, &[128, 0, 0, 0])), Some(Icmp { kind: 128, code: 0 }));
    }

    #[test]
    fn a_packet_cut_off_anywhere_never_panics() {
        for whole in [ipv4(TCP, 0, 3, &PORTS), ipv6(0, &[43, 0, 0, 0, 0, 0, 0, 0, TCP, 255, 0, 0, 1, 2, 3, 4])] {
            for length in 0..whole.len() {
                let cut = Packet::parse(&whole[..length]);
                assert_eq!(cut.is_some(), length >= if whole[0] >> 4 == 4 { 20 } else { 40 }, "{length}");
            }
        }
        assert_eq!(Packet::parse(&[0x55; 60]), None);
    }
}
