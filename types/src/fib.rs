//! What bgp tells felix, and what felix tells bgp: neither knows the other.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Family, Prefix};

/// A change of the routes that BGP has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FibUpdate {
    /// The prefix is reached through these next hops (several: equal-cost multipath), which replace any earlier set.
    Set {
        /// The destination.
        prefix: Prefix,
        /// The next hops: at least one, without duplicates, in ascending order. They need not be on-link.
        next_hops: Vec<IpAddr>,
    },
    /// BGP no longer knows the prefix.
    Withdraw {
        /// The destination.
        prefix: Prefix,
    },
    /// Every configured peer has sent its End-of-RIB for the family or has missed its deadline (RFC 4724 section 4.1):
    /// from here on a kernel route that BGP has not set is stale and may go.
    InSync {
        /// The family.
        family: Family,
    },
}

/// Which next hops the BGP speaker wants to hear about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextHopWatch {
    /// Report the state of this address now and whenever it changes.
    Track(IpAddr),
    /// Stop reporting the state of this address.
    Untrack(IpAddr),
}

/// What the kernel's table says of a next hop (RFC 4271 section 5.1.3: the immediate next hop is found by a look-up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopState {
    /// The next hop's address.
    pub address: IpAddr,
    /// The metric of the route that resolves it; `None` when no route does (or only one of ours through BGP itself).
    pub metric: Option<u32>,
}
