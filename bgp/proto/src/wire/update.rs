//! UPDATE (RFC 4271 section 4.3, RFC 4760).

use std::net::{IpAddr, Ipv6Addr};

use nom::Parser as _;
use nom::multi::length_data;
use nom::number::complete::be_u16;
use types::{Family, Prefix};

use super::attributes::{self, MpReach, PathAttributes};
use super::codec::Codec;
use super::fault::{AttributeFault, DecodeError, Handling};
use super::header::HEADER_LENGTH;
use super::nlri;
use super::notification::{ErrorCode, UpdateError};
use super::octets::{Parsed, Unreadable};

/// An UPDATE after RFC 7606 has been applied: what it withdraws and what it announces, to be used in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Withdrawn prefixes of both families, and all announced ones where an attribute fault means treat-as-withdraw.
    pub withdrawn: Vec<Prefix>,
    /// Announced prefixes, at most one group per family and encoding.
    pub reach: Vec<Reach>,
    /// The attributes of all announced prefixes: there whenever `reach` is not empty.
    pub attributes: Option<PathAttributes>,
    /// The sender has sent all its routes of this family (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// Malformed attributes, in the order in which they stand.
    pub faults: Vec<AttributeFault>,
}

/// Prefixes that are reached through one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The family of the prefixes.
    pub family: Family,
    /// A unicast address; global where IPv6 has both.
    pub next_hop: IpAddr,
    /// The link-local next hop that came beside a global one (RFC 2545 section 3).
    pub link_local: Option<Ipv6Addr>,
    /// At least one.
    pub prefixes: Vec<Prefix>,
}

impl Update {
    /// The body of an UPDATE, everything behind the header.
    pub(super) fn parse(codec: &Codec, body: &[u8]) -> Result<Self, DecodeError> {
        let reset = |error, offset| DecodeError::new(ErrorCode::Update(error), HEADER_LENGTH + offset, &[]);
        let fields = |input| (length_data(be_u16), length_data(be_u16)).parse(input);
        let parsed: Parsed<'_, (&[u8], &[u8])> = fields(body);
        let (nlri, (withdrawn, attributes)) = parsed
            .map_err(|error| reset(UpdateError::MalformedAttributeList, body.len() - Unreadable::from(error).left))?;
        if body == [0; 4] {
            return Ok(Self { end_of_rib: Some(Family::Ipv4), ..Self::default() });
        }
        let ipv4 = codec.families.contains(Family::Ipv4);
        let prefixes = |field: &[u8], offset: usize| {
            let mut prefixes = Vec::new();
            let parsed = nlri::parse(Family::Ipv4, field, &mut prefixes);
            let place = |error: Unreadable| offset + field.len() - error.left;
            parsed.map_err(|error| reset(UpdateError::InvalidNetworkField, place(error)))?;
            Ok(if ipv4 { prefixes } else { Vec::new() })
        };
        let mut update = Self { withdrawn: prefixes(withdrawn, 2)?, ..Self::default() };
        let announced = prefixes(nlri, 4 + withdrawn.len() + attributes.len())?;

        let offset = HEADER_LENGTH + 4 + withdrawn.len();
        let mut read = attributes::read(codec, attributes, offset)?;
        if let Some((family, prefixes)) = read.unreach.take() {
            let alone = !read.describes_routes() && withdrawn.is_empty() && nlri.is_empty();
            update.end_of_rib = (alone && prefixes.is_empty()).then_some(family);
            update.withdrawn.extend(prefixes);
        }
        let announces = !announced.is_empty() || read.reach.as_ref().is_some_and(|reach| !reach.prefixes.is_empty());
        if announces {
            read.require_mandatory(codec, !announced.is_empty(), offset);
        }
        let strongest = read.faults.iter().filter(|fault| fault.handling == Handling::TreatAsWithdraw).next();
        if let Some(fault) = strongest
            && !announces
            && read.describes_routes()
        {
            // There should be routes, and it is not certain that none were overlooked (RFC 7606 section 5.2).
            return Err(DecodeError::new(ErrorCode::Update(fault.error), fault.offset, &[]));
        }
        let withdraw = strongest.is_some();
        update.faults = read.faults;
        if withdraw {
            update.withdrawn.extend(announced);
            update.withdrawn.extend(read.reach.into_iter().flat_map(|reach| reach.prefixes));
            return Ok(update);
        }
        if let Some(next_hop) = read.next_hop.filter(|_| !announced.is_empty()) {
            let next_hop = next_hop.into();
            update.reach.push(Reach { family: Family::Ipv4, next_hop, link_local: None, prefixes: announced });
        }
        if let Some(MpReach { family, next_hop: Some(next_hop), link_local, prefixes }) = read.reach
            && !prefixes.is_empty()
        {
            update.reach.push(Reach { family, next_hop, link_local, prefixes });
        }
        update.attributes = announces.then_some(read.attributes);
        Ok(update)
    }
}
