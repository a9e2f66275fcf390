//! The established session.

use std::time::Instant;

use bytes::Bytes;
use types::SessionState;

use super::agreed::Agreed;
use super::context::{Context, LONGEST_RETRY};
use super::down::DownReason;
use super::machine::{ConnId, Input, Output, State};
use super::opening::{COLLISION_WAIT, Opening};
use super::second::Second;
use crate::wire::{Cease, Handling, Message, MessageType, RouteRefresh, Update};

/// A session over which routes may flow.
#[derive(Debug)]
pub(super) struct Established {
    /// Its connection.
    pub(super) agreed: Agreed,
    /// When it was established.
    since: Instant,
    /// Connections that have come from the peer's address since.
    second: Second,
}

impl Established {
    pub(super) fn begin(mut agreed: Agreed, context: &mut Context<'_>) -> Self {
        agreed.heard(context.now);
        context.core.connect_retry.reset();
        context.core.counters.established += 1;
        context.core.counters.since = Some(context.now);
        context.outputs.push(Output::Established(agreed.conn, agreed.negotiated.clone()));
        Self { agreed, since: context.now, second: Second::None }
    }

    pub(super) fn handle(mut self, input: Input, context: &mut Context<'_>) -> State {
        match input {
            Input::Start => State::Established(self),
            Input::Stop(reason) => self.down(DownReason::Stopped(reason), context),
            Input::Connected(conn) => {
                context.outputs.push(Output::Close(conn));
                State::Established(self)
            }
            Input::ConnectFailed(..) => State::Established(self),
            Input::Accepted(conn) => {
                self.accept(conn, context);
                State::Established(self)
            }
            Input::Received(conn, octets) if conn == self.agreed.conn => self.receive(&octets, context),
            Input::Received(conn, octets) => match self.second.receive(conn, &octets, context) {
                Some(agreed) => self.succeed(agreed, context),
                None => State::Established(self),
            },
            Input::Closed(conn) if conn == self.agreed.conn => self.down(DownReason::ConnectionLost, context),
            Input::Closed(conn) => {
                self.second.closed(conn);
                State::Established(self)
            }
            Input::Acknowledged(conn) => {
                if conn == self.agreed.conn {
                    self.second.acknowledged(&self.agreed, context);
                }
                State::Established(self)
            }
            Input::Tick => self.tick(context),
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.agreed.timeout().into_iter().chain(self.second.timeout()).min()
    }

    /// Without graceful restart, the established connection wins every collision (RFC 4271 section 6.8). With it, a new
    /// connection may be the sign of a restart, unless the session is so young that it is the other half of a collision.
    fn accept(&mut self, conn: ConnId, context: &mut Context<'_>) {
        let restarts = self.agreed.negotiated.graceful_restart.as_ref().is_some_and(|terms| !terms.families.is_empty());
        if !restarts || context.now < self.since + COLLISION_WAIT {
            return context.refuse(conn, Cease::CollisionResolution);
        }
        self.second.accept(conn, &mut self.agreed, context);
    }

    fn receive(self, octets: &Bytes, context: &mut Context<'_>) -> State {
        match context.decode(&self.agreed.negotiated.codec(), octets) {
            Ok(message) => self.take(message, context),
            Err(error) => self.down(DownReason::Malformed(error), context),
        }
    }

    /// Takes a message of the session's connection.
    pub(super) fn take(mut self, message: Message, context: &mut Context<'_>) -> State {
        match message {
            Message::Update(update) => {
                self.agreed.heard(context.now);
                count_faults(&update, context);
                context.outputs.push(Output::Update(update));
            }
            Message::Keepalive => self.agreed.heard(context.now),
            Message::RouteRefresh(RouteRefresh { family, subtype: 0 }) => {
                let family = family.family().filter(|family| self.agreed.negotiated.families.contains(*family));
                if let Some(family) = family {
                    context.outputs.push(Output::Refresh(family));
                }
            }
            // Subtypes have no meaning without enhanced route refresh (RFC 7313 section 5).
            Message::RouteRefresh(_) => {}
            Message::Notification(notification) => {
                return self.down(DownReason::NotificationReceived(notification), context);
            }
            Message::Open(_) => {
                let (message, state) = (MessageType::Open, SessionState::Established);
                return self.down(DownReason::Unexpected { message, state }, context);
            }
        }
        State::Established(self)
    }

    /// The peer has restarted and is back before its former connection was found dead.
    fn succeed(mut self, agreed: Agreed, context: &mut Context<'_>) -> State {
        std::mem::replace(&mut self.second, Second::None).refuse(Cease::CollisionResolution, context);
        self.end(DownReason::PeerRestarted, context);
        State::Established(Self::begin(agreed, context))
    }

    fn tick(mut self, context: &mut Context<'_>) -> State {
        if let Err(reason) = self.agreed.tick(context) {
            return self.down(reason, context);
        }
        self.second.tick(context);
        State::Established(self)
    }

    /// The session is over. Where a peer's fault is likely to come again at once, the next attempt is held back.
    fn down(mut self, reason: DownReason, context: &mut Context<'_>) -> State {
        let second = std::mem::replace(&mut self.second, Second::None);
        let stable = context.now.saturating_duration_since(self.since) >= LONGEST_RETRY;
        if stable {
            context.core.idle_hold.reset();
        }
        let held = match &reason {
            DownReason::Stopped(_) => Some(State::STOPPED),
            DownReason::Malformed(_) | DownReason::Unexpected { .. } => {
                Some(State::Idle { until: Some(context.now + context.core.idle_hold.delay()) })
            }
            _ => None,
        };
        self.end(reason, context);
        match held {
            Some(idle) => {
                second.refuse(Cease::ConnectionRejected, context);
                idle
            }
            None => {
                let incoming = second.into_incoming(context);
                State::Opening(Opening::again(incoming, context))
            }
        }
    }

    /// Closes the connection, unless that is how the session ended, and says so.
    fn end(self, reason: DownReason, context: &mut Context<'_>) {
        if reason != DownReason::ConnectionLost {
            context.end(self.agreed.conn, &reason);
        }
        context.core.counters.since = Some(context.now);
        context.core.counters.last_down = Some(reason.clone());
        context.outputs.push(Output::Down(reason));
    }
}

fn count_faults(update: &Update, context: &mut Context<'_>) {
    let counters = &mut context.core.counters;
    let handled = |handling| update.faults.iter().filter(move |fault| fault.handling == handling).count() as u64;
    counters.attributes_discarded += handled(Handling::AttributeDiscard);
    counters.treated_as_withdraw += u64::from(handled(Handling::TreatAsWithdraw) > 0);
}
