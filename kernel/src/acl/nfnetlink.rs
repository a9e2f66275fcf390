//! Messages of netfilter's netlink subsystems (linux/netfilter/nfnetlink.h): a header of four octets, then attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::{NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_TYPE_MASK, NetlinkSerializable};
use types::Family;

use crate::KernelError;
use crate::linux::socket::{Reply, Socket};

/// NETLINK_NETFILTER.
pub(super) const PROTOCOL: isize = libc::NETLINK_NETFILTER as isize;

/// The header behind netlink's own (struct nfgenmsg).
const GENERIC_BYTES: usize = 4;

/// The header of an attribute (struct nlattr).
const ATTRIBUTE_BYTES: usize = 4;

/// A socket for requests.
pub(super) fn open() -> Result<Socket, KernelError> {
    Socket::open(PROTOCOL)
}

/// The message type of a command of a subsystem.
pub(super) const fn message_type(subsystem: i32, command: i32) -> u16 {
    u16::from_be_bytes([octet(subsystem), octet(command)])
}

/// A number of libc that is an octet on the wire.
pub(super) const fn octet(number: i32) -> u8 {
    let [lowest, ..] = number.to_le_bytes();
    lowest
}

/// AF_INET or AF_INET6 (which are NFPROTO_IPV4 and NFPROTO_IPV6).
pub(super) const fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

/// The reverse.
pub(super) const fn family_of_number(number: u8) -> Option<Family> {
    match number {
        2 => Some(Family::Ipv4),
        10 => Some(Family::Ipv6),
        _ => None,
    }
}

/// A request being written.
#[derive(Debug, Clone)]
pub(super) struct Request {
    kind: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request without attributes; `resource` is res_id of struct nfgenmsg.
    pub(super) fn new(kind: u16, family: u8, version: u8, resource: u16) -> Self {
        let [high, low] = resource.to_be_bytes();
        Self { kind, body: vec![family, version, high, low] }
    }

    /// Appends an attribute.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap_or(u16::MAX);
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// A text with the octet that ends it.
    pub(super) fn put_text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value);
    }

    /// A number in network order that says so.
    pub(super) fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind | NLA_F_NET_BYTEORDER, &value.to_be_bytes());
    }

    /// Appends an attribute that holds what `write` appends.
    pub(super) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        self.put(kind | NLA_F_NESTED, &[]);
        write(self);
        let length = u16::try_from(self.body.len() - start).unwrap_or(u16::MAX);
        if let Some(room) = self.body.get_mut(start..start + 2) {
            room.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

/// What an answer or a notification carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// An AF_* number.
    pub(super) family: u8,
    /// Behind the header.
    pub(super) attributes: &'a [u8],
}

/// Takes the header from a message; none if it is too short.
pub(super) fn message<'a>(reply: &Reply<'a>) -> Option<Message<'a>> {
    let (header, attributes) = reply.payload.split_at_checked(GENERIC_BYTES)?;
    Some(Message { family: *header.first()?, attributes })
}

/// The attributes one by one, by type, without the flags. Ends before one that is cut off.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (kind, _) = behind.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = rest.get(ATTRIBUTE_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes(*kind) & NLA_TYPE_MASK, value))
    })
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text, without the octet that ends it.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|&octet| octet == 0).unwrap_or(value.len());
    String::from_utf8(value.get(..end)?.to_vec()).ok()
}

/// A number in network order.
pub(super) fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

/// A number in network order.
pub(super) fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

/// An address of four or sixteen octets.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        16 => value.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

/// The octets of an address, given to `with`.
pub(super) fn with_octets<T>(address: IpAddr, with: impl FnOnce(&[u8]) -> T) -> T {
    match address {
        IpAddr::V4(address) => with(&address.octets()),
        IpAddr::V6(address) => with(&address.octets()),
    }
}

#[cfg(test)]
mod tests;
