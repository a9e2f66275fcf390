//! Who waits for endpoints to be in force or gone, and for how long changes are on their way to the kernel.

use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Owner;
use super::timers::Timer;
use crate::acl::handle::AclError;

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The endpoint's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// What is waited for.
    pub(super) wish: Wish,
    /// To be told when it has come true.
    pub(super) reply: oneshot::Sender<Result<(), AclError>>,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// The endpoint's policies are in force for all its addresses, and tracked connections of former holders of its
    /// addresses are deleted.
    InForce,
    /// The kernel maps the addresses to no class and has them in no set. Their tracked connections are deleted afterwards.
    Gone,
}

impl Owner {
    /// Answers those whose wish has come true.
    pub(super) fn answer(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            let is_known = waiting.wish == Wish::Gone || self.state.is_enforcing();
            if !is_known || !self.state.is_in_force(&waiting.addresses) {
                self.waiting.push(waiting);
                continue;
            }
            match waiting.wish {
                Wish::Gone => self.cutting.give_up(waiting.addresses, now, &mut self.timers),
                Wish::InForce if waiting.addresses.iter().any(|address| self.cutting.is_former(address)) => {
                    // Somebody waits for it: no more are collected.
                    self.timers.hasten(Timer::DeleteFormer, now);
                    self.waiting.push(waiting);
                    continue;
                }
                Wish::InForce => {}
            }
            // The CNI binary may have given up waiting; the agent's task that speaks to it undoes the attachment then.
            let _ = waiting.reply.send(Ok(()));
        }
        self.waiting.retain(|waiting| !waiting.reply.is_closed() || waiting.wish == Wish::Gone);
        if self.state.is_settled() {
            self.reports.all_in_force(now);
        }
    }
}
