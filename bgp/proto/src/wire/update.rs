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
        if body == EMPTY {
            return Ok(Self { end_of_rib: Some(Family::Ipv4), ..Self::default() });
        }
        let Fields { withdrawn, attributes, nlri } = fields(body)?;
        let attributes_offset = HEADER_LENGTH + 4 + withdrawn.len();
        let mut update = Self { withdrawn: ipv4_prefixes(codec, withdrawn, HEADER_LENGTH + 2)?, ..Self::default() };
        let announced = ipv4_prefixes(codec, nlri, attributes_offset + attributes.len())?;
        let mut read = attributes::read(codec, attributes, attributes_offset)?;
        if let Some((family, prefixes)) = read.unreach.take() {
            let alone = !read.describes_routes() && withdrawn.is_empty() && nlri.is_empty();
            update.end_of_rib = (alone && prefixes.is_empty()).then_some(family);
            update.withdrawn.extend(prefixes);
        }

        let multiprotocol = read.reach.take_if(|reach| !reach.prefixes.is_empty());
        let announces = !announced.is_empty() || multiprotocol.is_some();
        if announces {
            read.require_mandatory(codec, !announced.is_empty(), attributes_offset);
        }
        let describes_routes = read.describes_routes();
        update.faults = read.faults;
        let fault = update.faults.iter().find(|fault| fault.handling == Handling::TreatAsWithdraw);
        match fault {
            // There should be routes, and it is not certain that none were overlooked (RFC 7606 section 5.2).
            Some(fault) if !announces && describes_routes => {
                return Err(DecodeError::new(ErrorCode::Update(fault.error), fault.offset, &[]));
            }
            Some(_) => {
                update.withdrawn.extend(announced);
                update.withdrawn.extend(multiprotocol.into_iter().flat_map(|reach| reach.prefixes));
            }
            None => {
                let classic = read.next_hop.filter(|_| !announced.is_empty()).map(|next_hop| Reach {
                    family: Family::Ipv4,
                    next_hop: next_hop.into(),
                    link_local: None,
                    prefixes: announced,
                });
                update.reach.extend(classic);
                update.reach.extend(multiprotocol.and_then(Reach::from_multiprotocol));
                update.attributes = announces.then_some(read.attributes);
            }
        }
        Ok(update)
    }
}

impl Reach {
    /// `None` without a usable next hop, which is a fault that has been dealt with.
    fn from_multiprotocol(MpReach { family, next_hop, link_local, prefixes }: MpReach) -> Option<Self> {
        Some(Self { family, next_hop: next_hop?, link_local, prefixes })
    }
}

/// The variable fields of an UPDATE.
struct Fields<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

fn fields(body: &[u8]) -> Result<Fields<'_>, DecodeError> {
    let parsed: Parsed<'_, (&[u8], &[u8])> = (length_data(be_u16), length_data(be_u16)).parse_complete(body);
    let (nlri, (withdrawn, attributes)) = parsed.map_err(|error| {
        let offset = HEADER_LENGTH + body.len() - Unreadable::from(error).left;
        DecodeError::new(ErrorCode::Update(UpdateError::MalformedAttributeList), offset, &[])
    })?;
    Ok(Fields { withdrawn, attributes, nlri })
}

/// The prefixes of a field that begins at `offset` in the message; none if the family was not agreed on.
fn ipv4_prefixes(codec: &Codec, field: &[u8], offset: usize) -> Result<Vec<Prefix>, DecodeError> {
    let mut prefixes = Vec::new();
    nlri::parse(Family::Ipv4, field, &mut prefixes).map_err(|Unreadable { left }| {
        let offset = offset + field.len() - left;
        DecodeError::new(ErrorCode::Update(UpdateError::InvalidNetworkField), offset, &[])
    })?;
    if !codec.families.contains(Family::Ipv4) {
        prefixes.clear();
    }
    Ok(prefixes)
}

/// No prefixes and no attributes.
const EMPTY: [u8; 4] = [0; 4];
