//! The few packets that are made by hand: SCTP's INIT and INIT ACK, ICMP echo, and IP headers around them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The number of SCTP in the IP header.
pub(crate) const SCTP: u8 = 132;

/// The chunk type INIT (RFC 9260 section 3.2).
const INIT: u8 = 1;
/// The chunk type INIT ACK.
const INIT_ACK: u8 = 2;

/// What both ends need of an SCTP packet that starts with INIT or INIT ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// The verification tag: 0 in an INIT, the other end's initiate tag in an INIT ACK (RFC 9260 section 8.5.1).
    pub(crate) verification_tag: u32,
    /// The initiate tag, which is never 0.
    pub(crate) initiate_tag: u32,
    /// Whether the packet is an INIT ACK.
    pub(crate) acknowledges: bool,
}

impl Init {
    /// Builds the whole IP packet.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut sctp = Vec::with_capacity(32);
        sctp.extend(self.source_port.to_be_bytes());
        sctp.extend(self.destination_port.to_be_bytes());
        sctp.extend(self.verification_tag.to_be_bytes());
        sctp.extend([0; 4]);
        sctp.extend([if self.acknowledges { INIT_ACK } else { INIT }, 0, 0, 20]);
        sctp.extend(self.initiate_tag.to_be_bytes());
        sctp.extend(65_536_u32.to_be_bytes());
        // These are one stream each way, and the first transmission sequence number.
        sctp.extend([0, 1, 0, 1]);
        sctp.extend(1_u32.to_be_bytes());
        // The checksum is transmitted least significant octet first (RFC 9260 appendix A).
        let checksum = crc32c(&sctp).to_le_bytes();
        if let Some(field) = sctp.get_mut(8..12) {
            field.copy_from_slice(&checksum);
        }
        let mut packet = header(self.source, self.destination, SCTP, sctp.len());
        packet.extend(sctp);
        packet
    }

    /// Reads an IP packet; none if it is anything else or its checksum is wrong.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let (source, destination, protocol, sctp) = ip(packet)?;
        if protocol != SCTP {
            return None;
        }
        let word = |at: usize| sctp.get(at..at + 4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let half = |at: usize| sctp.get(at..at + 2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        let mut zeroed = sctp.to_vec();
        zeroed.get_mut(8..12)?.fill(0);
        if word(8)? != u32::from_be_bytes(crc32c(&zeroed).to_le_bytes()) {
            return None;
        }
        let kind = *sctp.get(12)?;
        if kind != INIT && kind != INIT_ACK {
            return None;
        }
        Some(Self {
            source,
            destination,
            source_port: half(0)?,
            destination_port: half(2)?,
            verification_tag: word(4)?,
            initiate_tag: word(16)?,
            acknowledges: kind == INIT_ACK,
        })
    }
}

/// The header of an IP packet. The kernel fills in IPv4's checksum and identification (raw(7), `IP_HDRINCL`).
pub(crate) fn header(source: IpAddr, destination: IpAddr, protocol: u8, payload: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(40 + payload);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload).unwrap_or(u16::MAX).to_be_bytes();
            header.extend([0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        (source, destination) => {
            let six = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            let length = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
            header.extend([0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
            header.extend(six(source).octets());
            header.extend(six(destination).octets());
        }
    }
    header
}

/// Source, destination, protocol and payload of an IP packet (IPv6 without extension headers).
pub(crate) fn ip(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let first = *packet.first()?;
    if first >> 4 == 4 {
        let address = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into());
        let payload = packet.get(usize::from(first & 0xf) * 4..)?;
        return Some((address(12)?, address(16)?, *packet.get(9)?, payload));
    }
    let address = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
    Some((address(8)?, address(24)?, *packet.get(6)?, packet.get(40..)?))
}

/// An echo request (RFC 792, RFC 4443 section 4.1). The kernel fills in ICMPv6's checksum (RFC 3542 section 3.1).
pub(crate) fn echo_request(address: IpAddr, identifier: u16, sequence: u16) -> Vec<u8> {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    if address.is_ipv4() {
        let checksum = internet_checksum(&packet).to_be_bytes();
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&checksum);
        }
    }
    packet
}

/// Identifier and sequence number of an echo reply.
pub(crate) fn echo_reply(icmp: &[u8], ipv4: bool) -> Option<(u16, u16)> {
    let kind = if ipv4 { 0 } else { 129 };
    let half = |at: usize| icmp.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    if *icmp.first()? == kind { Some((half(4)?, half(6)?)) } else { None }
}

/// The Internet checksum (RFC 1071).
fn internet_checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = pairs.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum CRC32c (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_those_of_the_rfcs() {
        // The values are those of RFC 3720 appendix B.4: 32 octets of zeroes, and of ones.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        // The value is that of RFC 1071 section 3.
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_init_survives_the_wire_in_both_families_and_a_flipped_bit_does_not() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let init = Init {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                source_port: 5,
                destination_port: 80,
                verification_tag: 0,
                initiate_tag: 7,
                acknowledges: false,
            };
            let mut packet = init.packet();
            assert_eq!(Init::parse(&packet), Some(init));
            *packet.last_mut().unwrap() ^= 1;
            assert_eq!(Init::parse(&packet), None);
        }
    }
}
