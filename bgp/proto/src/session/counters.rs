//! What a session has seen, for people and metrics.

use std::time::Instant;

use super::down::DownReason;
use crate::wire::{MessageType, Notification};

/// Counts over the session's whole life, across connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages from the peer.
    pub received: MessageCounts,
    /// Messages to the peer.
    pub sent: MessageCounts,
    /// UPDATEs whose routes were treated as withdrawn (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were discarded (RFC 7606).
    pub attributes_discarded: u64,
    /// Connections from the peer's address that were closed because its session is alive, or because too many waited for
    /// a session.
    pub refused_connections: u64,
    /// How often the session became established.
    pub established: u64,
    /// Since when it is established, or has not been any more; `None` when it never was.
    pub since: Option<Instant>,
    /// The last NOTIFICATION from the peer.
    pub last_received: Option<Notification>,
    /// The last NOTIFICATION to the peer.
    pub last_sent: Option<Notification>,
    /// Why the session, or the last attempt at one, ended; kept while it is established.
    pub last_down: Option<DownReason>,
}

/// Messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

impl MessageCounts {
    /// Counts messages of a type.
    pub(super) const fn add(&mut self, kind: MessageType, count: u64) {
        let field = match kind {
            MessageType::Open => &mut self.open,
            MessageType::Update => &mut self.update,
            MessageType::Notification => &mut self.notification,
            MessageType::Keepalive => &mut self.keepalive,
            MessageType::RouteRefresh => &mut self.route_refresh,
        };
        *field = field.saturating_add(count);
    }
}
