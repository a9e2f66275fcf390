//! A connection on which both OPENs were accepted, and its two timers.

use std::time::{Duration, Instant};

use types::backoff::Backoff;

use super::context::Context;
use super::down::DownReason;
use super::machine::ConnId;
use super::negotiated::Negotiated;

/// A connection in OpenConfirm or Established.
#[derive(Debug)]
pub(super) struct Agreed {
    /// The connection.
    pub(super) conn: ConnId,
    /// What was agreed on.
    pub(super) negotiated: Negotiated,
    /// HoldTimer and KeepaliveTimer; `None` when the agreed hold time is none.
    timers: Option<Timers>,
}

#[derive(Debug)]
struct Timers {
    /// When the peer was heard last.
    heard_at: Instant,
    /// The agreed hold time.
    hold_time: Duration,
    /// When the peer has been silent for that long.
    hold_at: Instant,
    /// A third of the hold time, less jitter (RFC 4271 section 10).
    interval: Backoff,
    /// When a KEEPALIVE is due.
    keepalive_at: Instant,
}

impl Agreed {
    pub(super) fn new(conn: ConnId, negotiated: Negotiated, seed: u64, now: Instant) -> Self {
        let timers = negotiated.hold_time.duration().map(|hold_time| {
            let third = hold_time / 3;
            let mut interval = Backoff::new(third, third, seed);
            let keepalive_at = now + interval.delay();
            Timers { heard_at: now, hold_time, hold_at: now + hold_time, interval, keepalive_at }
        });
        Self { conn, negotiated, timers }
    }

    /// A KEEPALIVE or UPDATE was received.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Some(timers) = &mut self.timers {
            timers.heard_at = now;
            timers.hold_at = now + timers.hold_time;
        }
    }

    /// Whether the peer has been silent for so long that it must have left out a KEEPALIVE: for half of the hold time, where
    /// the field sends one in each third (RFC 4271 section 4.4). Never without a hold time.
    pub(super) fn has_missed_a_keepalive(&self, now: Instant) -> bool {
        self.timers.as_ref().is_some_and(|timers| timers.heard_at + timers.hold_time / 2 < now)
    }

    /// A KEEPALIVE or UPDATE was sent.
    pub(super) fn spoke(&mut self, now: Instant) {
        if let Some(timers) = &mut self.timers {
            timers.keepalive_at = now + timers.interval.delay();
        }
    }

    /// The earlier of the two timers.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timers.as_ref().map(|timers| timers.hold_at.min(timers.keepalive_at))
    }

    /// Sends a KEEPALIVE if one is due. An error is a peer that was silent for too long.
    pub(super) fn tick(&mut self, context: &mut Context<'_>) -> Result<(), DownReason> {
        let Some(timers) = &self.timers else { return Ok(()) };
        if timers.hold_at <= context.now {
            return Err(DownReason::HoldTimerExpired(timers.hold_time));
        }
        if timers.keepalive_at <= context.now {
            self.send_keepalive(context);
        }
        Ok(())
    }

    pub(super) fn send_keepalive(&mut self, context: &mut Context<'_>) {
        context.send_keepalive(self.conn);
        self.spoke(context.now);
    }
}
