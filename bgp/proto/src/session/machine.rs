//! The session and what goes in and out.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use types::{Family, SessionState};

use super::config::{SessionConfig, StopReason};
use super::context::{Context, Core};
use super::counters::Counters;
use super::down::DownReason;
use super::established::Established;
use super::negotiated::Negotiated;
use super::opening::Opening;
use crate::wire::{AfiSafi, Cease, GracefulRestart, MessageType, RouteRefresh, Update};

/// A connection, or an attempt at one: unique in a speaker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The connection with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
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
    /// The peer's TCP has acknowledged what was sent up to [`Output::Probe`], or something behind it.
    Acknowledged(ConnId),
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
    /// Tell with [`Input::Acknowledged`] when the peer's TCP has acknowledged what was sent on the connection so far.
    Probe(ConnId),
    /// Connections from the peer's address were closed, as its session is alive: so many.
    Refused(usize),
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
    /// Where it is, with what belongs to that.
    state: State,
    /// What outlives a state.
    core: Core,
}

/// The states, each with what belongs to it alone.
#[derive(Debug)]
pub(super) enum State {
    /// No connection is made or taken: until started, or until this time.
    Idle { until: Option<Instant> },
    /// Connect, Active, OpenSent or OpenConfirm.
    Opening(Opening),
    /// Routes may flow.
    Established(Established),
}

impl State {
    /// Until started.
    pub(super) const STOPPED: Self = Self::Idle { until: None };

    /// The state after an input.
    pub(super) fn handle(self, input: Input, context: &mut Context<'_>) -> Self {
        match self {
            Self::Idle { until } => idle(until, input, context),
            Self::Opening(opening) => opening.handle(input, context),
            Self::Established(established) => established.handle(input, context),
        }
    }
}

impl Session {
    /// A session that is not started.
    pub fn new(config: SessionConfig) -> Self {
        Self { state: State::STOPPED, core: Core::new(config) }
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Instant, outputs: &mut Outputs) {
        let mut context = Context { core: &mut self.core, now, outputs };
        let state = std::mem::replace(&mut self.state, State::STOPPED);
        self.state = state.handle(input, &mut context);
    }

    /// When [`Input::Tick`] is due.
    pub fn timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { until } => *until,
            State::Opening(opening) => opening.timeout(),
            State::Established(established) => established.timeout(),
        }
    }

    /// UPDATEs of this session have been handed to its connection: they count, and put the next KEEPALIVE off (RFC 4271
    /// section 8.2.2).
    pub fn sent_updates(&mut self, count: u64, now: Instant) {
        self.core.counters.sent.add(MessageType::Update, count);
        if let State::Established(established) = &mut self.state {
            established.agreed.spoke(now);
        }
    }

    /// Asks the peer for its routes of a family again; false when the session is not established, or has no such family,
    /// or the peer does not answer that.
    pub fn request_refresh(&mut self, family: Family, now: Instant, outputs: &mut Outputs) -> bool {
        let State::Established(Established { agreed, .. }) = &self.state else { return false };
        let possible = agreed.negotiated.route_refresh && agreed.negotiated.families.contains(family);
        if possible {
            let message = RouteRefresh::request(AfiSafi::unicast(family)).encode();
            let mut context = Context { core: &mut self.core, now, outputs };
            context.send(agreed.conn, MessageType::RouteRefresh, message);
        }
        possible
    }

    /// Our terms of graceful restart in OPENs from now on.
    pub fn set_graceful_restart(&mut self, terms: Option<GracefulRestart>) {
        self.core.config.graceful_restart = terms;
    }

    /// The state.
    pub fn state(&self) -> SessionState {
        match &self.state {
            State::Idle { .. } => SessionState::Idle,
            State::Opening(opening) => opening.state(),
            State::Established(_) => SessionState::Established,
        }
    }

    /// The connection that routes flow over.
    pub const fn connection(&self) -> Option<ConnId> {
        match &self.state {
            State::Established(established) => Some(established.agreed.conn),
            State::Idle { .. } | State::Opening(_) => None,
        }
    }

    /// What was agreed on, while established.
    pub const fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::Established(established) => Some(&established.agreed.negotiated),
            State::Idle { .. } | State::Opening(_) => None,
        }
    }

    /// What was configured.
    pub const fn config(&self) -> &SessionConfig {
        &self.core.config
    }

    /// What was seen.
    pub const fn counters(&self) -> &Counters {
        &self.core.counters
    }
}

/// Handles an input in Idle, where every connection is refused (RFC 4271 section 8.2.2).
fn idle(until: Option<Instant>, input: Input, context: &mut Context<'_>) -> State {
    match input {
        Input::Start if until.is_none() => State::Opening(Opening::begin(context)),
        Input::Tick if until.is_some_and(|until| until <= context.now) => State::Opening(Opening::begin(context)),
        Input::Stop(reason) => {
            context.core.counters.last_down = Some(DownReason::Stopped(reason));
            State::STOPPED
        }
        Input::Accepted(conn) => {
            context.refuse(conn, Cease::ConnectionRejected);
            State::Idle { until }
        }
        Input::Connected(conn) => {
            context.outputs.push(Output::Close(conn));
            State::Idle { until }
        }
        Input::Start
        | Input::Tick
        | Input::ConnectFailed(..)
        | Input::Received(..)
        | Input::Closed(_)
        | Input::Acknowledged(_) => State::Idle { until },
    }
}
