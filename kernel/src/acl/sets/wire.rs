//! ipset's messages (linux/netfilter/ipset/ip_set.h): written and read, without any socket.

use std::net::IpAddr;

use rtnetlink::packet_core::NLA_F_NET_BYTEORDER;
use types::policy::Protocol;
use types::{Family, Prefix};

use super::super::nfnetlink::{self, Request, attribute, attributes, be16, be32, family_number, message, message_type};
use super::super::{
    AddressHome, AddressPort, CountedAddress, ElementChange, LinkName, MarkedAddress, SetElement, SetHeader, SetKind,
    SetName, SetSpec,
};
use crate::linux::socket::{Reply, Socket};
use crate::{Failure, KernelError};

// enum ipset_cmd.
const PROTOCOL: i32 = 1;
pub(super) const CREATE: i32 = 2;
pub(super) const DESTROY: i32 = 3;
pub(super) const SWAP: i32 = 6;
pub(super) const LIST: i32 = 7;
const ADD: i32 = 9;
const DEL: i32 = 10;
const TYPE: i32 = 13;

/// The versions of the protocol that this program speaks; since Linux 4.20 the kernel speaks 7.
const PROTOCOL_VERSIONS: std::ops::RangeInclusive<u8> = 6..=7;

// Attributes of a command (enum ipset_cmd attributes).
const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
/// Also the second name of a swap.
const ATTR_TYPENAME: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;

// Attributes within IPSET_ATTR_DATA.
const DATA_IP: u16 = 1;
const DATA_CIDR: u16 = 3;
const DATA_PORT: u16 = 4;
const DATA_PROTO: u16 = 7;
const DATA_CADT_FLAGS: u16 = 8;
// Of a creation and of a header.
const DATA_HASHSIZE: u16 = 18;
const DATA_MAXELEM: u16 = 19;
const DATA_NETMASK: u16 = 20;
const DATA_REFERENCES: u16 = 25;
const DATA_ELEMENTS: u16 = 24;
// Of a member.
const DATA_IFACE: u16 = 23;
const DATA_PACKETS: u16 = 25;
const DATA_SKBMARK: u16 = 27;
// Within IPSET_ATTR_IP.
const IPADDR_IPV4: u16 = 1;
const IPADDR_IPV6: u16 = 2;

/// IPSET_FLAG_LIST_HEADER: without the members.
const FLAG_LIST_HEADER: u32 = 1 << 2;
/// IPSET_FLAG_WITH_COUNTERS.
const CADT_WITH_COUNTERS: u32 = 1 << 3;
/// IPSET_FLAG_WITH_SKBINFO.
const CADT_WITH_SKBINFO: u32 = 1 << 6;

/// Since which revision `hash:ip` has marks.
const SKBINFO_SINCE: u8 = 4;

// enum ipset_errno.
const ERR_PROTOCOL: i32 = 4097;
const ERR_FIND_TYPE: i32 = 4098;
const ERR_MAX_SETS: i32 = 4099;
const ERR_BUSY: i32 = 4100;
const ERR_EXIST_SETNAME2: i32 = 4101;
const ERR_TYPE_MISMATCH: i32 = 4102;
const ERR_EXIST: i32 = 4103;
const ERR_REFERENCED: i32 = 4108;
const ERR_SKBINFO: i32 = 4114;
/// Of the hash types.
const ERR_HASH_FULL: i32 = 4352;
const ERR_HASH_ELEM: i32 = 4353;

/// Asks the kernel for its version of the protocol; answers the newest that both speak.
pub(super) fn negotiate(socket: &mut Socket) -> Result<u8, KernelError> {
    let operation = || "cannot ask for the version of ipset's protocol".to_owned();
    let newest = socket.query(request(PROTOCOL, *PROTOCOL_VERSIONS.end()), operation, |reply| {
        message(reply)
            .and_then(|message| attribute(message.attributes, ATTR_PROTOCOL)?.first().copied())
            .ok_or_else(|| KernelError::malformed(operation(), "no version in it"))
    })?;
    let version = newest.min(*PROTOCOL_VERSIONS.end());
    if PROTOCOL_VERSIONS.contains(&version) {
        return Ok(version);
    }
    let message = format!("the kernel speaks version {newest}, this program {PROTOCOL_VERSIONS:?}");
    Err(KernelError::refused(operation(), libc::EPROTONOSUPPORT, Some(message)))
}

/// A request without a set's name.
pub(super) fn request(command: i32, protocol: u8) -> Request {
    let family = family_number(Family::Ipv4);
    let mut request = Request::new(message_type(libc::NFNL_SUBSYS_IPSET, command), family, 0, 0);
    request.put(ATTR_PROTOCOL, &[protocol]);
    request
}

pub(super) fn put_name(request: &mut Request, set: &SetName) {
    request.put_text(ATTR_SETNAME, set.as_str());
}

pub(super) fn put_other_name(request: &mut Request, set: &SetName) {
    request.put_text(ATTR_TYPENAME, set.as_str());
}

/// All sets without members.
pub(super) fn list_headers(protocol: u8) -> Request {
    let mut request = request(LIST, protocol);
    request.put_be32(ATTR_FLAGS, FLAG_LIST_HEADER);
    request
}

/// The revisions of a type.
pub(super) fn ask_type(protocol: u8, kind: SetKind, family: Family) -> Request {
    let mut request = request(TYPE, protocol);
    request.put_text(ATTR_TYPENAME, type_name(kind));
    request.put(ATTR_FAMILY, &[family_number(family)]);
    request
}

pub(super) fn newest_revision(reply: &Reply<'_>) -> Option<u8> {
    attribute(message(reply)?.attributes, ATTR_REVISION)?.first().copied()
}

/// What a set is made as, behind its name.
pub(super) fn put_spec(request: &mut Request, spec: &SetSpec, revision: u8) {
    request.put_text(ATTR_TYPENAME, type_name(spec.kind));
    // A kernel whose sets cannot have marks is asked for a revision that it does not have, and refuses.
    let revision = if spec.kind == SetKind::Marks { revision.max(SKBINFO_SINCE) } else { revision };
    request.put(ATTR_REVISION, &[revision]);
    request.put(ATTR_FAMILY, &[family_number(spec.family)]);
    request.nest(ATTR_DATA, |request| {
        request.put_be32(DATA_HASHSIZE, spec.hash_size);
        request.put_be32(DATA_MAXELEM, spec.max_elements);
        match spec.kind {
            SetKind::Marks => request.put_be32(DATA_CADT_FLAGS, CADT_WITH_SKBINFO),
            SetKind::Counted => request.put_be32(DATA_CADT_FLAGS, CADT_WITH_COUNTERS),
            SetKind::Addresses | SetKind::Nets | SetKind::Ports | SetKind::Homes => {}
        }
    });
}

pub(super) const fn type_name(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Addresses | SetKind::Marks | SetKind::Counted => "hash:ip",
        SetKind::Nets => "hash:net",
        SetKind::Ports => "hash:ip,port",
        SetKind::Homes => "hash:net,iface",
    }
}

pub(super) const fn command_of(change: &ElementChange) -> i32 {
    match change {
        ElementChange::Put(_) => ADD,
        ElementChange::Delete(_) => DEL,
    }
}

/// Whether the kernel is asked at all: a prefix of length 0 would be taken for something else by some revisions.
pub(super) fn is_acceptable(change: &ElementChange) -> bool {
    !matches!(change.element(), SetElement::Net(prefix) if prefix.len() == 0)
}

/// The error of a change that is not [acceptable](is_acceptable).
pub(super) fn unacceptable(set: &SetName, change: &ElementChange) -> KernelError {
    let words = "a hash:net set takes no prefix of length 0; its two halves say the same".to_owned();
    KernelError::refused(change_operation(set, change), libc::EINVAL, Some(words))
}

pub(super) fn change_operation(set: &SetName, change: &ElementChange) -> String {
    match change {
        ElementChange::Put(element) => format!("cannot add {element} to set {set}"),
        ElementChange::Delete(element) => format!("cannot delete {element} from set {set}"),
    }
}

/// One member.
pub(super) fn put_element(request: &mut Request, element: &SetElement) {
    request.nest(ATTR_DATA, |request| put_data(request, element));
}

/// Several members, each with its place counted from 1, by which an error names it (0 would not be reported). The kernel
/// wants a place outside, too, into which it writes the one that failed.
pub(super) fn put_elements(request: &mut Request, elements: impl Iterator<Item = SetElement>) {
    request.put(ATTR_LINENO, &0_u32.to_ne_bytes());
    request.nest(ATTR_ADT, |request| {
        for (line, element) in (1_u32..).zip(elements) {
            request.nest(ATTR_DATA, |request| {
                put_data(request, &element);
                request.put(ATTR_LINENO, &line.to_ne_bytes());
            });
        }
    });
}

/// The place of the member that failed, counted from 0, from the request as the error repeats it.
pub(super) fn failed_line(echo: &[u8]) -> Option<usize> {
    let body = echo.get(4..)?;
    let line = u32::from_ne_bytes(*attribute(body, ATTR_LINENO)?.first_chunk()?);
    usize::try_from(line).ok()?.checked_sub(1)
}

fn put_data(request: &mut Request, element: &SetElement) {
    match *element {
        SetElement::Address(address) | SetElement::Counted(CountedAddress(address)) => put_address(request, address),
        SetElement::Home(AddressHome { address, interface }) => {
            put_address(request, address);
            request.put_text(DATA_IFACE, &interface.to_string());
        }
        SetElement::Net(prefix) => {
            put_address(request, prefix.addr());
            request.put(DATA_CIDR, &[prefix.len()]);
        }
        SetElement::Port(AddressPort { address, protocol, port }) => {
            put_address(request, address);
            request.put(DATA_PORT | NLA_F_NET_BYTEORDER, &port.to_be_bytes());
            request.put(DATA_PROTO, &[protocol.number()]);
        }
        SetElement::Mark(MarkedAddress { address, mark, mask }) => {
            put_address(request, address);
            let both = u64::from(mark) << 32 | u64::from(mask);
            request.put(DATA_SKBMARK | NLA_F_NET_BYTEORDER, &both.to_be_bytes());
        }
    }
}

fn put_address(request: &mut Request, address: IpAddr) {
    let kind = if address.is_ipv4() { IPADDR_IPV4 } else { IPADDR_IPV6 };
    request.nest(DATA_IP, |request| {
        nfnetlink::with_octets(address, |octets| request.put(kind | NLA_F_NET_BYTEORDER, octets));
    });
}

/// A set without its members.
pub(super) fn parse_header(reply: &Reply<'_>) -> Result<SetHeader, &'static str> {
    let message = message(reply).ok_or("it is too short")?;
    let name = attribute(message.attributes, ATTR_SETNAME).and_then(nfnetlink::text).ok_or("a set without name")?;
    let data = attribute(message.attributes, ATTR_DATA).unwrap_or_default();
    let number = |kind| attribute(data, kind).and_then(be32);
    let spec = spec_kind(message.attributes).zip(header_family(message.attributes)).and_then(|(kind, family)| {
        Some(SetSpec { kind, family, max_elements: number(DATA_MAXELEM)?, hash_size: number(DATA_HASHSIZE)? })
    });
    Ok(SetHeader {
        name: SetName(name),
        spec,
        references: number(DATA_REFERENCES).unwrap_or_default(),
        elements: number(DATA_ELEMENTS).unwrap_or_default(),
    })
}

/// The kind of a set by its header; none if Manx makes no such sets.
fn spec_kind(header: &[u8]) -> Option<SetKind> {
    let data = attribute(header, ATTR_DATA)?;
    if attribute(data, DATA_NETMASK).is_some() {
        return None;
    }
    let flags = attribute(data, DATA_CADT_FLAGS).and_then(be32).unwrap_or_default();
    match attribute(header, ATTR_TYPENAME).and_then(nfnetlink::text)?.as_str() {
        "hash:ip" if flags & CADT_WITH_SKBINFO != 0 => Some(SetKind::Marks),
        "hash:ip" if flags & CADT_WITH_COUNTERS != 0 => Some(SetKind::Counted),
        "hash:ip" => Some(SetKind::Addresses),
        "hash:net" => Some(SetKind::Nets),
        "hash:ip,port" => Some(SetKind::Ports),
        "hash:net,iface" => Some(SetKind::Homes),
        _ => None,
    }
}

fn header_family(header: &[u8]) -> Option<Family> {
    nfnetlink::family_of_number(*attribute(header, ATTR_FAMILY)?.first()?)
}

/// The members that one message of a dump carries, each with the packets that it counted, where the set counts. The first
/// message has the set's header, which says what the members are; that is kept in `kind` for the messages that follow.
pub(super) fn parse_elements(
    reply: &Reply<'_>,
    kind: &mut Option<SetKind>,
    elements: &mut Vec<(SetElement, u64)>,
) -> Result<(), &'static str> {
    let message = message(reply).ok_or("it is too short")?;
    if attribute(message.attributes, ATTR_TYPENAME).is_some() {
        *kind = spec_kind(message.attributes);
    }
    let kind = kind.ok_or("a set of a type that is not ours")?;
    let Some(members) = attribute(message.attributes, ATTR_ADT) else { return Ok(()) };
    for (_, data) in attributes(members) {
        let packets = attribute(data, DATA_PACKETS).and_then(|value| value.first_chunk());
        let packets = packets.map(|octets| u64::from_be_bytes(*octets)).unwrap_or_default();
        elements.push((parse_element(kind, data).ok_or("a member that is not of its set's form")?, packets));
    }
    Ok(())
}

fn parse_element(kind: SetKind, data: &[u8]) -> Option<SetElement> {
    let mut address = None;
    let mut length = None;
    let mut port = None;
    let mut protocol = None;
    let mut interface = None;
    // The kernel leaves it out when mark and mask are zero.
    let mut mark = 0;
    for (kind, value) in attributes(data) {
        match kind {
            DATA_IP => address = attributes(value).next().and_then(|(_, octets)| nfnetlink::address(octets)),
            DATA_CIDR => length = value.first().copied(),
            DATA_PORT => port = be16(value),
            DATA_PROTO => protocol = value.first().copied(),
            DATA_IFACE => interface = nfnetlink::text(value).and_then(|name| LinkName::new(name.as_bytes())),
            DATA_SKBMARK => mark = value.first_chunk().map(|octets| u64::from_be_bytes(*octets))?,
            _ => {}
        }
    }
    let address = address?;
    Some(match kind {
        SetKind::Addresses => SetElement::Address(address),
        SetKind::Nets => {
            SetElement::Net(Prefix::new(address, length.unwrap_or_else(|| Family::of(address).bits())).ok()?)
        }
        SetKind::Ports => {
            let number = protocol?;
            let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)?;
            SetElement::Port(AddressPort { address, protocol, port: port? })
        }
        SetKind::Marks => {
            let [mark, mask] = [mark >> 32, mark & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(0));
            SetElement::Mark(MarkedAddress { address, mark, mask })
        }
        SetKind::Counted => SetElement::Counted(CountedAddress(address)),
        SetKind::Homes => SetElement::Home(AddressHome { address, interface: interface? }),
    })
}

/// Sorts ipset's own error numbers, which no errno has, and gives them words.
pub(super) fn worded(error: KernelError) -> KernelError {
    let KernelError::Rejected(failure) = error else { return error };
    let (sort, errno, words): (fn(Failure) -> KernelError, i32, &str) = match failure.errno {
        ERR_HASH_FULL => (KernelError::Full, libc::ENOSPC, "the set has all the members that it may have"),
        ERR_BUSY => (KernelError::Busy, libc::EBUSY, "a rule refers to the set"),
        ERR_REFERENCED => (KernelError::Busy, libc::EBUSY, "another set refers to the set"),
        ERR_EXIST_SETNAME2 => (KernelError::Gone, libc::ENOENT, "there is no second set of that name"),
        ERR_EXIST => (KernelError::Exists, libc::EEXIST, "the member is there already"),
        ERR_MAX_SETS => (KernelError::Rejected, libc::ENOSPC, "there are as many sets as there may be"),
        ERR_FIND_TYPE => (KernelError::Rejected, libc::EOPNOTSUPP, "the kernel has no such type of sets"),
        ERR_PROTOCOL => (KernelError::Rejected, libc::EPROTO, "the message is not as ipset's protocol has it"),
        ERR_TYPE_MISMATCH => (KernelError::Rejected, libc::EINVAL, "the sets are of different types"),
        ERR_SKBINFO => (KernelError::Rejected, libc::EINVAL, "the set was made without marks"),
        ERR_HASH_ELEM => (KernelError::Rejected, libc::EINVAL, "no such member can be"),
        _ => return KernelError::Rejected(failure),
    };
    let message = failure.message.or_else(|| Some(words.to_owned()));
    sort(Failure { operation: failure.operation, errno, message })
}

#[cfg(test)]
mod tests;
