//! Why the node's addresses cannot be served, split by who can mend it.

use std::time::Duration;

use store::JournalError;
use types::{EndpointId, Family, LinkKind, NetworkName, Prefix, ResourceName};

use crate::fence::{Unconfirmed, in_words};
use crate::{PoolError, RowError};

/// ADD gets no addresses. For the CNI binary each of these is code 11 (CNI spec section "Error": try again later).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The attachment has addresses: a runtime may not ADD twice without a DEL (CNI spec section 4, "ADD").
    #[error("endpoint {0} is attached already; the runtime has to call DEL first")]
    AlreadyAttached(EndpointId),
    /// Another ADD of the attachment is under way.
    #[error("another ADD of endpoint {0} is under way")]
    UnderWay(EndpointId),
    /// A DEL of the attachment came while this ADD was waiting.
    #[error("endpoint {0} was released while it was waiting for an address")]
    Released(EndpointId),
    /// No source has named the pools yet: the agent has just started and the datastore does not answer.
    #[error("the pools are not known yet")]
    PoolsUnknown,
    /// No pool is there for this node (the configuration).
    #[error("no enabled pool selects this node{}", refused_text(.refused))]
    NoPool {
        /// The pools that cannot be used.
        refused: Vec<PoolError>,
    },
    /// The datastore has not confirmed for too long that this node's blocks are its own: they may be another's by now.
    #[error(
        "the datastore has not confirmed this node's blocks {why}, so that they may be another node's by now; addresses are \
         given out again when it has (a confirmation counts for {}, half of reclaimGrace)", in_words(*.limit)
    )]
    Unconfirmed {
        /// Since when the store has not confirmed the blocks.
        why: Unconfirmed,
        /// How long a confirmation counts.
        limit: Duration,
    },
    /// No block and no pool of this node has a free address.
    #[error("no free {family} address: {}{}", pools_text(.pools), obstacle_text(.obstacle))]
    Exhausted {
        /// The family.
        family: Family,
        /// The pools that this node may use, and what it has of them.
        pools: Vec<PoolCount>,
        /// What keeps this node from claiming another block, where something does.
        obstacle: Option<String>,
    },
    /// No block of this node has room for a subnet, for an interface that another plugin wires.
    #[error("no free {family} subnet for {}{}", link_text(*.link), obstacle_text(.obstacle))]
    NoSubnet {
        /// The family.
        family: Family,
        /// The kind of link.
        link: LinkKind,
        /// What keeps this node from claiming another block, where something does.
        obstacle: Option<String>,
    },
    /// A network's subnet is used up: others would not be neighbours of its pods.
    #[error(
        "no free address: {subnet} is the one subnet that network {network} has on this node's link, and all of it is in use or rests; \
         blockSize of the pool says how large it is"
    )]
    SubnetFull {
        /// The network.
        network: NetworkName,
        /// The subnet of it.
        subnet: Prefix,
    },
    /// ipam has ended; only while the process ends.
    #[error("the owner of this node's addresses has ended")]
    Ended,
}

/// How much a node has of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCount {
    /// The pool.
    pub pool: ResourceName,
    /// The node's blocks in it.
    pub blocks: usize,
    /// The addresses of those blocks.
    pub addresses: u64,
    /// Those that pods have, or that an ADD holds.
    pub in_use: u64,
    /// Those that were released and may not be given out yet.
    pub resting: u64,
}

/// A call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// There is no reservation to commit: it was released meanwhile.
    #[error("endpoint {0} has no address reserved")]
    NotReserved(EndpointId),
    /// The journal cannot be written (the environment), so that the endpoint would be forgotten by a restart. It stays
    /// reserved.
    #[error("{id} cannot be journalled: {source}")]
    Journal {
        /// The endpoint.
        id: EndpointId,
        /// The error of the journal.
        source: Box<JournalError>,
    },
    /// ipam has ended; only while the process ends.
    #[error("the owner of this node's addresses has ended")]
    Ended,
}

/// The task that owns the addresses cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be read (the environment).
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds what this build does not understand.
    #[error(transparent)]
    Row(#[from] RowError),
}

fn refused_text(refused: &[PoolError]) -> String {
    if refused.is_empty() {
        return String::new();
    }
    let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
    format!(" ({})", refused.join("; "))
}

fn pools_text(pools: &[PoolCount]) -> String {
    let one = |count: &PoolCount| {
        let PoolCount { pool, blocks, addresses, in_use, resting } = count;
        let plural = if *blocks == 1 { "" } else { "s" };
        format!(
            "pool {pool}: {blocks} block{plural} here with {addresses} addresses, {in_use} in use, {resting} resting"
        )
    };
    pools.iter().map(one).collect::<Vec<_>>().join("; ")
}

const fn link_text(link: LinkKind) -> &'static str {
    match link {
        LinkKind::PointToPoint => "a link of its own: two neighbouring addresses of a block",
        LinkKind::Shared => "a link with other pods: an unused block of 8 addresses or more",
    }
}

fn obstacle_text(obstacle: &Option<String>) -> String {
    obstacle.as_ref().map_or_else(String::new, |obstacle| format!("; {obstacle}"))
}

#[cfg(test)]
mod tests;
