//! OPEN (RFC 4271 section 4.2).

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use nom::Parser as _;
use nom::bytes::complete::take;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};
use types::{Asn, Family, RouterId};

use super::capability::{Capability, GracefulRestart};
use super::family::Families;
use super::fault::DecodeError;
use super::header::{self, HEADER_LENGTH, MessageType};
use super::notification::{ErrorCode, OpenError};
use super::octets::{Parsed, Unreadable, unreadable as unreadable_at};

/// An OPEN whose version is 4 and whose fields are acceptable in themselves (RFC 4271 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number: that of the capability where there is one, else that of the two-octet field (RFC 6793).
    pub asn: Asn,
    /// What the sender proposes.
    pub hold_time: HoldTime,
    /// The sender.
    pub router_id: RouterId,
    /// In the order in which they stand.
    pub capabilities: Vec<Capability>,
}

/// A hold time (RFC 4271 section 4.2): none at all, or at least three seconds. The default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct HoldTime(u16);

impl HoldTime {
    /// No hold timer and no KEEPALIVEs.
    pub const NONE: Self = Self(0);

    /// A hold time on the wire, in seconds; one and two are refused (RFC 4271 section 6.2).
    pub const fn from_secs(secs: u16) -> Option<Self> {
        match secs {
            1 | 2 => None,
            secs => Some(Self(secs)),
        }
    }

    /// The nearest hold time there is: whole seconds from 3 to 65,535, or none for zero.
    pub fn clamped(time: Duration) -> Self {
        if time.is_zero() { Self::NONE } else { Self(u16::try_from(time.as_secs()).unwrap_or(u16::MAX).max(3)) }
    }

    /// In seconds, zero for none.
    pub const fn secs(self) -> u16 {
        self.0
    }

    /// After how much silence the session ends; `None` when it does not.
    pub fn duration(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.into()))
    }

    /// What two speakers agree on: the smaller (RFC 4271 section 4.2).
    #[must_use]
    pub fn agreed(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

impl Open {
    /// The families whose unicast routes the sender takes; IPv4 when it names none (RFC 4760 section 8).
    pub fn families(&self) -> Families {
        let mut named = self.capabilities.iter().filter_map(|capability| match capability {
            Capability::Multiprotocol(family) => Some(family.family()),
            _ => None,
        });
        let any = named.clone().next().is_some();
        if any { named.by_ref().flatten().collect() } else { Families::only(Family::Ipv4) }
    }

    /// Whether AS numbers have four octets in what the sender sends to another that says so too (RFC 6793 section 4.1).
    pub fn four_octet_as(&self) -> bool {
        self.capabilities.iter().any(|capability| matches!(capability, Capability::FourOctetAs(_)))
    }

    /// Whether the sender answers ROUTE-REFRESH (RFC 2918 section 2).
    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// The sender's terms of graceful restart; the last ones count (RFC 4724 section 3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::GracefulRestart(terms) => Some(terms),
            _ => None,
        })
    }
}

/// The version of BGP that is spoken here.
const VERSION: u8 = 4;
/// The optional parameter that holds capabilities (RFC 5492 section 4).
const CAPABILITIES: u8 = 2;
/// In place of the first parameter's type: the lengths that follow have two octets (RFC 9072 section 2).
const EXTENDED: u8 = 255;

impl Open {
    /// The body of an OPEN, everything behind the header (RFC 4271 section 6.2).
    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let refuse = |error, offset, data: &[u8]| DecodeError::new(ErrorCode::Open(error), offset, data);
        let unreadable = |error: nom::Err<Unreadable>| {
            let offset = HEADER_LENGTH + body.len() - Unreadable::from(error).left;
            refuse(OpenError::Unspecific, offset, &[])
        };
        let mut head = (be_u8, be_u16, be_u16, take(4_usize));
        let parsed: Parsed<'_, (u8, u16, u16, &[u8])> = head.parse(body);
        let (rest, (version, asn, hold_time, id)) = parsed.map_err(unreadable)?;
        if version != VERSION {
            // The data of the NOTIFICATION is the version that we speak, in two octets.
            return Err(refuse(OpenError::UnsupportedVersion, 19, &[0, VERSION]));
        }
        let hold_time = HoldTime::from_secs(hold_time)
            .ok_or_else(|| refuse(OpenError::UnacceptableHoldTime, 22, &hold_time.to_be_bytes()))?;
        let router_id = <[u8; 4]>::try_from(id).ok().and_then(|id| RouterId::new(id.into()).ok());
        let router_id = router_id.ok_or_else(|| refuse(OpenError::BadIdentifier, 24, id))?;

        let mut capabilities = Vec::new();
        let (mut parameters, extended) = parameters(rest).map_err(unreadable)?;
        while !parameters.is_empty() {
            let at = |rest: &[u8]| HEADER_LENGTH + body.len() - rest.len();
            let (behind, (kind, value)) = parameter(parameters, extended).map_err(unreadable)?;
            if kind != CAPABILITIES {
                return Err(refuse(OpenError::UnsupportedParameter, at(parameters), &[]));
            }
            let mut rest = value;
            while !rest.is_empty() {
                let offset = at(behind) - rest.len();
                let parsed: Parsed<'_, (u8, &[u8])> = (be_u8, length_data(be_u8)).parse_complete(rest);
                let (next, (code, value)) = parsed.map_err(|_| refuse(OpenError::Unspecific, offset, &[]))?;
                capabilities.push(Capability::parse(code, value).map_err(|error| refuse(error, offset, &[]))?);
                rest = next;
            }
            parameters = behind;
        }
        let four_octets = capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        let asn = match four_octets {
            Some(asn) => asn,
            // AS 0 is nobody's (RFC 7607 section 2).
            None => Asn::new(asn.into()).map_err(|_| refuse(OpenError::BadPeerAs, 20, &[]))?,
        };
        Ok(Self { asn, hold_time, router_id, capabilities })
    }

    /// The message.
    pub fn encode(&self) -> Bytes {
        let mut capabilities = Vec::new();
        self.capabilities.iter().for_each(|capability| capability.put(&mut capabilities));
        let mut out = header::begin(MessageType::Open);
        out.put_u8(VERSION);
        out.put_u16(self.asn.two_octets());
        out.put_u16(self.hold_time.secs());
        out.put_u32(self.router_id.number());
        match u8::try_from(capabilities.len()) {
            Ok(0) => out.put_u8(0),
            Ok(length @ ..=253) => out.put_slice(&[length + 2, CAPABILITIES, length]),
            _ => {
                // A message has no room for more capabilities than this; the rest is cut off.
                capabilities.truncate(header::MAX_LENGTH - HEADER_LENGTH - 16);
                let length = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
                out.put_slice(&[EXTENDED, EXTENDED]);
                out.put_u16(length.saturating_add(3));
                out.put_u8(CAPABILITIES);
                out.put_u16(length);
            }
        }
        out.put_slice(&capabilities);
        header::finish(out)
    }
}

/// The optional parameters to the end of the message, and whether their lengths have two octets (RFC 9072 section 2).
fn parameters(input: &[u8]) -> Result<(&[u8], bool), nom::Err<Unreadable>> {
    let (rest, length) = be_u8(input)?;
    let (extended, length, rest) = match rest {
        [EXTENDED, rest @ ..] if length != 0 => {
            let (rest, length) = be_u16(rest)?;
            (true, usize::from(length), rest)
        }
        rest => (false, usize::from(length), rest),
    };
    if rest.len() == length { Ok((rest, extended)) } else { Err(unreadable_at(rest)) }
}

/// The type and value of a parameter.
fn parameter(input: &[u8], extended: bool) -> Parsed<'_, (u8, &[u8])> {
    if extended {
        (be_u8, length_data(be_u16)).parse_complete(input)
    } else {
        (be_u8, length_data(be_u8)).parse_complete(input)
    }
}
