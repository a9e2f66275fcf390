//! Path attributes out of an UPDATE, each with the fate that RFC 7606 gives it when it is malformed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nom::Parser as _;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16};
use types::{Asn, ClusterId, Family, Prefix, RouterId};

use super::code::{self, EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE};
use super::{Aggregator, Origin, PathAttributes, UnknownAttribute};
use crate::wire::as_path::{AsPath, Confederation, Width};
use crate::wire::codec::{Codec, PeerType};
use crate::wire::family::AfiSafi;
use crate::wire::fault::{AttributeFault, DecodeError, Handling};
use crate::wire::nlri;
use crate::wire::notification::{ErrorCode, UpdateError};
use crate::wire::octets::Parsed;

/// What the path attributes field of an UPDATE holds.
#[derive(Debug, Default)]
pub(in crate::wire) struct Read {
    /// Those that routes share; meaningful when mandatory ones are there.
    pub(in crate::wire) attributes: PathAttributes,
    /// NEXT_HOP.
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    /// MP_REACH_NLRI of an agreed family.
    pub(in crate::wire) reach: Option<MpReach>,
    /// MP_UNREACH_NLRI of an agreed family.
    pub(in crate::wire) unreach: Option<(Family, Vec<Prefix>)>,
    /// What was malformed.
    pub(in crate::wire) faults: Vec<AttributeFault>,
    /// The codes of the attributes that are there.
    seen: Seen,
    /// AS4_PATH and AS4_AGGREGATOR, from a speaker of two octets.
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
}

/// The value of MP_REACH_NLRI (RFC 4760 section 3).
#[derive(Debug)]
pub(in crate::wire) struct MpReach {
    pub(in crate::wire) family: Family,
    /// `None` when it is not the address of a host.
    pub(in crate::wire) next_hop: Option<IpAddr>,
    pub(in crate::wire) link_local: Option<Ipv6Addr>,
    pub(in crate::wire) prefixes: Vec<Prefix>,
}

/// A set of attribute codes.
#[derive(Debug, Default)]
struct Seen([u128; 2]);

/// An attribute as it stands.
struct Attribute<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// Flags, code, length and value.
    whole: &'a [u8],
    /// Where it begins in the message.
    offset: usize,
}

/// Why a value was not taken, short of ending the session.
type Malformed = (UpdateError, Handling);

/// Reads the path attributes field, which begins at `offset` in the message.
pub(in crate::wire) fn read(codec: &Codec, field: &[u8], offset: usize) -> Result<Read, DecodeError> {
    let mut read = Read::default();
    let mut rest = field;
    while !rest.is_empty() {
        let at = offset + field.len() - rest.len();
        let Ok((behind, attribute)) = attribute(rest, at) else {
            // Attributes that overrun the field: where the routes are is still known (RFC 7606 section 4).
            read.fault(rest.get(1).copied().unwrap_or(0), UpdateError::AttributeLength, Handling::TreatAsWithdraw, at);
            break;
        };
        rest = behind;
        read.take(codec, &attribute)?;
    }
    read.merge_as4(codec);
    read.attributes.unknown.sort_by_key(|unknown| unknown.code);
    Ok(read)
}

fn attribute(input: &[u8], offset: usize) -> Parsed<'_, Attribute<'_>> {
    let (rest, (flags, code)) = (be_u8, be_u8).parse(input)?;
    let (rest, length) = if flags & EXTENDED_LENGTH != 0 { be_u16(rest)? } else { be_u8.map(u16::from).parse(rest)? };
    let (rest, value) = take(length).parse(rest)?;
    let whole = input.get(..input.len() - rest.len()).unwrap_or(input);
    Ok((rest, Attribute { flags, code, value, whole, offset }))
}

impl Read {
    /// Whether an attribute is there, malformed or not.
    pub(in crate::wire) const fn has(&self, code: u8) -> bool {
        self.seen.contains(code)
    }

    /// Whether attributes are there that only routes to be announced have.
    pub(in crate::wire) fn describes_routes(&self) -> bool {
        self.seen.any_but(code::MP_UNREACH_NLRI)
    }

    /// Records that mandatory attributes of announced routes are missing (RFC 7606 section 3 d); `classic` when there are
    /// routes in the NLRI field, which has its next hop in NEXT_HOP.
    pub(in crate::wire) fn require_mandatory(&mut self, codec: &Codec, classic: bool, offset: usize) {
        let mandatory = [
            (code::ORIGIN, true),
            (code::AS_PATH, true),
            (code::NEXT_HOP, classic),
            (code::LOCAL_PREF, codec.peer_type == PeerType::Internal),
        ];
        for (code, required) in mandatory {
            if required && !self.has(code) {
                self.fault(code, UpdateError::MissingWellKnown, Handling::TreatAsWithdraw, offset);
            }
        }
    }

    fn fault(&mut self, attribute: u8, error: UpdateError, handling: Handling, offset: usize) {
        self.faults.push(AttributeFault { attribute, error, handling, offset });
    }

    fn take(&mut self, codec: &Codec, attribute: &Attribute<'_>) -> Result<(), DecodeError> {
        let multiprotocol = matches!(attribute.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI);
        if !self.seen.insert(attribute.code) {
            // A second multiprotocol attribute ends the session, a second one of any other type is discarded (RFC 7606
            // section 3 g).
            if multiprotocol {
                return Err(attribute.reset(UpdateError::MalformedAttributeList, &[]));
            }
            self.fault(
                attribute.code,
                UpdateError::MalformedAttributeList,
                Handling::AttributeDiscard,
                attribute.offset,
            );
            return Ok(());
        }
        if attribute.is_only_internal() && codec.peer_type == PeerType::External {
            // From an external peer such an attribute is discarded (RFC 7606 sections 7.5, 7.9 and 7.10).
            self.fault(attribute.code, UpdateError::Unspecific, Handling::AttributeDiscard, attribute.offset);
            return Ok(());
        }
        match code::flags(attribute.code) {
            None => return self.take_unknown(attribute),
            Some(flags) if attribute.flags & (OPTIONAL | TRANSITIVE) != flags => {
                // Wrong flags withdraw the routes (RFC 7606 section 3 c), so those of MP_REACH_NLRI have to be read still.
                let error = UpdateError::AttributeFlags;
                self.fault(attribute.code, error, Handling::TreatAsWithdraw, attribute.offset);
                if !multiprotocol {
                    return Ok(());
                }
            }
            Some(_) => {}
        }
        let taken = match attribute.code {
            code::MP_REACH_NLRI => self.take_reach(codec, attribute)?,
            code::MP_UNREACH_NLRI => self.take_unreach(codec, attribute)?,
            _ => self.take_value(codec, attribute),
        };
        if let Err((error, handling)) = taken {
            self.fault(attribute.code, error, handling, attribute.offset);
        }
        Ok(())
    }

    /// Keeps an attribute that is not known here if it is transitive, and leaves it out if it is not; one that says it is
    /// well-known ends the session (RFC 4271 sections 5 and 6.3).
    fn take_unknown(&mut self, attribute: &Attribute<'_>) -> Result<(), DecodeError> {
        if attribute.flags & OPTIONAL == 0 {
            return Err(attribute.reset(UpdateError::UnrecognizedWellKnown, attribute.whole));
        }
        if attribute.flags & TRANSITIVE != 0 {
            self.attributes.unknown.push(UnknownAttribute { code: attribute.code, value: attribute.value.into() });
        }
        Ok(())
    }

    /// The attributes without NLRI (RFC 7606 section 7).
    fn take_value(&mut self, codec: &Codec, attribute: &Attribute<'_>) -> Result<(), Malformed> {
        let Attribute { code, value, .. } = *attribute;
        let partial = attribute.flags & PARTIAL != 0;
        let width = if codec.four_octet_as { Width::Four } else { Width::Two };
        match code {
            code::ORIGIN => {
                self.attributes.origin = match value {
                    [0] => Origin::Igp,
                    [1] => Origin::Egp,
                    [2] => Origin::Incomplete,
                    [_] => return Err((UpdateError::InvalidOrigin, Handling::TreatAsWithdraw)),
                    _ => return Err(LENGTH),
                };
            }
            code::AS_PATH => {
                self.attributes.as_path = AsPath::parse(value, width, Confederation::Malformed)
                    .map_err(|_| (UpdateError::MalformedAsPath, Handling::TreatAsWithdraw))?;
            }
            code::NEXT_HOP => {
                let address = Ipv4Addr::from(array::<4>(value)?);
                if !is_host(address.into()) {
                    return Err((UpdateError::InvalidNextHop, Handling::TreatAsWithdraw));
                }
                self.next_hop = Some(address);
            }
            code::MULTI_EXIT_DISC => self.attributes.med = Some(u32::from_be_bytes(array(value)?)),
            code::LOCAL_PREF => self.attributes.local_pref = Some(u32::from_be_bytes(array(value)?)),
            code::ATOMIC_AGGREGATE => {
                if !value.is_empty() {
                    return Err((UpdateError::AttributeLength, Handling::AttributeDiscard));
                }
                self.attributes.atomic_aggregate = true;
            }
            code::AGGREGATOR => {
                self.attributes.aggregator = Some(aggregator(value, width)?);
                self.attributes.partial.aggregator = partial;
            }
            code::COMMUNITIES => {
                self.attributes.communities =
                    non_empty(value)?.iter().map(|octets| u32::from_be_bytes(*octets)).collect();
                self.attributes.partial.communities = partial;
            }
            code::ORIGINATOR_ID => {
                let id = RouterId::new(array::<4>(value)?.into());
                self.attributes.originator_id =
                    Some(id.map_err(|_| (UpdateError::OptionalAttribute, Handling::TreatAsWithdraw))?);
            }
            code::CLUSTER_LIST => {
                self.attributes.cluster_list =
                    non_empty(value)?.iter().map(|octets| ClusterId((*octets).into())).collect();
            }
            // A speaker of four octets may not send these two to another (RFC 6793 section 4.1).
            code::AS4_PATH | code::AS4_AGGREGATOR if codec.four_octet_as => return Err(DISCARD),
            code::AS4_PATH => {
                let path = AsPath::parse(value, Width::Four, Confederation::PassedOver).map_err(|_| DISCARD)?;
                self.as4_path = Some(path);
            }
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value, Width::Four)?),
            _ => {}
        }
        Ok(())
    }

    fn take_reach(&mut self, codec: &Codec, attribute: &Attribute<'_>) -> Result<Result<(), Malformed>, DecodeError> {
        let broken = || attribute.reset(UpdateError::OptionalAttribute, attribute.whole);
        let (rest, (family, next_hop)) = reach_head(attribute.value).map_err(|_| broken())?;
        let Some(family) = family.family().filter(|family| codec.families.contains(*family)) else {
            return Ok(Err(DISCARD));
        };
        // Without a next hop of the right length nothing behind it can be found (RFC 7606 section 7.11).
        let (next_hop, link_local) = reach_next_hop(family, next_hop).ok_or_else(broken)?;
        let mut prefixes = Vec::new();
        nlri::parse(family, rest, &mut prefixes).map_err(|_| broken())?;
        let usable = is_host(next_hop);
        self.reach = Some(MpReach { family, next_hop: usable.then_some(next_hop), link_local, prefixes });
        Ok(if usable { Ok(()) } else { Err((UpdateError::InvalidNextHop, Handling::TreatAsWithdraw)) })
    }

    fn take_unreach(&mut self, codec: &Codec, attribute: &Attribute<'_>) -> Result<Result<(), Malformed>, DecodeError> {
        let broken = || attribute.reset(UpdateError::OptionalAttribute, attribute.whole);
        let (rest, family) = afi_safi(attribute.value).map_err(|_| broken())?;
        let Some(family) = family.family().filter(|family| codec.families.contains(*family)) else {
            return Ok(Err(DISCARD));
        };
        let mut prefixes = Vec::new();
        nlri::parse(family, rest, &mut prefixes).map_err(|_| broken())?;
        self.unreach = Some((family, prefixes));
        Ok(Ok(()))
    }

    /// Puts together what a speaker of two octets has sent in two attributes (RFC 6793 section 4.2.3).
    fn merge_as4(&mut self, codec: &Codec) {
        if codec.four_octet_as {
            return;
        }
        let (as4_path, as4_aggregator) = (self.as4_path.take(), self.as4_aggregator.take());
        match (self.attributes.aggregator, as4_aggregator) {
            // The last aggregator did not know AS4_PATH and AS4_AGGREGATOR, so what they say is older than it.
            (Some(aggregator), Some(_)) if aggregator.asn != Asn::TRANS => return,
            (Some(_), Some(as4_aggregator)) => self.attributes.aggregator = Some(as4_aggregator),
            _ => {}
        }
        if let Some(as4_path) = as4_path {
            self.attributes.as_path = std::mem::take(&mut self.attributes.as_path).merged(&as4_path);
        }
    }
}

impl Attribute<'_> {
    /// Whether it has no place in what an external peer sends.
    const fn is_only_internal(&self) -> bool {
        matches!(self.code, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST)
    }

    fn reset(&self, error: UpdateError, data: &[u8]) -> DecodeError {
        DecodeError::new(ErrorCode::Update(error), self.offset, data)
    }
}

impl Seen {
    const fn place(code: u8) -> (usize, u128) {
        ((code >> 7) as usize, 1 << (code & 0x7f))
    }

    /// False when it was there already.
    fn insert(&mut self, code: u8) -> bool {
        let (half, bit) = Self::place(code);
        let Some(half) = self.0.get_mut(half) else { return false };
        let new = *half & bit == 0;
        *half |= bit;
        new
    }

    const fn contains(&self, code: u8) -> bool {
        let [low, high] = self.0;
        let (half, bit) = Self::place(code);
        (if half == 0 { low } else { high }) & bit != 0
    }

    const fn any_but(&self, code: u8) -> bool {
        let [low, high] = self.0;
        let (half, bit) = Self::place(code);
        if half == 0 { low & !bit | high != 0 } else { low | high & !bit != 0 }
    }
}

fn afi_safi(input: &[u8]) -> Parsed<'_, AfiSafi> {
    (be_u16, be_u8).map(|(afi, safi)| AfiSafi { afi, safi }).parse(input)
}

/// The family and the next hop of MP_REACH_NLRI; the reserved octet behind them is skipped.
fn reach_head(input: &[u8]) -> Parsed<'_, (AfiSafi, &[u8])> {
    let (rest, (family, next_hop)) = (afi_safi, nom::multi::length_data(be_u8)).parse_complete(input)?;
    let (rest, _reserved) = be_u8(rest)?;
    Ok((rest, (family, next_hop)))
}

/// The next hop and the link-local one beside it (RFC 2545 section 3); `None` when the length is not the family's.
fn reach_next_hop(family: Family, octets: &[u8]) -> Option<(IpAddr, Option<Ipv6Addr>)> {
    match family {
        Family::Ipv4 => Some((Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(), None)),
        Family::Ipv6 => {
            let (first, second) = octets.split_first_chunk::<16>()?;
            let global = Ipv6Addr::from(*first);
            let link_local = match second {
                [] => return Some((global.into(), None)),
                second => Ipv6Addr::from(<[u8; 16]>::try_from(second).ok()?),
            };
            let link_local = Some(link_local).filter(Ipv6Addr::is_unicast_link_local);
            match link_local {
                // Speakers without a global address send the unspecified one in its place.
                Some(link_local) if global.is_unspecified() => Some((link_local.into(), None)),
                link_local => Some((global.into(), link_local)),
            }
        }
    }
}

/// Whether an address can be a host's (RFC 4271 section 6.3).
const fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !(address.is_unspecified() || address.is_multicast() || address.is_broadcast()),
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_multicast()),
    }
}

fn aggregator(value: &[u8], width: Width) -> Result<Aggregator, Malformed> {
    let length = (UpdateError::AttributeLength, Handling::AttributeDiscard);
    let (asn, address) = value.split_last_chunk::<4>().ok_or(length)?;
    let number = match (width, asn) {
        (Width::Two, [high, low]) => u32::from_be_bytes([0, 0, *high, *low]),
        (Width::Four, asn) => u32::from_be_bytes(<[u8; 4]>::try_from(asn).map_err(|_| length)?),
        _ => return Err(length),
    };
    // AS 0 makes it malformed (RFC 7607 section 2).
    let asn = Asn::new(number).map_err(|_| DISCARD)?;
    Ok(Aggregator { asn, address: (*address).into() })
}

fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    <[u8; N]>::try_from(value).map_err(|_| LENGTH)
}

/// Groups of four octets, at least one (RFC 7606 sections 7.8 and 7.10).
fn non_empty(value: &[u8]) -> Result<&[[u8; 4]], Malformed> {
    match value.as_chunks::<4>() {
        ([], _) => Err(LENGTH),
        (groups, []) => Ok(groups),
        _ => Err(LENGTH),
    }
}

/// The length is wrong, and the routes are withdrawn.
const LENGTH: Malformed = (UpdateError::AttributeLength, Handling::TreatAsWithdraw);
/// The attribute is wrong, and routes are used without it.
const DISCARD: Malformed = (UpdateError::OptionalAttribute, Handling::AttributeDiscard);
