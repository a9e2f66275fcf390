//! Reads and changes interfaces' addresses by rtnetlink.

use std::net::IpAddr;

use rtnetlink::packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, NlasIterator, parse_ip, parse_u32};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags as WireFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::socket::Socket;
use crate::{AddressFlags, InterfaceAddress, KernelError, Scope};

/// The size of struct ifaddrmsg.
const HEADER_BYTES: usize = 8;

pub(super) fn list(socket: &mut Socket) -> Result<Vec<InterfaceAddress>, KernelError> {
    let operation = || "cannot list addresses".to_owned();
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    socket.dump(&request, operation, Vec::new, |addresses, reply| {
        addresses.extend(parse_address(reply.payload).map_err(|error| KernelError::malformed(operation(), error))?);
        Ok(())
    })
}

pub(super) fn add(socket: &mut Socket, address: &InterfaceAddress) -> Result<(), KernelError> {
    let (message, flags) = addition_of(address);
    match socket.change(message, flags, || format!("cannot add {address}")) {
        Err(KernelError::Exists(_)) => Ok(()),
        other => other,
    }
}

/// The request that adds an address, with its flags.
pub(super) fn addition_of(address: &InterfaceAddress) -> (RouteNetlinkMessage, u16) {
    (RouteNetlinkMessage::NewAddress(message_of(address)), NLM_F_CREATE | NLM_F_EXCL)
}

pub(super) fn delete(socket: &mut Socket, address: &InterfaceAddress) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::DelAddress(message_of(address));
    match socket.change(message, 0, || format!("cannot delete {address}")) {
        // IPv4 and IPv6 answer "cannot assign requested address" for an absent address; an absent interface is ENODEV.
        Err(KernelError::Gone(_)) => Ok(()),
        Err(KernelError::Rejected(failure)) if failure.errno == libc::EADDRNOTAVAIL => Ok(()),
        other => other,
    }
}

fn message_of(address: &InterfaceAddress) -> AddressMessage {
    let bits = address.flags.bits();
    let mut message = AddressMessage::default();
    message.header.family = match address.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = address.prefix_len;
    message.header.scope = u8::from(address.scope).into();
    message.header.index = address.index;
    message.header.flags = AddressHeaderFlags::from_bits_retain(bits.to_le_bytes()[0]);
    // IFA_LOCAL is the interface's own address; IFA_ADDRESS is the other end's, or the same where there is none.
    message.attributes.extend([
        AddressAttribute::Local(address.address),
        AddressAttribute::Address(address.peer.unwrap_or(address.address)),
        AddressAttribute::Flags(WireFlags::from_bits_retain(bits)),
    ]);
    message
}

/// Reads the payload of RTM_NEWADDR or RTM_DELADDR; `None` for families other than IP.
pub(crate) fn parse_address(payload: &[u8]) -> Result<Option<InterfaceAddress>, DecodeError> {
    let too_short = || DecodeError::buffer_too_small(payload.len(), HEADER_BYTES);
    let (header, attributes) = payload.split_at_checked(HEADER_BYTES).ok_or_else(too_short)?;
    let &[family, prefix_len, flags, scope, ref index @ ..] = header else {
        return Err(too_short());
    };
    if !matches!(i32::from(family), libc::AF_INET | libc::AF_INET6) {
        return Ok(None);
    }
    let (mut local, mut address, mut flags) = (None, None, u32::from(flags));
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::IFA_LOCAL => local = Some(parse_ip(attribute.value())?),
            libc::IFA_ADDRESS => address = Some(parse_ip(attribute.value())?),
            libc::IFA_FLAGS => flags = parse_u32(attribute.value())?,
            _ => {}
        }
    }
    let Some(own) = local.or(address) else {
        return Ok(None);
    };
    Ok(Some(InterfaceAddress {
        index: parse_u32(index)?,
        address: own,
        prefix_len,
        scope: Scope::from(scope),
        peer: address.filter(|&address| address != own),
        flags: AddressFlags::from_bits(flags),
    }))
}

#[cfg(test)]
mod tests;
