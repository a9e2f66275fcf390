//! What all states of a session share.

use std::time::{Duration, Instant};

use bytes::Bytes;
use types::backoff::Backoff;

use super::collision::{Survivor, survivor};
use super::config::SessionConfig;
use super::counters::Counters;
use super::down::DownReason;
use super::machine::{ConnId, Output, Outputs};
use super::negotiated::Negotiated;
use crate::wire::{
    AfiSafi, Capability, Cease, Codec, DecodeError, ErrorCode, Message, MessageType, Notification, Open, keepalive,
};

/// What outlives every connection of a session.
#[derive(Debug)]
pub(super) struct Core {
    /// What was configured.
    pub(super) config: SessionConfig,
    /// What was seen.
    pub(super) counters: Counters,
    /// The ConnectRetryTimer's intervals.
    pub(super) connect_retry: Backoff,
    /// How long the session stays in Idle after it broke an established session off (RFC 4271 section 8.1.1,
    /// DampPeerOscillations).
    pub(super) idle_hold: Backoff,
}

/// What the states share, and what one input brings along.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) core: &'a mut Core,
    pub(super) now: Instant,
    pub(super) outputs: &'a mut Outputs,
}

impl Core {
    pub(super) fn new(config: SessionConfig) -> Self {
        let backoff = |first: Duration| Backoff::new(first, LONGEST_RETRY.max(first), config.seed);
        Self {
            connect_retry: backoff(config.connect_retry),
            idle_hold: backoff(FIRST_IDLE_HOLD),
            counters: Counters::default(),
            config,
        }
    }
}

impl Context<'_> {
    /// Decodes and counts a message; a NOTIFICATION is remembered.
    pub(super) fn decode(&mut self, codec: &Codec, octets: &Bytes) -> Result<Message, DecodeError> {
        let message = codec.decode(octets)?;
        self.core.counters.received.add(message.kind(), 1);
        if let Message::Notification(notification) = &message {
            self.core.counters.last_received = Some(notification.clone());
        }
        Ok(message)
    }

    pub(super) fn send_open(&mut self, conn: ConnId) {
        let config = &self.core.config;
        let families = config.families.iter().map(AfiSafi::unicast).map(Capability::Multiprotocol);
        let capabilities = families
            .chain([Capability::RouteRefresh, Capability::FourOctetAs(config.local_asn)])
            .chain(config.graceful_restart.clone().map(Capability::GracefulRestart))
            .collect();
        let open =
            Open { asn: config.local_asn, hold_time: config.hold_time, router_id: config.router_id, capabilities };
        self.send(conn, MessageType::Open, open.encode());
    }

    pub(super) fn send_keepalive(&mut self, conn: ConnId) {
        self.send(conn, MessageType::Keepalive, keepalive());
    }

    pub(super) fn send(&mut self, conn: ConnId, kind: MessageType, message: Bytes) {
        self.core.counters.sent.add(kind, 1);
        self.outputs.push(Output::Send(conn, message));
    }

    /// Closes a connection that is there, after telling the peer why unless the peer has said so itself.
    pub(super) fn end(&mut self, conn: ConnId, reason: &DownReason) {
        if let Some(notification) = reason.notification() {
            self.notify(conn, notification);
        }
        self.outputs.push(Output::Close(conn));
    }

    /// Refuses a connection that the peer dialled.
    pub(super) fn refuse(&mut self, conn: ConnId, cease: Cease) {
        self.notify(conn, Notification::new(ErrorCode::Cease(cease)));
        self.outputs.push(Output::Close(conn));
    }

    fn notify(&mut self, conn: ConnId, notification: Notification) {
        self.send(conn, MessageType::Notification, notification.encode());
        self.core.counters.last_sent = Some(notification);
    }

    /// Says that an attempt is over without a session.
    pub(super) fn attempt_failed(&mut self, reason: DownReason) {
        self.core.counters.last_down = Some(reason.clone());
        self.outputs.push(Output::AttemptFailed(reason));
    }

    /// Begins to dial, and returns the id of the connection.
    pub(super) fn dial(&mut self) -> ConnId {
        let conn = self.outputs.conn_id();
        self.outputs.push(Output::Connect(conn));
        conn
    }

    /// Which of two connections with the speaker behind this one stays.
    pub(super) fn survivor(&self, negotiated: &Negotiated) -> Survivor {
        let config = &self.core.config;
        survivor((config.router_id, config.local_asn), (negotiated.router_id, negotiated.asn))
    }
}

/// The longest interval of the ConnectRetryTimer and of the idle hold.
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// How long the first idle hold lasts; each further one lasts twice as long.
const FIRST_IDLE_HOLD: Duration = Duration::from_secs(5);
