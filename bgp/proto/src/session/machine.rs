//! The session and what goes in and out.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use types::Family;

use super::config::{SessionConfig, StopReason};
use super::counters::Counters;
use super::down::DownReason;
use super::negotiated::Negotiated;
use crate::wire::{GracefulRestart, Update};

/// A connection, or an attempt at one: unique in a speaker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The connection with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// The states of RFC 4271 section 8.2.2. Of two connections, the one that has come further counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
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

impl fmt::Display for StateName {
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

/// What happens to a session. Connections that it does not know (any more) are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Begin, and begin again after every end until stopped.
    Start,
    /// End, and stay down.
    Stop(StopReason),
    /// A connection that [`Output::Connect`] asked for is there.
    Connected(ConnId),
    /// A connection that [`Output::Connect`] asked for cannot be had, for the reason given.
    ConnectFailed(ConnId, String),
    /// The peer has dialled.
    Accepted(ConnId),
    /// A whole message, as [`crate::wire::frame_length`] cuts it out; or octets that it finds no message in.
    Received(ConnId, Bytes),
    /// The transport has ended.
    Closed(ConnId),
    /// Time has passed.
    Tick,
}

/// What a session wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Dial the peer; answered by [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect(ConnId),
    /// Close the connection, or give up dialling it. What was sent before goes out if it can without waiting.
    Close(ConnId),
    /// Send a message.
    Send(ConnId, Bytes),
    /// Routes may flow over this connection.
    Established(ConnId, Negotiated),
    /// The established session is over; [`DownReason::retains_routes`] says what it means for routes.
    Down(DownReason),
    /// An attempt failed before the session was established: something to tell people.
    AttemptFailed(DownReason),
    /// Routes from the peer, of the agreed families.
    Update(Update),
    /// The peer wants all routes of an agreed family again (RFC 2918).
    Refresh(Family),
}

/// Where sessions put what they want done, and get the ids of the connections that they dial.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Not taken yet.
    queue: VecDeque<Output>,
    /// The number of the last id given out.
    last: u64,
}

impl Outputs {
    /// An id that was never given out before.
    pub const fn conn_id(&mut self) -> ConnId {
        self.last += 1;
        ConnId(self.last)
    }

    /// The next thing to do.
    pub fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }
}

/// The session with one peer.
#[derive(Debug)]
pub struct Session {
    /// What was configured.
    config: SessionConfig,
    /// What was seen.
    counters: Counters,
}

impl Session {
    /// A session that is not started.
    pub fn new(config: SessionConfig) -> Self {
        Self { config, counters: Counters::default() }
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Instant, outputs: &mut Outputs) {
        let _ = (input, now, outputs);
    }

    /// When [`Input::Tick`] is due.
    pub fn timeout(&self) -> Option<Instant> {
        None
    }

    /// UPDATEs of this session have been handed to its connection: they count, and put the next KEEPALIVE off (RFC 4271
    /// section 8.2.2).
    pub fn sent_updates(&mut self, count: u64, now: Instant) {
        let _ = (count, now);
    }

    /// Asks the peer for its routes of a family again; false when it is not established or the peer does not answer that.
    pub fn request_refresh(&mut self, family: Family, outputs: &mut Outputs) -> bool {
        let _ = (family, outputs);
        false
    }

    /// Our terms of graceful restart in OPENs from now on.
    pub fn set_graceful_restart(&mut self, terms: Option<GracefulRestart>) {
        self.config.graceful_restart = terms;
    }

    /// The state.
    pub fn state(&self) -> StateName {
        StateName::Idle
    }

    /// The connection that routes flow over.
    pub fn connection(&self) -> Option<ConnId> {
        None
    }

    /// What was agreed on, while established.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        None
    }

    /// What was configured.
    pub const fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// What was seen.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}
