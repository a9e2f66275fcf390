//! Reads and changes routes by rtnetlink: whole tables, changes in batches, look-ups.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::{
    DecodeError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator, parse_ip, parse_u16, parse_u32,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop as WireNextHop, RouteNextHopFlags, RouteScope,
    RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use types::{Family, Prefix};

use super::socket::Socket;
use crate::{KernelError, Resolution, Route, RouteChange, RouteFailure, RouteFilter, RouteKind, RouteNextHop, Scope};

/// The size of struct rtmsg.
const HEADER_BYTES: usize = 12;

/// The size of struct rtnexthop.
const NEXT_HOP_BYTES: usize = 8;

pub(super) fn list(socket: &mut Socket, filter: &RouteFilter) -> Result<Vec<Route>, KernelError> {
    let operation = || format!("cannot list {} routes of table {}", filter.family, filter.table);
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(filter.family);
    request.header.protocol = filter.protocol.unwrap_or(libc::RTPROT_UNSPEC).into();
    request.attributes.push(RouteAttribute::Table(filter.table));
    let listed = socket.dump(&RouteNetlinkMessage::GetRoute(request), operation, Vec::new, |routes, reply| {
        let route = parse_route(reply.payload).map_err(|error| KernelError::malformed(operation(), error))?;
        // The kernel has filtered the routes already, unless it is too old for that.
        routes.extend(route.filter(|route| filter.passes(route)));
        Ok(())
    });
    match listed {
        // A table in which there has never been a route does not exist, and strict checking makes that an error.
        Err(KernelError::Gone(_)) => Ok(Vec::new()),
        other => other,
    }
}

pub(super) fn change(socket: &mut Socket, changes: &[RouteChange]) -> Result<Vec<RouteFailure>, KernelError> {
    let operation = || match changes {
        [only] => format!("cannot {only}"),
        _ => format!("cannot change {} routes", changes.len()),
    };
    let refusals = socket.batch(changes.iter().map(message_of), operation)?;
    let failures = refusals.into_iter().filter_map(|refusal| {
        let change = changes.get(refusal.index)?;
        let error = KernelError::refused(format!("cannot {change}"), refusal.errno, refusal.message);
        let absent = matches!((change, &error), (RouteChange::Delete(_), KernelError::Gone(_)));
        (!absent).then_some(RouteFailure { index: refusal.index, error })
    });
    Ok(failures.collect())
}

/// The request for a change, with its flags.
pub(super) fn message_of(change: &RouteChange) -> (RouteNetlinkMessage, u16) {
    match change {
        RouteChange::Add(route) => (RouteNetlinkMessage::NewRoute(full(route)), NLM_F_CREATE | NLM_F_EXCL),
        // One message holds all next hops. IPv6 then puts the first in the place of the whole old set and appends the
        // others, so that exactly the new set remains.
        RouteChange::Replace(route) => (RouteNetlinkMessage::NewRoute(full(route)), NLM_F_CREATE | NLM_F_REPLACE),
        RouteChange::Delete(route) => {
            let mut message = identity(route);
            // The kernel does not look at either when it finds the route to delete.
            message.header.scope = RouteScope::NoWhere;
            message.header.kind = RouteType::Unspec;
            (RouteNetlinkMessage::DelRoute(message), 0)
        }
    }
}

/// The attributes by which the kernel finds a route and tells whose it is.
fn identity(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(route.prefix.family());
    message.header.destination_prefix_length = route.prefix.len();
    message.header.protocol = route.protocol.into();
    message.attributes.reserve(6);
    message.attributes.push(RouteAttribute::Destination(route.prefix.addr().into()));
    // The header's rtm_table has only eight bits; the attribute takes precedence.
    message.attributes.push(RouteAttribute::Table(route.table));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

/// All attributes of a route.
fn full(route: &Route) -> RouteMessage {
    let route = if route.next_hops.len() > 1 { Cow::Owned(route.clone().canonical()) } else { Cow::Borrowed(route) };
    let mut message = identity(&route);
    message.header.scope = u8::from(route.scope).into();
    message.header.kind = u8::from(route.kind).into();
    if let Some(source) = route.preferred_source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    match route.next_hops.as_slice() {
        [] => {}
        [hop] => {
            message.attributes.extend(gateway(hop, route.prefix.family()));
            message.attributes.extend(hop.interface.map(RouteAttribute::Oif));
            if hop.onlink {
                message.header.flags = RouteFlags::Onlink;
            }
        }
        hops => {
            let hops = hops.iter().map(|hop| wire_next_hop(hop, route.prefix.family())).collect();
            message.attributes.push(RouteAttribute::MultiPath(hops));
        }
    }
    message
}

fn wire_next_hop(hop: &RouteNextHop, family: Family) -> WireNextHop {
    let mut wire = WireNextHop::default();
    wire.hops = hop.weight.saturating_sub(1);
    wire.interface_index = hop.interface.unwrap_or(0);
    if hop.onlink {
        wire.flags = RouteNextHopFlags::Onlink;
    }
    wire.attributes.extend(gateway(hop, family));
    wire
}

fn gateway(hop: &RouteNextHop, family: Family) -> Option<RouteAttribute> {
    hop.gateway.map(|gateway| match (gateway, family) {
        // RFC 8950 allows an IPv4 prefix with an IPv6 next hop.
        (IpAddr::V6(gateway), Family::Ipv4) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        (gateway, _) => RouteAttribute::Gateway(gateway.into()),
    })
}

pub(super) fn resolve(socket: &mut Socket, destination: IpAddr) -> Result<Option<Resolution>, KernelError> {
    let operation = || format!("cannot look up a route to {destination}");
    let prefix = Prefix::host(destination);
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(prefix.family());
    request.header.destination_prefix_length = prefix.len();
    request.header.flags = RouteFlags::FibMatch;
    request.attributes.push(RouteAttribute::Destination(destination.into()));
    let found = socket.query(RouteNetlinkMessage::GetRoute(request), operation, |reply| {
        parse_route(reply.payload).map_err(|error| KernelError::malformed(operation(), error))
    });
    match found {
        Ok(route) => Ok(route.filter(leads_somewhere).map(|route| Resolution {
            prefix: route.prefix,
            protocol: route.protocol,
            metric: route.metric,
            kind: route.kind,
            connected: route.next_hops.iter().all(|hop| hop.gateway.is_none()),
            next_hops: route.next_hops,
        })),
        Err(KernelError::Unreachable(_)) => Ok(None),
        // IPv4 answers these errors for black holes and prohibited destinations (net/ipv4/fib_semantics.c, fib_props).
        Err(KernelError::Rejected(failure)) if matches!(failure.errno, libc::EINVAL | libc::EACCES) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the route refuses packets: IPv6 shows such a route where IPv4 answers an error.
fn leads_somewhere(route: &Route) -> bool {
    matches!(route.kind, RouteKind::Unicast | RouteKind::Local)
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

/// Reads the payload of RTM_NEWROUTE or RTM_DELROUTE into canonical form; `None` for what is no route of a table (other
/// families, cached clones).
pub(crate) fn parse_route(payload: &[u8]) -> Result<Option<Route>, DecodeError> {
    let header = RouteHeader::parse(payload)?;
    let nowhere: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let mut destination = nowhere;
    let mut table = u32::from(header.table);
    let (mut metric, mut preferred_source) = (0, None);
    let mut single =
        RouteNextHop { gateway: None, interface: None, onlink: header.flags.contains(RouteFlags::Onlink), weight: 1 };
    let mut next_hops = Vec::new();
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            libc::RTA_DST => destination = parse_ip(value)?,
            libc::RTA_TABLE => table = parse_u32(value)?,
            libc::RTA_PRIORITY => metric = parse_u32(value)?,
            libc::RTA_PREFSRC => preferred_source = Some(parse_ip(value)?),
            libc::RTA_GATEWAY => single.gateway = Some(parse_ip(value)?),
            libc::RTA_VIA => single.gateway = parse_via(value)?,
            libc::RTA_OIF => single.interface = Some(parse_u32(value)?),
            libc::RTA_MULTIPATH => next_hops = parse_next_hops(value)?,
            _ => {}
        }
    }
    if next_hops.is_empty() && (single.gateway.is_some() || single.interface.is_some()) {
        next_hops.push(single);
    }
    let prefix = Prefix::new(destination, header.destination_prefix_length)
        .map_err(|error| DecodeError::from(error.to_string()))?;
    let route = Route {
        prefix,
        table,
        protocol: header.protocol.into(),
        metric,
        kind: RouteKind::from(u8::from(header.kind)),
        scope: Scope::from(u8::from(header.scope)),
        next_hops,
        preferred_source,
    };
    Ok(Some(route.canonical()))
}

/// Reads RTA_MULTIPATH: struct rtnexthop and attributes, repeated.
fn parse_next_hops(mut rest: &[u8]) -> Result<Vec<RouteNextHop>, DecodeError> {
    let mut hops = Vec::new();
    while !rest.is_empty() {
        let too_short = || DecodeError::buffer_too_small(rest.len(), NEXT_HOP_BYTES);
        let &[len0, len1, flags, weight, ref index @ ..] = rest.get(..NEXT_HOP_BYTES).ok_or_else(too_short)? else {
            return Err(too_short());
        };
        let length = usize::from(parse_u16(&[len0, len1])?);
        let attributes = rest.get(NEXT_HOP_BYTES..length).ok_or_else(too_short)?;
        let mut hop = RouteNextHop {
            gateway: None,
            interface: Some(parse_u32(index)?),
            onlink: RouteNextHopFlags::from_bits_retain(flags).contains(RouteNextHopFlags::Onlink),
            weight: weight.saturating_add(1),
        };
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::RTA_GATEWAY => hop.gateway = Some(parse_ip(attribute.value())?),
                libc::RTA_VIA => hop.gateway = parse_via(attribute.value())?,
                _ => {}
            }
        }
        hops.push(hop);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(hops)
}

/// Reads RTA_VIA: a gateway of the other family. `None` if it is not IP (MPLS over Ethernet).
fn parse_via(value: &[u8]) -> Result<Option<IpAddr>, DecodeError> {
    Ok(match RouteVia::parse(value)? {
        RouteVia::Inet(address) => Some(address.into()),
        RouteVia::Inet6(address) => Some(address.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
