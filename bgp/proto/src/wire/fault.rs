//! What is wrong with octets that a peer sent, and what follows (RFC 4271 section 6, RFC 7606).

use std::fmt;

use super::notification::{ErrorCode, Notification, UpdateError};

/// A message that ends the session: the peer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{notification}, at octet {offset}")]
pub struct DecodeError {
    /// What the peer is told.
    pub notification: Notification,
    /// Where in the message, counted from its first octet.
    pub offset: usize,
}

impl DecodeError {
    pub(super) fn new(error: ErrorCode, offset: usize, data: &[u8]) -> Self {
        Self { notification: Notification::with_data(error, data.to_vec()), offset }
    }
}

/// How a malformed attribute is handled without ending the session (RFC 7606 section 2), weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handling {
    /// The attribute is left out, the routes are used.
    AttributeDiscard,
    /// The routes of the UPDATE are taken as withdrawn.
    TreatAsWithdraw,
}

/// A malformed attribute of an UPDATE that was used otherwise: to be counted, and shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttributeFault {
    /// The attribute's type code.
    pub attribute: u8,
    /// What is wrong with it.
    pub error: UpdateError,
    /// What was done.
    pub handling: Handling,
    /// Where in the message the attribute begins, counted from the message's first octet.
    pub offset: usize,
}

impl fmt::Display for AttributeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handling = match self.handling {
            Handling::AttributeDiscard => "attribute discarded",
            Handling::TreatAsWithdraw => "routes treated as withdrawn",
        };
        write!(f, "attribute {} at octet {}: {}; {handling}", self.attribute, self.offset, self.error)
    }
}
