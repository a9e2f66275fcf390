//! Reads and changes rules by rtnetlink.

use std::net::IpAddr;

use rtnetlink::packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use types::Family;

use super::socket::Socket;
use crate::{KernelError, SourceRule};

pub(super) fn list(socket: &mut Socket, family: Family) -> Result<Vec<SourceRule>, KernelError> {
    let operation = || format!("cannot list {family} rules");
    let mut request = RuleMessage::default();
    request.header.family = address_family(family);
    socket.dump(&RouteNetlinkMessage::GetRule(request), operation, Vec::new, |rules, reply| {
        rules.extend(parse_rule(reply.payload, family).map_err(|error| KernelError::malformed(operation(), error))?);
        Ok(())
    })
}

pub(super) fn add(socket: &mut Socket, rule: &SourceRule) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRule(message_of(rule));
    match socket.change(message, NLM_F_CREATE | NLM_F_EXCL, || format!("cannot add rule {rule}")) {
        Err(KernelError::Exists(_)) => Ok(()),
        other => other,
    }
}

pub(super) fn delete(socket: &mut Socket, rule: &SourceRule) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::DelRule(message_of(rule));
    match socket.change(message, 0, || format!("cannot delete rule {rule}")) {
        Err(KernelError::Gone(_)) => Ok(()),
        other => other,
    }
}

fn message_of(rule: &SourceRule) -> RuleMessage {
    let SourceRule { priority, source, table, protocol } = *rule;
    let family = Family::of(source);
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.src_len = family.bits();
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Source(source),
        // The header has only eight bits for it.
        RuleAttribute::Table(table),
        RuleAttribute::Priority(priority),
        RuleAttribute::Protocol(protocol.into()),
    ]);
    message
}

/// Reads the payload of RTM_NEWRULE; `None` for a rule that asks for anything else than one source.
fn parse_rule(payload: &[u8], family: Family) -> Result<Option<SourceRule>, DecodeError> {
    let RuleMessage { header, attributes, .. } = RuleMessage::parse(payload)?;
    if header.src_len != family.bits() || header.dst_len != 0 || header.action != RuleAction::ToTable {
        return Ok(None);
    }
    let (mut source, mut priority, mut table, mut protocol): (Option<IpAddr>, _, _, u8) =
        (None, 0, u32::from(header.table), 0);
    for attribute in attributes {
        match attribute {
            RuleAttribute::Source(address) => source = Some(address),
            RuleAttribute::Priority(number) => priority = number,
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::Protocol(number) => protocol = number.into(),
            _ => {}
        }
    }
    Ok(source.map(|source| SourceRule { priority, source, table, protocol }))
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}
