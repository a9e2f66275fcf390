//! The end of a round: what inputs have changed is decided, encoded and handed out.

use std::time::Instant;

use bytes::Bytes;
use types::{Family, FibUpdate};

use super::Speaker;
use super::event::Action;
use crate::session::ConnId;

impl Speaker {
    pub(super) fn close_round(&mut self) {
        self.stirred = false;
        self.request_routes();
        self.settle();
        let watches = self.rib.watches();
        self.actions.extend(watches.into_iter().map(Action::Watch));
        // A family is in sync when its routes have been chosen, and a route is not while its next hop is unknown.
        if self.rib.knows_all_next_hops() {
            self.come_into_sync();
        }
    }

    /// Decides what was touched, and wakes those who are to be told.
    pub(super) fn settle(&mut self) {
        if self.rib.is_settled() {
            return;
        }
        let Self { rib, actions, deferred, restart, .. } = self;
        let grown = rib.settle(|update| match update {
            FibUpdate::Withdraw { prefix } if restart.defers_deletions(prefix.family()) => {
                deferred.of_mut(prefix.family()).insert(prefix);
            }
            FibUpdate::Set { prefix, .. } => {
                deferred.of_mut(prefix.family()).remove(&prefix);
                actions.push_back(Action::Fib(update));
            }
            FibUpdate::Withdraw { .. } | FibUpdate::InSync { .. } => actions.push_back(Action::Fib(update)),
        });
        for group in grown {
            let members: Vec<_> = self.rib.group(group).into_iter().flat_map(|group| group.members()).collect();
            for member in members {
                if let Some(conn) = self.peer(member).and_then(|peer| peer.session.connection()) {
                    self.wake(conn);
                }
            }
        }
    }

    fn come_into_sync(&mut self) {
        let chosen = Family::ALL.map(|family| self.restart.has_chosen(family));
        let news = self.restart.poll(self.now);
        for family in &news {
            for prefix in std::mem::take(self.deferred.of_mut(*family)) {
                self.actions.push_back(Action::Fib(FibUpdate::Withdraw { prefix }));
            }
            self.actions.push_back(Action::Fib(FibUpdate::InSync { family: *family }));
        }
        if !news.is_empty() {
            self.renew_terms();
        }
        if chosen != Family::ALL.map(|family| self.restart.has_chosen(family)) {
            self.wake_all();
        }
    }

    /// The next connection that there is something to be sent on, each once until it is handed out again. A connection
    /// whose socket was full before everything was handed out is not named again for that.
    pub fn poll_transmit(&mut self) -> Option<ConnId> {
        if self.stirred {
            self.close_round();
        }
        while let Some(conn) = self.ready.pop_front() {
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.ready = false;
                return Some(conn);
            }
        }
        None
    }

    /// Appends to `out` what is to be sent next on a connection, whole messages in this order, until about `budget` octets
    /// are spent (they are exceeded by less than one run of messages, some tens of thousands of octets). Nothing is
    /// appended when all has been handed out. The octets are shared with the other peers of the update group.
    pub fn transmit(&mut self, conn: ConnId, out: &mut Vec<Bytes>, budget: usize, now: Instant) {
        if self.stirred {
            self.close_round();
        }
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let index = connection.peer;
        out.append(&mut connection.control);
        let Some(peer) = self.peer(index).filter(|peer| peer.session.connection() == Some(conn)) else { return };
        let groups = peer.groups;
        let mut budget = budget;
        let mut messages = 0;
        for family in Family::ALL {
            let Some(group) = *groups.of(family) else { continue };
            let may_end =
                self.may_end(family, self.rib.group(group).is_some_and(|group| group.policy().is_own_routes_only()));
            messages += self.rib.transmit(index, group, may_end, out, &mut budget);
        }
        if messages > 0 {
            if let Some(peer) = self.peer_mut(index) {
                peer.session.sent_updates(messages, now);
            }
            self.arm(index);
        }
    }

    /// Whether a peer may be told that it has been sent everything of the family: after a restart, not before it is known
    /// what we originate, and where others' routes are told as well not before those have been chosen (RFC 4724
    /// section 4.1).
    fn may_end(&self, family: Family, own_routes_only: bool) -> bool {
        let originated = self.originated || !self.config.preserved.contains(family);
        originated && (own_routes_only || self.restart.has_chosen(family))
    }

    /// There is something to be sent on the connection.
    pub(super) fn wake(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push_back(conn);
        }
    }

    /// There may be something to be sent to every peer.
    pub(super) fn wake_all(&mut self) {
        let established: Vec<_> = self.peers.iter().flatten().filter_map(|peer| peer.session.connection()).collect();
        for conn in established {
            self.wake(conn);
        }
    }
}
