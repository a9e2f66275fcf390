//! Reads and writes neighbour entries by rtnetlink.

use rtnetlink::packet_core::{DecodeError, NLM_F_CREATE, NLM_F_REPLACE, NlasIterator, parse_ip};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use std::net::IpAddr;

use super::socket::Socket;
use crate::{KernelError, Neighbour};

/// The size of struct ndmsg.
const HEADER_BYTES: usize = 12;

pub(super) fn list(socket: &mut Socket) -> Result<Vec<Neighbour>, KernelError> {
    let operation = || "cannot list neighbours".to_owned();
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    socket.dump(&request, operation, Vec::new, |neighbours, reply| {
        neighbours.extend(parse_neighbour(reply.payload).map_err(|error| KernelError::malformed(operation(), error))?);
        Ok(())
    })
}

pub(super) fn set(socket: &mut Socket, neighbour: &Neighbour) -> Result<(), KernelError> {
    let (message, flags) = setting_of(neighbour);
    socket.change(message, flags, || format!("cannot set {neighbour}"))
}

/// The request that sets an entry, with its flags.
pub(super) fn setting_of(neighbour: &Neighbour) -> (RouteNetlinkMessage, u16) {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match neighbour.address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = neighbour.index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.extend([
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(neighbour.mac.to_vec()),
    ]);
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Reads the payload of RTM_NEWNEIGH; `None` for entries that are not IP or have no Ethernet address.
fn parse_neighbour(payload: &[u8]) -> Result<Option<Neighbour>, DecodeError> {
    let header = NeighbourHeader::parse(payload)?;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(None);
    }
    let (mut address, mut mac) = (None, None);
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::NDA_DST => address = Some(parse_ip(attribute.value())?),
            libc::NDA_LLADDR => mac = attribute.value().try_into().ok(),
            _ => {}
        }
    }
    let permanent = header.state == NeighbourState::Permanent;
    Ok(address.zip(mac).map(|(address, mac)| Neighbour { index: header.ifindex, address, mac, permanent }))
}
