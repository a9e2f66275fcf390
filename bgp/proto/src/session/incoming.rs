//! The connections that come from a peer's address, before one of them is a session.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::agreed::Agreed;
use super::context::Context;
use super::handshake::{Handshake, Progress};
use super::machine::ConnId;
use crate::wire::Cease;

/// Handshakes on connections that the peer has dialled, or somebody who has its address: which of the two is told by what
/// comes next. So none ends another, and there are [`MOST_INCOMING`] at most.
#[derive(Debug, Default)]
pub(super) struct Incoming(pub(super) Vec<Handshake>);

impl Incoming {
    /// Begins a handshake, or refuses the connection. Where there are as many as there may be, one that has not brought an
    /// OPEN for a while makes room.
    pub(super) fn accept(&mut self, conn: ConnId, context: &mut Context<'_>) {
        if self.0.len() >= MOST_INCOMING {
            let now = context.now;
            let is_slow =
                |handshake: &Handshake| handshake.waits_for_open_since().is_some_and(|at| at + PATIENCE <= now);
            let Some(slow) = self.0.iter().position(is_slow) else {
                context.core.counters.refused_connections += 1;
                return context.refuse(conn, Cease::ConnectionRejected);
            };
            let slow = self.0.remove(slow);
            context.core.counters.refused_connections += 1;
            context.refuse(slow.conn(), Cease::ConnectionRejected);
        }
        self.0.push(Handshake::begin(conn, context));
    }

    /// Gives a handshake that was taken out a message. Returns the connection if the handshake is complete; puts it back if
    /// it goes on.
    pub(super) fn advance(
        &mut self,
        handshake: Handshake,
        octets: &Bytes,
        context: &mut Context<'_>,
    ) -> Option<Agreed> {
        match handshake.receive(octets, context) {
            Progress::Opened(mut agreed) => {
                agreed.send_keepalive(context);
                self.0.push(Handshake::OpenConfirm(agreed));
            }
            Progress::Waiting(handshake) => self.0.push(handshake),
            Progress::Confirmed(agreed) | Progress::Established(agreed, _) => return Some(agreed),
            Progress::Failed(conn, reason) => {
                context.end(conn, &reason);
                context.attempt_failed(reason);
            }
        }
        None
    }

    pub(super) fn take(&mut self, conn: ConnId) -> Option<Handshake> {
        let place = self.0.iter().position(|handshake| handshake.conn() == conn)?;
        Some(self.0.remove(place))
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(Handshake::timeout).min()
    }
}

/// Connections from one peer's address that may be without a session at a time: one that the peer uses, one that it has
/// given up and we do not know of yet, and as many again for those who only have its address.
pub(super) const MOST_INCOMING: usize = 4;

/// How long a connection is kept for its OPEN when others wait for the place.
const PATIENCE: Duration = Duration::from_secs(5);
