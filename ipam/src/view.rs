//! What an operator may want to see.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::{EndpointId, NodeName, PodRef, Prefix, ResourceName};

use crate::Pool;
use crate::allocator::BlockCount;

/// Pools and blocks as this node knows them, and what it has given out itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The ranges of all pools.
    pub pools: BTreeMap<ResourceName, Prefix>,
    /// The owners of all blocks, other nodes' included.
    pub blocks: BTreeMap<Prefix, NodeName>,
    /// The addresses of this node's endpoints.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses that this node released and does not give out yet.
    pub resting: BTreeSet<IpAddr>,
    /// How much this node has of each pool.
    pub own: Vec<OwnPool>,
    /// This node's endpoints.
    pub endpoints: BTreeMap<EndpointId, Vec<IpAddr>>,
    /// How many of them the store may not show yet as they are.
    pub unpublished: usize,
}

/// A pool, and this node's blocks in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnPool {
    /// The pool.
    pub pool: Pool,
    /// The addresses of its whole range (2^128 is given as one less).
    pub addresses: u128,
    /// This node's blocks, by range.
    pub blocks: Vec<OwnBlock>,
}

/// One of this node's blocks. `in_use`, `resting` and `free` add up to `addresses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnBlock {
    /// The range.
    pub cidr: Prefix,
    /// The number of its addresses.
    pub addresses: u64,
    /// Those that pods have, or that an ADD holds.
    pub in_use: u64,
    /// Those that were released and may not be given out yet.
    pub resting: u64,
    /// How many addresses may be given out.
    pub free: u64,
}

/// How far the store and this node agree on what is this node's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// How long ago the store last confirmed this node's blocks; none: never, it cannot be told, or no store is shared.
    pub confirmed: Option<Duration>,
    /// The last question to the store was answered as it should be.
    pub answers: bool,
    /// Why no addresses are given out, if so.
    pub fenced: Option<String>,
    /// Addresses of pods that are in no block of this node.
    pub strays: Vec<Stray>,
}

/// An address that a pod of this node has, in a block that is not this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The pod.
    pub pod: PodRef,
    /// The address itself.
    pub address: IpAddr,
    /// Whose the block is; none: nobody's, as far as is known.
    pub owner: Option<NodeName>,
}

impl OwnBlock {
    pub(crate) const fn new(cidr: Prefix, count: BlockCount) -> Self {
        let BlockCount { addresses, in_use, resting, free } = count;
        Self { cidr, addresses, in_use, resting, free }
    }
}
