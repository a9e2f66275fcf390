//! The node's addresses: blocks that it owns alone, and the endpoints that it gives addresses of them to.
//!
//! A block is claimed in the shared store by a compare-and-swap on one key, ahead of need. Inside its blocks the node
//! allocates alone, in memory and in its journal, so that neither ADD nor DEL waits for the store; a copy of the endpoints
//! follows there. A released address is given out again only after the store has acknowledged the release and the
//! cool-down has passed, and then the one that has been free for longest comes first. Nothing is given out of a block while
//! something speaks against its being this node's, nor once the store has not confirmed it for too long.
//!
//! ```text
//!   block      the addresses of one block          pool      which block to claim next
//!   allocator  reserved, committed, resting        plan      claims, confirmations and publications
//!   rows       what the journal holds              messages  what goes in and comes out
//!   fence      how long the store's word counts
//!        └──────────────┬───────────────────────────────────────┘
//!                     node       all of it in one pure state: calls, reports and the time go in, jobs come out
//!                       │
//!                      run       the owner task: channels, journal, store
//! ```
//!
//! Everything above `run` is pure. This crate knows neither Kubernetes nor etcd, makes no interface and no route, and does
//! not decide when an endpoint is complete: the agent does.

mod allocator;
mod block;
mod error;
mod fence;
mod handle;
mod journal_queue;
mod messages;
mod node;
mod plan;
mod pool;
mod rows;
mod run;
mod tasks;
mod view;

#[cfg(test)]
mod testing;

use std::time::Duration;

use types::NodeName;

pub use allocator::{Description, Request};
pub use error::{IpamError, PoolCount, ReserveError, StartError};
pub use fence::{Fencing, Reading, Unconfirmed};
pub use handle::Ipam;
pub use pool::{Pool, PoolError};
pub use rows::RowError;
pub use tasks::start;
pub use view::{OwnBlock, OwnPool, Standing, Stray, View};

/// How this node gives out addresses.
#[derive(Debug, Clone)]
pub struct IpamConfig {
    /// The node's name: the owner in its claims.
    pub node: NodeName,
    /// The kernel's id of this boot. Endpoints that the journal has of another boot are released. Empty by default.
    pub boot_id: String,
    /// How long a released address rests, from the store's acknowledgement on.
    pub cool_down: Duration,
    /// How long an ADD waits for a block to be claimed when no address is free.
    pub claim_wait: Duration,
    /// When to give out no more addresses as the shared store does not confirm blocks. Never by default.
    pub fencing: Option<Fencing>,
}

impl IpamConfig {
    /// The defaults: a cool-down of 30 s, an ADD waits up to 2 s.
    pub const fn new(node: NodeName) -> Self {
        let (cool_down, claim_wait) = (Duration::from_secs(30), Duration::from_secs(2));
        Self { node, boot_id: String::new(), cool_down, claim_wait, fencing: None }
    }
}
