//! What a session is configured with.

use std::fmt;
use std::time::Duration;

use types::{Asn, Family, RouterId};

use crate::wire::{Cease, ErrorCode, Families, GracefulRestart, HoldTime, Notification, PeerType};

/// One peer, and what we tell it about ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our identifier.
    pub router_id: RouterId,
    /// Our AS number towards this peer.
    pub local_asn: Asn,
    /// The AS number that the peer must have.
    pub peer_asn: Asn,
    /// The families to be agreed on.
    pub families: Families,
    /// Our proposal.
    pub hold_time: HoldTime,
    /// The ConnectRetryTimer's first interval (RFC 4271 section 8.1.3); it doubles up to a minute, with jitter.
    pub connect_retry: Duration,
    /// Only the peer dials.
    pub passive: bool,
    /// Our terms of graceful restart, which also make us keep the routes of a peer that restarts; `None` for neither.
    pub graceful_restart: Option<GracefulRestart>,
    /// Where the jitter of this session's timers comes from; any number, best one that no other session has.
    pub seed: u64,
}

impl SessionConfig {
    /// Whether the peer is in our AS.
    pub fn peer_type(&self) -> PeerType {
        if self.local_asn == self.peer_asn { PeerType::Internal } else { PeerType::External }
    }
}

/// Why we end a session, or do not begin one (RFC 4486).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The peer is no longer configured.
    PeerDeConfigured,
    /// The node is drained, or the operator wants the session down; with words for the other end (RFC 9003), or none.
    AdministrativeShutdown(String),
    /// The operator wants the session to begin anew; with words for the other end (RFC 9003), or none.
    AdministrativeReset(String),
    /// The configuration of the peer has changed in a way that needs a new session.
    ConfigurationChange,
    /// The peer sent more prefixes of the family than the limit.
    MaximumPrefixes {
        /// The family.
        family: Family,
        /// The limit.
        limit: u32,
    },
}

impl StopReason {
    /// What the peer is told.
    pub fn notification(&self) -> Notification {
        let cease = |cease| Notification::new(ErrorCode::Cease(cease));
        match self {
            Self::PeerDeConfigured => cease(Cease::PeerDeConfigured),
            Self::AdministrativeShutdown(words) => Notification::shutdown(Cease::AdministrativeShutdown, words),
            Self::AdministrativeReset(words) => Notification::shutdown(Cease::AdministrativeReset, words),
            Self::ConfigurationChange => cease(Cease::ConfigurationChange),
            Self::MaximumPrefixes { family, limit } => Notification::maximum_prefixes(*family, *limit),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerDeConfigured => f.write_str("peer is no longer configured"),
            Self::AdministrativeShutdown(_) => f.write_str("administrative shutdown"),
            Self::AdministrativeReset(_) => f.write_str("administrative reset"),
            Self::ConfigurationChange => f.write_str("configuration changed"),
            Self::MaximumPrefixes { family, limit } => write!(f, "peer sent more than {limit} {family} prefixes"),
        }
    }
}
