//! What of a peer's routes is refused: asking again for what may be good now, limits, and telling people.

use std::time::{Duration, Instant};

use types::Family;

use super::Speaker;
use super::event::PeerEvent;
use crate::rib::{ByFamily, LimitAction, PeerIndex};
use crate::session::{self, StopReason};

/// So long passes at least between two requests to a peer for all its routes: they cost it and us as much as a new session.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(30);

/// So long passes at least between two words about a peer's refused routes.
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// How long a session stays down that ended because the peer sent too many prefixes (RFC 4486 section 4 asks for a damping of
/// the oscillation): so long the first time, and each time twice as long as the time before.
const TOO_MANY_PREFIXES_DOWN_TIME: Duration = Duration::from_secs(300);

/// The longest of these times. A session that has held for twice as long begins with the shortest again.
const LONGEST_DOWN_TIME: Duration = Duration::from_secs(3_600);

/// What is remembered of a peer for this.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// When the peer was last asked for all its routes.
    asked: ByFamily<Option<Instant>>,
    /// When it is to be asked again.
    owed: ByFamily<Option<Instant>>,
    /// When people were last told of refused routes.
    said: Option<Instant>,
    /// How many had been refused by then.
    said_of: u64,
    /// Whether people were told that the limit is near.
    near: ByFamily<bool>,
    /// When the session last ended for too many prefixes, and for how long.
    penalty: Option<(Instant, Duration)>,
}

impl Watched {
    pub(super) fn timeout(&self) -> Option<Instant> {
        [self.owed.ipv4, self.owed.ipv6].into_iter().flatten().min()
    }

    /// How long the session stays down this time.
    fn penalize(&mut self, now: Instant) -> Duration {
        let time = match self.penalty {
            Some((at, time)) if now.saturating_duration_since(at) < time + LONGEST_DOWN_TIME * 2 => {
                (time * 2).min(LONGEST_DOWN_TIME)
            }
            _ => TOO_MANY_PREFIXES_DOWN_TIME,
        };
        self.penalty = Some((now, time));
        time
    }
}

impl Speaker {
    /// Tells the tables what holds for a peer's routes.
    pub(super) fn set_intake(&mut self, index: PeerIndex) {
        let Some(peer) = self.peer(index) else { return };
        let (import, limit, action) =
            (peer.config.import.clone(), peer.config.max_prefixes, peer.config.max_prefixes_action);
        self.rib.set_intake(index, |intake| {
            (intake.import, intake.limit, intake.action) = (import, limit, action);
        });
    }

    /// Asks peers for routes that were refused and not kept, where they may be good now.
    pub(super) fn request_routes(&mut self) {
        let now = self.now;
        for (index, family) in self.rib.take_requests() {
            if let Some(peer) = self.peer_mut(index) {
                let asked = *peer.watched.asked.of(family);
                let due = asked.map_or(now, |at| (at + BETWEEN_REQUESTS).max(now));
                peer.watched.owed.of_mut(family).get_or_insert(due);
                self.request_due(index);
                self.arm(index);
            }
        }
    }

    /// Asks a peer for what is due.
    pub(super) fn request_due(&mut self, index: PeerIndex) {
        let now = self.now;
        for family in Family::ALL {
            let Some(peer) = self.peers.get_mut(usize::from(index.0)).and_then(Option::as_mut) else { return };
            if peer.watched.owed.of_mut(family).take_if(|due| *due <= now).is_none() {
                continue;
            }
            // Without a session there is nothing to ask for: the next one brings all.
            let Some(terms) = peer.session.negotiated().map(|terms| terms.families) else { continue };
            if !terms.contains(family) {
                continue;
            }
            if peer.session.request_refresh(family, now, &mut self.outputs) {
                *peer.watched.asked.of_mut(family) = Some(now);
                self.rib.begin_anew(index, family);
                self.drain_outputs(index);
            } else {
                self.event(index, PeerEvent::CannotAskAgain(family));
            }
        }
    }

    /// Ends the session of a peer that has more prefixes in use than it may (RFC 4486 section 4), where that is what is
    /// configured; says in any case that it has many.
    pub(super) fn limit_prefixes(&mut self, index: PeerIndex) {
        for family in Family::ALL {
            let Some(peer) = self.peer(index) else { return };
            let (action, was_near) = (peer.config.max_prefixes_action, *peer.watched.near.of(family));
            let counts = self.rib.counts(index, family);
            let (accepted, limit) = (counts.received.saturating_sub(counts.refused), self.rib.limit(index));
            if accepted > limit && action == LimitAction::Restart {
                let now = self.now;
                if let Some(peer) = self.peer_mut(index) {
                    peer.resume = Some(now + peer.watched.penalize(now));
                }
                return self.session_input(index, session::Input::Stop(StopReason::MaximumPrefixes { family, limit }));
            }
            if u64::from(accepted) * 5 < u64::from(limit) * 4 {
                self.rib.ask_for_the_rest(index, family);
            }
            let is_near = u64::from(accepted) * 5 >= u64::from(limit) * 4;
            if is_near != was_near {
                if let Some(peer) = self.peer_mut(index) {
                    *peer.watched.near.of_mut(family) = is_near;
                }
                if is_near {
                    self.event(index, PeerEvent::NearLimit { family, accepted, limit });
                }
            }
        }
    }

    /// Tells people of refused routes, now and then.
    pub(super) fn say_refused(&mut self, index: PeerIndex) {
        let now = self.now;
        let total = self.rib.refused_by_origin(index);
        let Some(watched) = self.peer(index).map(|peer| &peer.watched) else { return };
        let is_due = watched.said.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_WORDS);
        if total <= watched.said_of || !is_due {
            return;
        }
        let count = total - watched.said_of;
        let example = self.rib.refused_example(index);
        if let Some(peer) = self.peer_mut(index) {
            (peer.watched.said, peer.watched.said_of) = (Some(now), total);
        }
        if let Some((prefix, reason)) = example {
            self.event(index, PeerEvent::Refused { count, prefix, reason });
        }
    }
}
