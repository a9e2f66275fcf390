//! Connections from the address of a peer whose session is established.
//!
//! RFC 4724 section 4.2 takes a new connection for the sign that the peer has restarted, and gives the first one up for it.
//! That lets everybody who can open a connection from the peer's address end its session: a pod that is masqueraded, say.
//! So, deliberately other than there, the first connection is probed before anything is done with a new one: a KEEPALIVE
//! is sent on it.
//!
//! - The peer's TCP acknowledges it: there is a live connection, and the new one is somebody else's. It is closed.
//! - The peer's TCP answers with a reset: it has restarted. The session is down in the way that keeps its routes, and the
//!   new connection goes on.
//! - There is no answer within [`PROBE_TIME`], or there is one of a kernel whose BGP speaker has left out a KEEPALIVE:
//!   RFC 4724 section 4.2 holds as it stands, and the new connection takes the session's place when its handshake is
//!   complete.
//!
//! docs/decisions/0009-second-connections.md has the reasons.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::agreed::Agreed;
use super::context::Context;
use super::handshake::Handshake;
use super::incoming::{Incoming, MOST_INCOMING};
use super::machine::{ConnId, Output};
use crate::wire::Cease;

/// What has come since the session was established.
#[derive(Debug)]
pub(super) enum Second {
    /// Nothing.
    None,
    /// Connections on which nothing is said before the probe of the first one has come to an end.
    Probing {
        /// The connections, [`MOST_INCOMING`] at most.
        conns: Vec<Waiting>,
        /// When the first connection has had its time to answer.
        until: Instant,
    },
    /// The first connection did not answer: handshakes, one of which takes the session's place when it is complete: not at
    /// its first octet, as it can be a connection that the peer has already given up.
    Successors(Incoming),
}

/// A connection that waits for the probe.
#[derive(Debug)]
pub(super) struct Waiting {
    conn: ConnId,
    /// The first message that has come: the peer sends its OPEN at once, and nothing else before it has ours.
    message: Option<Bytes>,
}

impl Second {
    /// A connection has come from the peer's address.
    pub(super) fn accept(&mut self, conn: ConnId, first: &mut Agreed, context: &mut Context<'_>) {
        match self {
            Self::None => {
                first.send_keepalive(context);
                context.outputs.push(Output::Probe(first.conn));
                *self = Self::Probing { conns: vec![Waiting::new(conn)], until: context.now + PROBE_TIME };
            }
            Self::Probing { conns, .. } if conns.len() < MOST_INCOMING => conns.push(Waiting::new(conn)),
            Self::Probing { .. } => {
                context.core.counters.refused_connections += 1;
                context.refuse(conn, Cease::ConnectionRejected);
            }
            Self::Successors(incoming) => incoming.accept(conn, context),
        }
    }

    /// The peer's TCP has acknowledged the probe.
    pub(super) fn acknowledged(&mut self, first: &Agreed, context: &mut Context<'_>) {
        let Self::Probing { conns, .. } = self else { return };
        if first.has_missed_a_keepalive(context.now) {
            return self.begin_handshakes(context);
        }
        let refused = conns.len();
        for Waiting { conn, .. } in std::mem::take(conns) {
            context.refuse(conn, Cease::CollisionResolution);
        }
        context.core.counters.refused_connections += refused as u64;
        context.outputs.push(Output::Refused(refused));
        *self = Self::None;
    }

    /// The new connections are heard.
    fn begin_handshakes(&mut self, context: &mut Context<'_>) {
        let Self::Probing { conns, .. } = self else { return };
        let mut incoming = Incoming::default();
        for Waiting { conn, message } in std::mem::take(conns) {
            let handshake = Handshake::begin(conn, context);
            match message {
                // Nothing but an OPEN leads on from here, so none can be complete.
                Some(message) => drop(incoming.advance(handshake, &message, context)),
                None => incoming.0.push(handshake),
            }
        }
        *self = if incoming.0.is_empty() { Self::None } else { Self::Successors(incoming) };
    }

    /// A connection has ended.
    pub(super) fn closed(&mut self, conn: ConnId) {
        match self {
            Self::None => {}
            // The probe goes on: what it finds of the first connection is true whether or not anybody waits for it.
            Self::Probing { conns, .. } => conns.retain(|waiting| waiting.conn != conn),
            Self::Successors(incoming) => {
                incoming.take(conn);
                self.forget_if_empty();
            }
        }
    }

    /// Takes a message of a connection that is not the session's. Returns the one that takes the session's place.
    pub(super) fn receive(&mut self, conn: ConnId, octets: &Bytes, context: &mut Context<'_>) -> Option<Agreed> {
        match self {
            Self::None => None,
            Self::Probing { conns, .. } => {
                let place = conns.iter().position(|waiting| waiting.conn == conn)?;
                let waiting = conns.get_mut(place)?;
                if waiting.message.is_none() {
                    // A copy: the octets as they came are part of a buffer that is much larger.
                    waiting.message = Some(Bytes::copy_from_slice(octets));
                } else {
                    conns.remove(place);
                    context.refuse(conn, Cease::ConnectionRejected);
                }
                None
            }
            Self::Successors(incoming) => {
                let handshake = incoming.take(conn)?;
                let complete = incoming.advance(handshake, octets, context);
                self.forget_if_empty();
                complete
            }
        }
    }

    pub(super) fn tick(&mut self, context: &mut Context<'_>) {
        match self {
            Self::Probing { until, .. } if *until <= context.now => self.begin_handshakes(context),
            Self::Successors(incoming) => {
                for mut handshake in std::mem::take(&mut incoming.0) {
                    match handshake.tick(context) {
                        Ok(()) => incoming.0.push(handshake),
                        Err(reason) => context.end(handshake.conn(), &reason),
                    }
                }
                self.forget_if_empty();
            }
            Self::None | Self::Probing { .. } => {}
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Probing { until, .. } => Some(*until),
            Self::Successors(incoming) => incoming.timeout(),
        }
    }

    /// The first connection is gone: the handshakes of the others.
    pub(super) fn into_incoming(mut self, context: &mut Context<'_>) -> Incoming {
        self.begin_handshakes(context);
        match self {
            Self::Successors(incoming) => incoming,
            Self::None | Self::Probing { .. } => Incoming::default(),
        }
    }

    /// Nobody is to have a session: all connections are closed.
    pub(super) fn refuse(self, cease: Cease, context: &mut Context<'_>) {
        let conns = match self {
            Self::None => Vec::new(),
            Self::Probing { conns, .. } => conns.iter().map(|waiting| waiting.conn).collect(),
            Self::Successors(incoming) => incoming.0.iter().map(Handshake::conn).collect(),
        };
        for conn in conns {
            context.refuse(conn, cease);
        }
    }

    fn forget_if_empty(&mut self) {
        if matches!(self, Self::Successors(incoming) if incoming.0.is_empty()) {
            *self = Self::None;
        }
    }
}

impl Waiting {
    const fn new(conn: ConnId) -> Self {
        Self { conn, message: None }
    }
}

/// How long the first connection has to answer: many times the round trip of any path that routes of a cluster take.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(1);
