//! Connection tracking, by ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use std::collections::BTreeSet;
use std::net::IpAddr;

use types::Family;

use super::nfnetlink::{self, Request, attribute, attributes, be16, be32, family_number, message, message_type};
use super::{Connection, Connections, Tuple};
use crate::linux::socket::{Reply, Socket};
use crate::netns::run_in;
use crate::{KernelError, Netns};

/// One netlink socket, which keeps the namespace in which it was opened.
#[derive(Debug)]
pub struct ConnectionTable {
    socket: Socket,
}

// enum cntl_msg_types.
const GET: i32 = 1;
const DELETE: i32 = 2;

// enum ctattr_type.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

// enum ctattr_tuple.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

// enum ctattr_ip.
const V4_SRC: u16 = 1;
const V4_DST: u16 = 2;
const V6_SRC: u16 = 3;
const V6_DST: u16 = 4;

// enum ctattr_l4proto.
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTO_ICMP_ID: u16 = 4;
const PROTO_ICMP_TYPE: u16 = 5;
const PROTO_ICMP_CODE: u16 = 6;
const PROTO_ICMPV6_ID: u16 = 7;
const PROTO_ICMPV6_TYPE: u16 = 8;
const PROTO_ICMPV6_CODE: u16 = 9;

/// IPPROTO_ICMP and IPPROTO_ICMPV6.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl ConnectionTable {
    /// In the calling thread's namespace.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { socket: nfnetlink::open()? })
    }

    /// In another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        run_in(netns, Self::open)?
    }

    /// The entries of a family that pass; the others are not kept while the table is read.
    fn dump(&mut self, family: Family, passes: impl Fn(&Connection) -> bool) -> Result<Vec<Connection>, KernelError> {
        let operation = || format!("cannot list {family} connections");
        self.socket.dump(&request(GET, family), operation, Vec::new, |found, reply| {
            let connection =
                parse(reply).ok_or_else(|| KernelError::malformed(operation(), "an entry without tuples"))?;
            if passes(&connection) {
                found.push(connection);
            }
            Ok(())
        })
    }
}

impl Connections for ConnectionTable {
    fn connections(&mut self, family: Family) -> Result<Vec<Connection>, KernelError> {
        self.dump(family, |_| true)
    }

    /// One walk through the table, however many addresses. The kernel's own filter (CTA_FILTER) takes one end of one tuple:
    /// four walks an address, each 13 ms where the table has 262,144 buckets, which is what the entries themselves cost up
    /// to 20,000 of them.
    fn connections_of(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Vec<Connection>, KernelError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            if addresses.iter().any(|&address| Family::of(address) == family) {
                found.extend(self.dump(family, |connection| connection.has_any(addresses))?);
            }
        }
        Ok(found)
    }

    fn delete_connection(&mut self, connection: &Connection) -> Result<(), KernelError> {
        let original = &connection.original;
        let mut request = request(DELETE, Family::of(original.source));
        request.nest(TUPLE_ORIG, |request| put_tuple(request, original));
        if connection.zone != 0 {
            request.put(ZONE, &connection.zone.to_be_bytes());
        }
        if let Some(id) = connection.id {
            request.put(ID, &id.to_be_bytes());
        }
        match self.socket.change(request, 0, || format!("cannot delete connection {original}")) {
            Err(KernelError::Gone(_)) => Ok(()),
            other => other,
        }
    }
}

fn request(command: i32, family: Family) -> Request {
    Request::new(message_type(libc::NFNL_SUBSYS_CTNETLINK, command), family_number(family), 0, 0)
}

/// The tuple by which the kernel finds an entry.
fn put_tuple(request: &mut Request, tuple: &Tuple) {
    let v4 = tuple.source.is_ipv4();
    request.nest(TUPLE_IP, |request| {
        let (source, destination) = if v4 { (V4_SRC, V4_DST) } else { (V6_SRC, V6_DST) };
        nfnetlink::with_octets(tuple.source, |octets| request.put(source, octets));
        nfnetlink::with_octets(tuple.destination, |octets| request.put(destination, octets));
    });
    request.nest(TUPLE_PROTO, |request| {
        request.put(PROTO_NUM, &[tuple.protocol]);
        let (source, destination) = (tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes());
        let icmp = match tuple.protocol {
            ICMP => Some((PROTO_ICMP_ID, PROTO_ICMP_TYPE, PROTO_ICMP_CODE)),
            ICMPV6 => Some((PROTO_ICMPV6_ID, PROTO_ICMPV6_TYPE, PROTO_ICMPV6_CODE)),
            _ => None,
        };
        if let Some((id, kind, code)) = icmp {
            let [of_type, of_code] = destination;
            request.put(id, &source);
            request.put(kind, &[of_type]);
            request.put(code, &[of_code]);
        } else {
            request.put(PROTO_SRC_PORT, &source);
            request.put(PROTO_DST_PORT, &destination);
        }
    });
}

fn parse(reply: &Reply<'_>) -> Option<Connection> {
    let (mut original, mut reply_tuple, mut zone, mut id) = (None, None, 0, None);
    for (kind, value) in attributes(message(reply)?.attributes) {
        match kind {
            TUPLE_ORIG => original = parse_tuple(value),
            TUPLE_REPLY => reply_tuple = parse_tuple(value),
            ZONE => zone = be16(value)?,
            ID => id = be32(value),
            _ => {}
        }
    }
    Some(Connection { original: original?, reply: reply_tuple?, zone, id })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination) = (None, None);
    for (kind, value) in attributes(attribute(bytes, TUPLE_IP)?) {
        match kind {
            V4_SRC | V6_SRC => source = nfnetlink::address(value),
            V4_DST | V6_DST => destination = nfnetlink::address(value),
            _ => {}
        }
    }
    let (mut protocol, mut source_port, mut destination_port) = (None, 0, 0);
    for (kind, value) in attributes(attribute(bytes, TUPLE_PROTO)?) {
        match kind {
            PROTO_NUM => protocol = value.first().copied(),
            PROTO_SRC_PORT | PROTO_ICMP_ID | PROTO_ICMPV6_ID => source_port = be16(value)?,
            PROTO_DST_PORT => destination_port = be16(value)?,
            PROTO_ICMP_TYPE | PROTO_ICMPV6_TYPE => destination_port |= u16::from(*value.first()?) << 8,
            PROTO_ICMP_CODE | PROTO_ICMPV6_CODE => destination_port |= u16::from(*value.first()?),
            _ => {}
        }
    }
    Some(Tuple { source: source?, destination: destination?, protocol: protocol?, source_port, destination_port })
}

#[cfg(test)]
mod tests;
