//! A connection on its way to Established.

use std::time::{Duration, Instant};

use bytes::Bytes;
use types::SessionState;

use super::agreed::Agreed;
use super::context::Context;
use super::down::DownReason;
use super::machine::ConnId;
use super::negotiated::Negotiated;
use crate::wire::{Codec, Message};

/// A connection before it is established. Its variants are states of RFC 4271 section 8.2.2.
#[derive(Debug)]
pub(super) enum Handshake {
    /// Our OPEN is sent.
    OpenSent {
        /// The connection.
        conn: ConnId,
        /// Since when.
        since: Instant,
        /// The HoldTimer, large as long as nothing was agreed on.
        hold_at: Instant,
    },
    /// The peer's OPEN is accepted and our KEEPALIVE sent.
    OpenConfirm(Agreed),
    /// The peer's KEEPALIVE has come too, but the peer's OPEN on a connection that is preferred to this one may still be
    /// under way (RFC 4271 section 6.8).
    Confirmed {
        /// The connection.
        agreed: Agreed,
        /// When the preferred connection is given up.
        until: Instant,
    },
}

/// What a message has made of a handshake.
#[derive(Debug)]
pub(super) enum Progress {
    /// The peer's OPEN is acceptable; no KEEPALIVE has been sent yet.
    Opened(Agreed),
    /// The peer has accepted our OPEN.
    Confirmed(Agreed),
    /// Nothing new.
    Waiting(Handshake),
    /// The peer takes the connection for established, as this message of its shows.
    Established(Agreed, Box<Message>),
    /// It is over, for the peer's fault or by its will.
    Failed(ConnId, DownReason),
}

impl Handshake {
    /// Sends our OPEN on a new connection.
    pub(super) fn begin(conn: ConnId, context: &mut Context<'_>) -> Self {
        context.send_open(conn);
        Self::OpenSent { conn, since: context.now, hold_at: context.now + LARGE_HOLD_TIME }
    }

    pub(super) const fn conn(&self) -> ConnId {
        match self {
            Self::OpenSent { conn, .. } => *conn,
            Self::OpenConfirm(agreed) | Self::Confirmed { agreed, .. } => agreed.conn,
        }
    }

    pub(super) const fn state(&self) -> SessionState {
        match self {
            Self::OpenSent { .. } => SessionState::OpenSent,
            Self::OpenConfirm(_) | Self::Confirmed { .. } => SessionState::OpenConfirm,
        }
    }

    /// Whether the peer's OPEN was accepted.
    pub(super) const fn is_agreed(&self) -> bool {
        matches!(self, Self::OpenConfirm(_) | Self::Confirmed { .. })
    }

    /// Since when the peer's OPEN is waited for.
    pub(super) const fn waits_for_open_since(&self) -> Option<Instant> {
        match self {
            Self::OpenSent { since, .. } => Some(*since),
            Self::OpenConfirm(_) | Self::Confirmed { .. } => None,
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        match self {
            Self::OpenSent { hold_at, .. } => Some(*hold_at),
            Self::OpenConfirm(agreed) => agreed.timeout(),
            Self::Confirmed { agreed, until } => agreed.timeout().into_iter().chain([*until]).min(),
        }
    }

    /// Takes a message.
    pub(super) fn receive(self, octets: &Bytes, context: &mut Context<'_>) -> Progress {
        let (conn, state) = (self.conn(), self.state());
        let codec = match &self {
            Self::OpenSent { .. } => Codec::before_open(context.core.config.peer_type()),
            Self::OpenConfirm(agreed) | Self::Confirmed { agreed, .. } => agreed.negotiated.codec(),
        };
        let message = match context.decode(&codec, octets) {
            Ok(message) => message,
            Err(error) => return Progress::Failed(conn, DownReason::Malformed(error)),
        };
        match (self, message) {
            (_, Message::Notification(notification)) => {
                Progress::Failed(conn, DownReason::NotificationReceived(notification))
            }
            (Self::OpenSent { .. }, Message::Open(open)) => match Negotiated::new(&context.core.config, &open) {
                Ok(negotiated) => {
                    Progress::Opened(Agreed::new(conn, negotiated, context.core.config.seed, context.now))
                }
                Err(reason) => Progress::Failed(conn, reason),
            },
            (Self::OpenConfirm(mut agreed), Message::Keepalive) => {
                agreed.heard(context.now);
                Progress::Confirmed(agreed)
            }
            (Self::Confirmed { mut agreed, until }, Message::Keepalive) => {
                // It leaves open which connection the peer has chosen.
                agreed.heard(context.now);
                Progress::Waiting(Self::Confirmed { agreed, until })
            }
            (Self::Confirmed { agreed, .. }, message @ (Message::Update(_) | Message::RouteRefresh(_))) => {
                Progress::Established(agreed, Box::new(message))
            }
            (_, message) => Progress::Failed(conn, DownReason::Unexpected { message: message.kind(), state }),
        }
    }

    /// Lets time pass. An error is a peer that was silent for too long.
    pub(super) fn tick(&mut self, context: &mut Context<'_>) -> Result<(), DownReason> {
        match self {
            Self::OpenSent { hold_at, .. } if *hold_at <= context.now => {
                Err(DownReason::HoldTimerExpired(LARGE_HOLD_TIME))
            }
            Self::OpenSent { .. } => Ok(()),
            Self::OpenConfirm(agreed) | Self::Confirmed { agreed, .. } => agreed.tick(context),
        }
    }
}

/// The HoldTimer's value in OpenSent (RFC 4271 section 8.2.2 suggests four minutes).
const LARGE_HOLD_TIME: Duration = Duration::from_secs(240);
