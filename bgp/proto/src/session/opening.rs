//! From Start to Established: the connection that we dial and the one that the peer dials, each with a state of its own.

use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use types::SessionState;

use super::agreed::Agreed;
use super::collision::Survivor;
use super::config::StopReason;
use super::context::Context;
use super::down::DownReason;
use super::established::Established;
use super::handshake::{Handshake, Progress};
use super::incoming::Incoming;
use super::machine::{ConnId, Input, Output, State};
use crate::wire::{Cease, ErrorCode};

/// A session that is not established yet.
#[derive(Debug)]
pub(super) struct Opening {
    /// Our own attempts.
    outgoing: Outgoing,
    /// The connections that the peer has dialled, or somebody who has its address.
    incoming: Incoming,
}

/// Our own attempts to reach the peer.
#[derive(Debug)]
enum Outgoing {
    /// There are none: the peer has to dial.
    Nothing,
    /// Active: the next one begins at this time, by the ConnectRetryTimer.
    Waiting { at: Instant },
    /// Connect: given up and begun anew at this time, by the ConnectRetryTimer.
    Dialling { conn: ConnId, retry_at: Instant },
    /// There is a connection.
    Open(Handshake),
}

/// Which of the two connections with the peer: the one that we dial, or the one that it dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Outgoing,
    Incoming,
}

impl Opening {
    /// Dials at once, unless only the peer may.
    pub(super) fn begin(context: &mut Context<'_>) -> Self {
        let mut opening = Self { outgoing: Outgoing::Nothing, incoming: Incoming::default() };
        if !context.core.config.passive {
            opening.dial(context);
        }
        opening
    }

    /// After a session has ended: dials when the ConnectRetryTimer says so. Connections that the peer has opened since
    /// go on.
    pub(super) fn again(incoming: Incoming, context: &mut Context<'_>) -> Self {
        Self { outgoing: Outgoing::wait(context), incoming }
    }

    pub(super) fn handle(self, input: Input, context: &mut Context<'_>) -> State {
        match self.advance(input, context) {
            // A connection that we had dialled is gone.
            State::Opening(Self { outgoing: Outgoing::Nothing, incoming }) => {
                State::Opening(Self::again(incoming, context))
            }
            state => state,
        }
    }

    fn advance(mut self, input: Input, context: &mut Context<'_>) -> State {
        match input {
            Input::Start => State::Opening(self),
            Input::Stop(reason) => self.stop(reason, context),
            Input::Connected(conn) => {
                match self.outgoing {
                    Outgoing::Dialling { conn: dialled, .. } if dialled == conn => {
                        self.outgoing = Outgoing::Open(Handshake::begin(conn, context));
                    }
                    _ => context.outputs.push(Output::Close(conn)),
                }
                State::Opening(self)
            }
            Input::ConnectFailed(conn, why) => {
                if let Outgoing::Dialling { conn: dialled, retry_at } = self.outgoing
                    && dialled == conn
                {
                    self.outgoing = Outgoing::Waiting { at: retry_at };
                    context.attempt_failed(DownReason::ConnectFailed(why));
                }
                State::Opening(self)
            }
            Input::Accepted(conn) => {
                self.incoming.accept(conn, context);
                State::Opening(self)
            }
            Input::Received(conn, octets) => self.receive(conn, &octets, context),
            Input::Closed(conn) => match self.take(conn) {
                Some(_) => self.failed(DownReason::ConnectionLost, context),
                None => State::Opening(self),
            },
            Input::Acknowledged(_) => State::Opening(self),
            Input::Tick => self.tick(context),
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let outgoing = match &self.outgoing {
            Outgoing::Nothing => None,
            // The peer's OPEN has come on the other connection: no need to dial.
            Outgoing::Waiting { .. } if self.is_agreed(Side::Incoming) => None,
            Outgoing::Waiting { at } | Outgoing::Dialling { retry_at: at, .. } => Some(*at),
            Outgoing::Open(handshake) => handshake.timeout(),
        };
        outgoing.into_iter().chain(self.incoming.timeout()).min()
    }

    pub(super) fn state(&self) -> SessionState {
        let outgoing = match &self.outgoing {
            Outgoing::Nothing | Outgoing::Waiting { .. } => SessionState::Active,
            Outgoing::Dialling { .. } => SessionState::Connect,
            Outgoing::Open(handshake) => handshake.state(),
        };
        self.incoming.0.iter().map(Handshake::state).fold(outgoing, SessionState::max)
    }

    fn stop(self, reason: StopReason, context: &mut Context<'_>) -> State {
        if let Outgoing::Dialling { conn, .. } = self.outgoing {
            context.outputs.push(Output::Close(conn));
        }
        let reason = DownReason::Stopped(reason);
        for conn in self.conns() {
            context.end(conn, &reason);
        }
        context.core.counters.last_down = Some(reason);
        State::STOPPED
    }

    fn receive(mut self, conn: ConnId, octets: &Bytes, context: &mut Context<'_>) -> State {
        let Some((side, handshake)) = self.take(conn) else { return State::Opening(self) };
        match handshake.receive(octets, context) {
            Progress::Opened(agreed) => self.opened(side, agreed, context),
            Progress::Confirmed(agreed) => self.confirmed(side, agreed, context),
            Progress::Waiting(handshake) => {
                self.put(side, handshake);
                State::Opening(self)
            }
            Progress::Established(agreed, message) => self.establish(agreed, context).take(*message, context),
            Progress::Failed(conn, reason) => {
                context.end(conn, &reason);
                self.failed(reason, context)
            }
        }
    }

    /// The peer's OPEN was accepted. If it has come on connections of both sides, those of one side go (RFC 4271 section
    /// 6.8): not earlier, since the peer may yet give up the other one without ever having sent an OPEN on it. Of several
    /// that the peer dialled, none ends another: the first that the peer confirms is the session's.
    fn opened(mut self, side: Side, mut agreed: Agreed, context: &mut Context<'_>) -> State {
        if self.is_agreed(side.other()) {
            if !side.is_preferred(&agreed, context) {
                context.end(agreed.conn, &DownReason::Collision);
                return State::Opening(self);
            }
            self.drop_collided(|of, handshake| of == side.other() && handshake.is_agreed(), context);
        }
        if let Outgoing::Dialling { conn, retry_at } = self.outgoing {
            context.outputs.push(Output::Close(conn));
            self.outgoing = Outgoing::Waiting { at: retry_at };
        }
        agreed.send_keepalive(context);
        self.put(side, Handshake::OpenConfirm(agreed));
        State::Opening(self)
    }

    /// The peer's KEEPALIVE has come. If the other connection is preferred and the peer may be about to send its OPEN on
    /// it, that one is waited for: to take this one now could mean that each side closes what the other keeps.
    fn confirmed(mut self, side: Side, agreed: Agreed, context: &mut Context<'_>) -> State {
        if self.has(side.other()) && !side.is_preferred(&agreed, context) {
            self.put(side, Handshake::Confirmed { agreed, until: context.now + COLLISION_WAIT });
            return State::Opening(self);
        }
        State::Established(self.establish(agreed, context))
    }

    /// One connection is established; all others go.
    fn establish(mut self, agreed: Agreed, context: &mut Context<'_>) -> Established {
        if let Outgoing::Dialling { conn, .. } = self.outgoing {
            context.outputs.push(Output::Close(conn));
        }
        self.drop_collided(|_, _| true, context);
        Established::begin(agreed, context)
    }

    /// A connection is gone. It is no failure of the session as long as there is another one, which may have waited for
    /// this one.
    fn failed(mut self, reason: DownReason, context: &mut Context<'_>) -> State {
        let lost_collision = matches!(
            &reason,
            DownReason::NotificationReceived(notification)
                if notification.error == ErrorCode::Cease(Cease::CollisionResolution)
        );
        let gone = lost_collision || reason == DownReason::ConnectionLost;
        if !gone || self.conns().next().is_none() {
            context.attempt_failed(reason);
        }
        let waits = self.conns().find(|conn| self.waits_for_nothing(*conn));
        match waits.and_then(|conn| self.take(conn)) {
            Some((_, Handshake::Confirmed { agreed, .. })) => State::Established(self.establish(agreed, context)),
            Some((side, handshake)) => {
                self.put(side, handshake);
                State::Opening(self)
            }
            None => State::Opening(self),
        }
    }

    /// Whether the connection waits for a preferred one, and there is none any more.
    fn waits_for_nothing(&self, conn: ConnId) -> bool {
        self.find(conn).is_some_and(|(side, handshake)| {
            matches!(handshake, Handshake::Confirmed { .. }) && !self.has(side.other())
        })
    }

    fn tick(mut self, context: &mut Context<'_>) -> State {
        for conn in self.conns().collect::<Vec<_>>() {
            let Some((side, mut handshake)) = self.take(conn) else { continue };
            if let Err(reason) = handshake.tick(context) {
                context.end(conn, &reason);
                return self.failed(reason, context);
            }
            match handshake {
                Handshake::Confirmed { agreed, until } if until <= context.now => {
                    return State::Established(self.establish(agreed, context));
                }
                handshake => self.put(side, handshake),
            }
        }
        match self.outgoing {
            Outgoing::Waiting { at } if at <= context.now && !self.is_agreed(Side::Incoming) => self.dial(context),
            Outgoing::Dialling { conn, retry_at } if retry_at <= context.now => {
                context.outputs.push(Output::Close(conn));
                self.dial(context);
            }
            _ => {}
        }
        State::Opening(self)
    }

    fn dial(&mut self, context: &mut Context<'_>) {
        let retry_at = context.now + context.core.connect_retry.delay();
        self.outgoing = Outgoing::Dialling { conn: context.dial(), retry_at };
    }

    /// Closes the connections that `goes` names.
    fn drop_collided(&mut self, goes: impl Fn(Side, &Handshake) -> bool, context: &mut Context<'_>) {
        for conn in self.conns().collect::<Vec<_>>() {
            if self.find(conn).is_some_and(|(side, handshake)| goes(side, handshake)) {
                self.take(conn);
                context.end(conn, &DownReason::Collision);
            }
        }
    }

    /// All connections with their sides.
    fn handshakes(&self) -> impl Iterator<Item = (Side, &Handshake)> {
        let outgoing = match &self.outgoing {
            Outgoing::Open(handshake) => Some((Side::Outgoing, handshake)),
            Outgoing::Nothing | Outgoing::Waiting { .. } | Outgoing::Dialling { .. } => None,
        };
        outgoing.into_iter().chain(self.incoming.0.iter().map(|handshake| (Side::Incoming, handshake)))
    }

    fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.handshakes().map(|(_, handshake)| handshake.conn())
    }

    fn find(&self, conn: ConnId) -> Option<(Side, &Handshake)> {
        self.handshakes().find(|(_, handshake)| handshake.conn() == conn)
    }

    /// Whether there is a connection on this side.
    fn has(&self, side: Side) -> bool {
        self.handshakes().any(|(of, _)| of == side)
    }

    /// Whether the peer's OPEN was accepted on a connection of this side.
    fn is_agreed(&self, side: Side) -> bool {
        self.handshakes().any(|(of, handshake)| of == side && handshake.is_agreed())
    }

    /// Takes a connection out.
    fn take(&mut self, conn: ConnId) -> Option<(Side, Handshake)> {
        if let Some(handshake) = self.incoming.take(conn) {
            return Some((Side::Incoming, handshake));
        }
        match mem::replace(&mut self.outgoing, Outgoing::Nothing) {
            Outgoing::Open(handshake) if handshake.conn() == conn => Some((Side::Outgoing, handshake)),
            other => {
                self.outgoing = other;
                None
            }
        }
    }

    fn put(&mut self, side: Side, handshake: Handshake) {
        match side {
            Side::Incoming => self.incoming.0.push(handshake),
            Side::Outgoing => self.outgoing = Outgoing::Open(handshake),
        }
    }
}

impl Outgoing {
    fn wait(context: &mut Context<'_>) -> Self {
        if context.core.config.passive {
            Self::Nothing
        } else {
            Self::Waiting { at: context.now + context.core.connect_retry.delay() }
        }
    }
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Outgoing => Self::Incoming,
            Self::Incoming => Self::Outgoing,
        }
    }

    /// Whether of two connections with the speaker behind `agreed` the one on this side stays.
    fn is_preferred(self, agreed: &Agreed, context: &Context<'_>) -> bool {
        match context.survivor(&agreed.negotiated) {
            Survivor::Dialled => self == Self::Outgoing,
            Survivor::Accepted => self == Self::Incoming,
        }
    }
}

/// How long a connection that is ready waits for the one that is preferred to it.
pub(super) const COLLISION_WAIT: Duration = Duration::from_secs(5);
