//! Ethernet frames made by hand, also such as no kernel sends. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The numbers of protocols in IP headers, and of IPv6's extension headers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// A routing header.
    pub const ROUTING: u8 = 43;
    /// A fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// An Ethernet frame around an IP packet, or another payload where the type is given.
pub fn ethernet(destination: [u8; 6], source: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(destination);
    frame.extend(source);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The Ethernet type of a family's packets.
pub fn ethertype(address: IpAddr) -> u16 {
    if address.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// The head of an IP packet of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// From where.
    pub source: IpAddr,
    /// To where; of the same family.
    pub destination: IpAddr,
    /// How many routers it may pass.
    pub hops: u8,
    /// What follows the header.
    pub protocol: u8,
    /// The number by which fragments are put together.
    pub id: u16,
}

impl Head {
    /// With 64 hops.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self { source, destination, hops: 64, protocol, id: 0 }
    }

    /// With so many hops.
    #[must_use]
    pub fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// As a fragment of this number.
    #[must_use]
    pub fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// The whole packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination, 0, payload),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination, self.protocol, payload),
            _ => Vec::new(),
        }
    }

    /// A fragment: this payload, which begins at this octet (a multiple of eight) of the whole.
    pub fn fragment(&self, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.ipv4(source, destination, (offset / 8) | if more { 0x2000 } else { 0 }, payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut all = vec![self.protocol, 0];
                all.extend((offset | u16::from(more)).to_be_bytes());
                all.extend(u32::from(self.id).to_be_bytes());
                all.extend(payload);
                self.ipv6(source, destination, protocol::FRAGMENT, &all)
            }
            _ => Vec::new(),
        }
    }

    /// RFC 791 section 3.1.
    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend(length(20 + payload.len()).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        let sum = checksum(&header).to_be_bytes();
        if let Some(field) = header.get_mut(10..12) {
            field.copy_from_slice(&sum);
        }
        header.extend(payload);
        header
    }

    /// RFC 8200 section 3.
    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length(payload.len()).to_be_bytes());
        header.extend([next, self.hops]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(payload);
        header
    }
}

/// A UDP datagram (RFC 768).
pub fn udp(ends: [IpAddr; 2], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports.map(u16::to_be_bytes).concat();
    datagram.extend(length(8 + payload.len()).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    summed(ends, protocol::UDP, datagram, 6)
}

/// A TCP segment without options (RFC 9293 section 3.1).
pub fn tcp(ends: [IpAddr; 2], ports: [u16; 2], flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports.map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    summed(ends, protocol::TCP, segment, 16)
}

/// An ICMP message of either family (RFC 792, RFC 4443).
pub fn icmp(ends: [IpAddr; 2], kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(body);
    if ends.iter().all(IpAddr::is_ipv6) {
        return summed(ends, protocol::ICMPV6, message, 2);
    }
    let sum = checksum(&message).to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum);
    }
    message
}

/// An extension header of eight octets that says nothing, in front of `payload`: hop-by-hop or destination options, filled
/// with PadN (RFC 8200 section 4.2).
pub fn padding(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut all = vec![next, 0, 1, 4, 0, 0, 0, 0];
    all.extend(payload);
    all
}

/// A routing header with one address left, in front of `payload` (RFC 8200 section 4.4; of type 4, RFC 8754 section 2).
pub fn routing(next: u8, kind: u8, last: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut all = vec![next, 2, kind, 1, 0, 0, 0, 0];
    all.extend(last.octets());
    all.extend(payload);
    all
}

/// An ARP message (RFC 826): 1 asks, 2 answers. Each end is its Ethernet and its IP address.
pub fn arp(operation: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        message.extend(mac);
        message.extend(address.octets());
    }
    message
}

/// Puts in the checksum over message and pseudo-header, at this place.
fn summed(ends: [IpAddr; 2], protocol: u8, mut message: Vec<u8>, at: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for end in ends {
        match end {
            IpAddr::V4(address) => all.extend(address.octets()),
            IpAddr::V6(address) => all.extend(address.octets()),
        }
    }
    all.extend([0, 0, 0, protocol]);
    all.extend(u32::from(length(message.len())).to_be_bytes());
    all.extend(&message);
    // In UDP a sum of zero would mean that there is none.
    let sum = Some(checksum(&all)).filter(|sum| *sum != 0).unwrap_or(0xffff);
    if let Some(field) = message.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let word =
        |pair: &[u8]| u64::from(pair.first().copied().unwrap_or(0)) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn length(octets: usize) -> u16 {
    u16::try_from(octets).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
