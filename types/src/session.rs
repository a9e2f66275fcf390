//! How far a BGP session has come, and what protects it.

use std::fmt;

use serde::{Deserialize, Serialize};

mod security;

pub use security::{
    Hops, HopsError, KnownPassword, PasswordSource, Passwords, SessionPassword, SessionPasswordError, SessionSecurity,
};

/// The states of RFC 4271 section 8.2.2, in the order in which a session passes through them. A session with two connections
/// is in the state of the one that has come further.
///
/// [`fmt::Display`] writes a state as the RFC does (`OpenSent`); the local API spells it in lower case (`opensent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Stopped, or held.
    Idle,
    /// Dialling.
    Connect,
    /// Waiting for the peer to dial, or to dial again.
    Active,
    /// Our OPEN is sent.
    OpenSent,
    /// The peer's OPEN is accepted.
    OpenConfirm,
    /// Routes may flow.
    Established,
}

impl SessionState {
    /// Whether routes may flow.
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Established)
    }

    /// The state as the local API and `manxctl` spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "opensent",
            Self::OpenConfirm => "openconfirm",
            Self::Established => "established",
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

#[cfg(test)]
mod tests;
