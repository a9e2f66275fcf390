//! Path attributes (RFC 4271 section 5) as a value that tables intern.

mod code;
mod decode;
mod encode;

use std::fmt;
use std::net::Ipv4Addr;

use types::{Asn, ClusterId, RouterId};

use super::as_path::AsPath;

pub(super) use code::{MP_REACH_NLRI, MP_UNREACH_NLRI};
pub(super) use decode::{MpReach, read};
pub(super) use encode::put;

/// The attributes that routes share. NEXT_HOP is not among them: it belongs to a family (RFC 4760 section 3) and stands
/// beside the prefixes in [`super::Reach`].
///
/// Equal attributes are equal values whatever the order, the length encoding or the AS number size they came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathAttributes {
    /// ORIGIN (RFC 4271 section 5.1.1).
    pub origin: Origin,
    /// AS_PATH with AS4_PATH merged into it (RFC 6793 section 4.2.3).
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC (RFC 4271 section 5.1.4).
    pub med: Option<u32>,
    /// LOCAL_PREF (RFC 4271 section 5.1.5): always there in what an internal peer sent, never in what an external one did.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE (RFC 4271 section 5.1.6).
    pub atomic_aggregate: bool,
    /// AGGREGATOR (RFC 4271 section 5.1.7) with AS4_AGGREGATOR merged into it.
    pub aggregator: Option<Aggregator>,
    /// ORIGINATOR_ID (RFC 4456 section 8): only from internal peers.
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST (RFC 4456 section 8), the most recent reflector first: only from internal peers.
    pub cluster_list: Vec<ClusterId>,
    /// COMMUNITIES (RFC 1997) as they came.
    pub communities: Vec<u32>,
    /// Optional transitive attributes that are not known here, by ascending type code. They are sent on with the Partial
    /// bit set (RFC 4271 section 5).
    pub unknown: Vec<UnknownAttribute>,
    /// Partial bits that came with known attributes and must be sent on (RFC 4271 section 5).
    pub partial: Partial,
}

/// ORIGIN; a smaller one is preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp,
    /// Learned through EGP (RFC 904).
    Egp,
    /// Learned otherwise.
    Incomplete,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "IGP",
            Self::Egp => "EGP",
            Self::Incomplete => "incomplete",
        })
    }
}

/// Who aggregated a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its address, mostly its router id.
    pub address: Ipv4Addr,
}

/// An optional transitive attribute that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Its type code.
    pub code: u8,
    /// Its value.
    pub value: Box<[u8]>,
}

/// Known optional transitive attributes that a speaker before us has passed on without knowing them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partial {
    /// AGGREGATOR.
    pub aggregator: bool,
    /// COMMUNITIES.
    pub communities: bool,
}
