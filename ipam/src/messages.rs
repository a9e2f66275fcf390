//! What the node's state says to the outside and hears from it.

use std::time::Duration;

use store::{DecodeError, Listing, Outcome, StoreError, Version};
use types::Prefix;

use crate::PoolError;
use crate::fence::Unconfirmed;
use crate::plan::claims::ClaimOutcome;
use crate::plan::confirmations::Shown;
use crate::plan::publications::Ask;

/// A request to the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Claim a block, and tell whose it is if it is taken.
    Claim(Prefix),
    /// Take back a claim made at this version.
    Withdraw(Prefix, Version),
    /// Tell whose these blocks are, and whether this node is noted as gone.
    Confirm(Vec<Prefix>),
    /// A request about the published copy of this node's endpoints.
    Publication(Ask),
}

/// An answer of the store.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The answer to [`Job::Claim`].
    Claim(Prefix, Result<ClaimOutcome, StoreError>),
    /// The answer to [`Job::Withdraw`].
    Withdraw(Prefix, Result<(), StoreError>),
    /// The answer to [`Job::Confirm`].
    Confirmed(Result<Shown, StoreError>),
    /// The answer to [`Ask::List`].
    Listed(Result<Listing, StoreError>),
    /// The answer to [`Ask::Write`].
    Written(Result<Outcome, StoreError>),
}

/// An event that an operator should read of in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The endpoints in the journal are of another boot.
    Rebooted(usize),
    /// A block is this node's.
    Owned(Prefix),
    /// A block is not this node's any more; `endpoints` still have addresses of it.
    Lost { block: Prefix, to: String, endpoints: Vec<String> },
    /// A block could not be claimed, or a claim not be taken back.
    ClaimFailed(Prefix, StoreError),
    /// The published copy could not be read or written.
    PublicationFailed(StoreError),
    /// The store cannot be asked whether it agrees on this node's blocks.
    NotConfirmed(StoreError),
    /// The store does not agree on a block; it is looked into.
    Doubted(Prefix),
    /// No addresses are given out from now on.
    Fenced(Unconfirmed, Duration),
    /// The store has confirmed this node's blocks again.
    Confirmed,
    /// A pool cannot be used.
    PoolRefused(PoolError),
    /// A claim cannot be read.
    ClaimUnreadable(DecodeError),
}
