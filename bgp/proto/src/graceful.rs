//! Graceful restart (RFC 4724), the bookkeeping of both roles. It knows deadlines and families; what happens to routes is
//! the speaker's business.
//!
//! [`Restart`] is our own: the kernel still has the routes of our previous life, so deletions (and nothing else) wait
//! until every peer has sent its End-of-RIB or has missed its deadline. [`Retention`] is a peer's: the routes that stay
//! while it restarts, and until when.
//!
//! A NOTIFICATION ends both (RFC 4724 section 4); RFC 8538 is not implemented.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use types::Family;

use crate::session::PeerRestart;
use crate::wire::Families;

/// How long an established peer that does not know graceful restart, and so need not send End-of-RIB, is given to send
/// its routes.
pub const UNMARKED_RIB_TIME: Duration = Duration::from_secs(5);

/// The start of this speaker, from a fresh process or after a restart.
#[derive(Debug)]
pub(crate) struct Restart {
    /// The families whose forwarding state the kernel has kept (the F bits that peers are told).
    preserved: Families,
    /// Whether the first configuration has come. Before it, it is not known which peers are waited for.
    configured: bool,
    /// The peers whose End-of-RIB is waited for, by family.
    awaited: BTreeMap<(IpAddr, Family), Awaited>,
    /// The families that are in sync.
    in_sync: Families,
    /// The families whose routes have been chosen as far as peers that wait for us allow.
    chosen: Families,
    /// Whether something has happened since the last [`Restart::poll`].
    changed: bool,
    /// The first deadline, as of the last [`Restart::poll`].
    next: Option<Instant>,
}

/// An End-of-RIB that is waited for.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    /// When the wait ends whatever happens.
    deadline: Instant,
    /// The deadline that holds while there is no session.
    without_session: Instant,
    /// Whether the peer has restarted as well and so may wait for our End-of-RIB.
    restarted: bool,
}

impl Restart {
    /// `preserved`: the families whose forwarding state has survived; empty after a boot.
    pub(crate) const fn new(preserved: Families) -> Self {
        Self {
            preserved,
            configured: false,
            awaited: BTreeMap::new(),
            in_sync: Families::NONE,
            chosen: Families::NONE,
            changed: true,
            next: None,
        }
    }

    /// Whether OPENs say that we have restarted (the R bit): until all families are in sync.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.preserved.is_empty() && self.in_sync != Families::ALL
    }

    /// The families with the F bit: what outlived the restart, and what has been forwarded since.
    pub(crate) fn forwarding(&self) -> Families {
        self.preserved.iter().chain(self.in_sync.iter()).collect()
    }

    /// Whether deletions of this family wait.
    pub(crate) fn defers_deletions(&self, family: Family) -> bool {
        self.preserved.contains(family) && !self.in_sync.contains(family)
    }

    /// Whether a reflector may tell a peer that it has sent all it has. After a restart, every other peer has to have sent
    /// all of its own before; one that has restarted as well is not waited for, as it may wait for us (RFC 4724
    /// section 4.1). After a boot nobody is waited for: two reflectors that booted would wait for each other.
    pub(crate) fn has_chosen(&self, family: Family) -> bool {
        !self.preserved.contains(family) || self.chosen.contains(family)
    }

    /// A peer of the first configuration, which has until `deadline` to come up.
    pub(crate) fn expect(&mut self, peer: IpAddr, families: Families, deadline: Instant) {
        for family in families.iter().filter(|family| !self.in_sync.contains(*family)) {
            let awaited = Awaited { deadline, without_session: deadline, restarted: false };
            self.awaited.insert((peer, family), awaited);
        }
        self.changed = true;
    }

    /// The first configuration is complete.
    pub(crate) const fn configured(&mut self) {
        self.configured = true;
        self.changed = true;
    }

    /// The peer is no longer configured.
    pub(crate) fn forget(&mut self, peer: IpAddr) {
        self.awaited.retain(|(address, _), _| *address != peer);
        self.changed = true;
    }

    /// The session is up with these families. Each is given `restart_time` for its End-of-RIB.
    pub(crate) fn established(
        &mut self,
        peer: IpAddr,
        families: Families,
        offer: Option<&PeerRestart>,
        restart_time: Duration,
        now: Instant,
    ) {
        self.awaited.retain(|(address, family), awaited| {
            if *address != peer {
                return true;
            }
            awaited.restarted = offer.is_some_and(|offer| offer.restarting);
            awaited.deadline = now + if offer.is_some() { restart_time } else { UNMARKED_RIB_TIME.min(restart_time) };
            families.contains(*family)
        });
        self.changed = true;
    }

    /// The session is lost; an End-of-RIB that has not come is waited for as if there had been no session.
    pub(crate) fn closed(&mut self, peer: IpAddr) {
        for awaited in self.awaited.iter_mut().filter(|((address, _), _)| *address == peer).map(|(_, awaited)| awaited)
        {
            awaited.deadline = awaited.without_session;
            awaited.restarted = false;
        }
        self.changed = true;
    }

    /// The peer has sent all its routes of the family (RFC 4724 section 2).
    pub(crate) fn end_of_rib(&mut self, peer: IpAddr, family: Family) {
        self.awaited.remove(&(peer, family));
        self.changed = true;
    }

    /// When [`Restart::poll`] has something to do at the latest, as of its last call.
    pub(crate) const fn timeout(&self) -> Option<Instant> {
        self.next
    }

    /// The families that have come into sync since the last call. It costs next to nothing while nothing has happened.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Family> {
        let due = self.next.is_some_and(|next| next <= now);
        if !self.configured || !(self.changed || due) {
            return Vec::new();
        }
        self.changed = false;
        self.awaited.retain(|_, awaited| awaited.deadline > now);
        let mut news = Vec::new();
        for family in Family::ALL {
            let mut awaited = self.awaited.iter().filter(|((_, of), _)| *of == family).map(|(_, awaited)| awaited);
            if awaited.clone().all(|awaited| awaited.restarted) {
                self.chosen = self.chosen.with(family);
            }
            if awaited.next().is_none() && !self.in_sync.contains(family) {
                self.in_sync = self.in_sync.with(family);
                news.push(family);
            }
        }
        self.next = self.awaited.values().map(|awaited| awaited.deadline).min();
        news
    }
}

/// The routes of one peer that stay although its session was lost.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Until when they stay, by family.
    until: BTreeMap<Family, Instant>,
}

impl Retention {
    /// The session is lost; `retains` says whether in a way that lets routes stay. Returns the families whose routes stay;
    /// all others go at once. A route that was kept already goes as well (RFC 4724 section 4.2, consecutive restarts).
    pub(crate) fn lost(&mut self, offer: Option<&PeerRestart>, retains: bool, now: Instant) -> Families {
        self.until.clear();
        let Some(offer) = offer.filter(|offer| retains && !offer.time.is_zero()) else {
            return Families::NONE;
        };
        self.until = offer.families.iter().map(|family| (family, now + offer.time)).collect();
        offer.families
    }

    /// A session is up again. Returns the families whose kept routes go at once: those that the new OPEN does not name,
    /// or names without the F bit (RFC 4724 section 4.2). The others are given `restart_time` for their End-of-RIB.
    pub(crate) fn established(
        &mut self,
        offer: Option<&PeerRestart>,
        restart_time: Duration,
        now: Instant,
    ) -> Families {
        let preserved = |family: &Family| offer.is_some_and(|offer| offer.forwarding.contains(*family));
        let gone = self.until.keys().copied().filter(|family| !preserved(family)).collect();
        self.until.retain(|family, _| preserved(family));
        for until in self.until.values_mut() {
            *until = now + restart_time;
        }
        gone
    }

    /// The peer has sent all its routes of the family: those that it has not sent again go (RFC 4724 section 4.2). Returns
    /// whether any were kept.
    pub(crate) fn end_of_rib(&mut self, family: Family) -> bool {
        self.until.remove(&family).is_some()
    }

    /// Whether routes of the family are kept.
    pub(crate) fn holds(&self, family: Family) -> bool {
        self.until.contains_key(&family)
    }

    /// When [`Retention::expired`] has something to say.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }

    /// The families whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Families {
        let expired = self.until.iter().filter(|(_, until)| **until <= now).map(|(family, _)| *family).collect();
        self.until.retain(|_, until| *until > now);
        expired
    }
}

#[cfg(test)]
mod tests;
