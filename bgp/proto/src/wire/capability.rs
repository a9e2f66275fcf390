//! Capabilities (RFC 5492).

use std::time::Duration;

use types::{Asn, Family};

use super::family::{AfiSafi, Families};
use super::notification::OpenError;

/// A capability that an OPEN advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// 1: routes of a family (RFC 4760 section 8).
    Multiprotocol(AfiSafi),
    /// 2: ROUTE-REFRESH (RFC 2918 section 2).
    RouteRefresh,
    /// 64: graceful restart (RFC 4724 section 3).
    GracefulRestart(GracefulRestart),
    /// 65: AS numbers of four octets, and the sender's own (RFC 6793 section 3).
    FourOctetAs(Asn),
    /// Any other.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The terms under which a speaker restarts gracefully (RFC 4724 section 3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the sender has restarted, and its peer should not wait for an End-of-RIB from it before sending.
    pub restarting: bool,
    /// How long the sender's routes should be kept for it to come back: whole seconds up to 4,095.
    pub time: Duration,
    /// The families whose forwarding can outlive a restart.
    pub families: Vec<RestartFamily>,
}

/// A family in the terms of graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F: forwarding was preserved over the restart that just happened.
    pub forwarding: bool,
}

impl GracefulRestart {
    /// The families whose routes are kept while the sender restarts.
    pub fn families(&self) -> Families {
        self.families.iter().filter_map(|entry| entry.family.family()).collect()
    }

    /// The families whose forwarding was preserved.
    pub fn forwarding(&self) -> Families {
        self.families.iter().filter(|entry| entry.forwarding).filter_map(|entry| entry.family.family()).collect()
    }

    /// Terms for these families, with forwarding preserved for some of them.
    pub fn new(restarting: bool, time: Duration, families: Families, forwarding: Families) -> Self {
        let entry = |family: Family| RestartFamily {
            family: AfiSafi::unicast(family),
            forwarding: forwarding.contains(family),
        };
        Self { restarting, time, families: families.iter().map(entry).collect() }
    }
}

/// Codes of capabilities.
const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;

/// R in the flags of graceful restart.
const RESTARTING: u16 = 0x8000;
/// The restart time.
const TIME: u16 = 0x0fff;
/// F in the flags of a family.
const FORWARDING: u8 = 0x80;

impl Capability {
    /// A capability from its code and value. An error is a malformed one: it says which OPEN error that is.
    pub(super) fn parse(code: u8, value: &[u8]) -> Result<Self, OpenError> {
        match (code, value) {
            (MULTIPROTOCOL, [high, low, _, safi]) => {
                Ok(Self::Multiprotocol(AfiSafi { afi: u16::from_be_bytes([*high, *low]), safi: *safi }))
            }
            (ROUTE_REFRESH, []) => Ok(Self::RouteRefresh),
            (GRACEFUL_RESTART, value) => GracefulRestart::parse(value).map(Self::GracefulRestart),
            (FOUR_OCTET_AS, value) => {
                let octets = <[u8; 4]>::try_from(value).map_err(|_| OpenError::Unspecific)?;
                // AS 0 is nobody's (RFC 7607 section 2).
                let asn = Asn::new(u32::from_be_bytes(octets)).map_err(|_| OpenError::BadPeerAs)?;
                Ok(Self::FourOctetAs(asn))
            }
            (MULTIPROTOCOL | ROUTE_REFRESH, _) => Err(OpenError::Unspecific),
            (code, value) => Ok(Self::Unknown { code, value: value.to_vec() }),
        }
    }

    /// Appends code, length and value; a value of more than 255 octets is cut.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut tlv = |code, value: &[u8]| {
            let value = value.get(..255).unwrap_or(value);
            out.push(code);
            out.extend(u8::try_from(value.len()));
            out.extend_from_slice(value);
        };
        match self {
            Self::Multiprotocol(AfiSafi { afi, safi }) => {
                let [high, low] = afi.to_be_bytes();
                tlv(MULTIPROTOCOL, &[high, low, 0, *safi]);
            }
            Self::RouteRefresh => tlv(ROUTE_REFRESH, &[]),
            Self::GracefulRestart(terms) => tlv(GRACEFUL_RESTART, &terms.value()),
            Self::FourOctetAs(asn) => tlv(FOUR_OCTET_AS, &asn.number().to_be_bytes()),
            Self::Unknown { code, value } => tlv(*code, value),
        }
    }
}

impl GracefulRestart {
    fn parse(value: &[u8]) -> Result<Self, OpenError> {
        let (first, families) = value.split_first_chunk::<2>().ok_or(OpenError::Unspecific)?;
        let (families, []) = families.as_chunks::<4>() else { return Err(OpenError::Unspecific) };
        let first = u16::from_be_bytes(*first);
        let entry = |[high, low, safi, flags]: &[u8; 4]| RestartFamily {
            family: AfiSafi { afi: u16::from_be_bytes([*high, *low]), safi: *safi },
            forwarding: flags & FORWARDING != 0,
        };
        Ok(Self {
            restarting: first & RESTARTING != 0,
            time: Duration::from_secs((first & TIME).into()),
            families: families.iter().map(entry).collect(),
        })
    }

    fn value(&self) -> Vec<u8> {
        let time = u16::try_from(self.time.as_secs()).unwrap_or(TIME).min(TIME);
        let first = time | if self.restarting { RESTARTING } else { 0 };
        let mut value = first.to_be_bytes().to_vec();
        for RestartFamily { family: AfiSafi { afi, safi }, forwarding } in &self.families {
            value.extend(afi.to_be_bytes());
            value.extend([*safi, if *forwarding { FORWARDING } else { 0 }]);
        }
        value
    }
}
