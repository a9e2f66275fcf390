//! Reads and changes links by rtnetlink.

use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_core::{
    DecodeError, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NlasIterator, parse_i32, parse_string, parse_u32,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use types::InterfaceName;

use super::socket::Socket;
use crate::{KernelError, Link, LinkChange, VethSpec};

/// The size of struct ifinfomsg.
const HEADER_BYTES: usize = 16;

/// How many queues each end of a pair has in each direction. The kernel would make one for every processor that the machine may
/// ever have, each with a folder in sysfs: with two of them, half of what a pair costs. What is not XDP passes a pair without
/// waiting for a queue.
const QUEUES: u32 = 1;

pub(super) fn list(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    let operation = || "cannot list links".to_owned();
    let request = RouteNetlinkMessage::GetLink(without_statistics());
    socket.dump(&request, operation, Vec::new, |links, reply| {
        links.push(parse_link(reply.payload).map_err(|error| KernelError::malformed(operation(), error))?);
        Ok(())
    })
}

pub(super) fn named(socket: &mut Socket, name: &InterfaceName) -> Result<Option<Link>, KernelError> {
    let operation = || format!("cannot read link {name}");
    let mut request = without_statistics();
    request.attributes.push(LinkAttribute::IfName(name.to_string()));
    let found = socket.query(RouteNetlinkMessage::GetLink(request), operation, |reply| {
        parse_link(reply.payload).map_err(|error| KernelError::malformed(operation(), error))
    });
    match found {
        Ok(link) => Ok(Some(link)),
        Err(KernelError::Gone(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks for links without statistics: those are most of a link's message, and cost a walk over all processors.
fn without_statistics() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(super) fn create_veth(socket: &mut Socket, veth: &VethSpec<'_>) -> Result<u32, KernelError> {
    let operation = || format!("cannot create {veth}");
    let mut peer = LinkMessage::default();
    peer.attributes.extend([
        LinkAttribute::IfName(veth.peer.to_string()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
        LinkAttribute::NetNsFd(veth.peer_netns.as_fd().as_raw_fd()),
    ]);
    peer.attributes.extend(veth.peer_mac.map(|mac| LinkAttribute::Address(mac.to_vec())));

    let mut host = LinkMessage::default();
    set_up(&mut host.header, veth.host_up);
    host.attributes.extend([
        LinkAttribute::IfName(veth.host.to_string()),
        LinkAttribute::Address(veth.host_mac.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
        LinkAttribute::Group(veth.host_group),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
    let mut made = None;
    socket.change_heard(RouteNetlinkMessage::NewLink(host), flags, operation, |reply| {
        if reply.kind == libc::RTM_NEWLINK {
            made = LinkHeader::parse(reply.payload).ok().map(|header| header.index);
        }
    })?;
    if let Some(index) = made {
        return Ok(index);
    }
    // Kernels before 6.2 do not echo what they made, so the index takes a look-up: dearer, as it makes the kernel see to the
    // link's carrier first.
    let link = named(socket, &veth.host)?;
    link.map(|link| link.index).ok_or_else(|| {
        KernelError::refused(operation(), libc::ENODEV, Some("it was deleted as soon as it was made".to_owned()))
    })
}

pub(super) fn change(socket: &mut Socket, index: u32, change: &LinkChange) -> Result<(), KernelError> {
    socket.change(change_of(index, change), 0, || format!("cannot change link {index}"))
}

pub(super) fn change_of(index: u32, change: &LinkChange) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = change.up {
        set_up(&mut message.header, up);
    }
    message.attributes.extend(change.group.map(LinkAttribute::Group));
    message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    RouteNetlinkMessage::SetLink(message)
}

fn set_up(header: &mut LinkHeader, up: bool) {
    header.change_mask = LinkFlags::Up;
    header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
}

pub(super) fn delete(socket: &mut Socket, index: u32) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    gone_is_success(socket.change(RouteNetlinkMessage::DelLink(message), 0, || format!("cannot delete link {index}")))
}

pub(super) fn delete_group(socket: &mut Socket, group: u32) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    let operation = || format!("cannot delete link group {group}");
    gone_is_success(socket.change(RouteNetlinkMessage::DelLink(message), 0, operation))
}

fn gone_is_success(result: Result<(), KernelError>) -> Result<(), KernelError> {
    match result {
        Err(KernelError::Gone(_)) => Ok(()),
        other => other,
    }
}

/// Reads the payload of RTM_NEWLINK or RTM_DELLINK.
pub(crate) fn parse_link(payload: &[u8]) -> Result<Link, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
        group: 0,
        kind: None,
        peer_index: None,
        peer_netns: None,
    };
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => link.name = parse_string(value)?,
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = parse_u32(value)?,
            libc::IFLA_GROUP => link.group = parse_u32(value)?,
            libc::IFLA_LINK => link.peer_index = Some(parse_u32(value)?),
            libc::IFLA_LINK_NETNSID => link.peer_netns = Some(parse_i32(value)?),
            libc::IFLA_LINKINFO => link.kind = parse_kind(value)?,
            _ => {}
        }
    }
    Ok(link)
}

fn parse_kind(info: &[u8]) -> Result<Option<String>, DecodeError> {
    for attribute in NlasIterator::new(info) {
        let attribute = attribute?;
        if attribute.kind() == libc::IFLA_INFO_KIND {
            return parse_string(attribute.value()).map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
