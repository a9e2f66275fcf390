//! Which tracked connections are to end: those that policies forbid now, and those of addresses that were given up.
//!
//! | connections are | what happens                                  | they are then                                   |
//! |-----------------|-----------------------------------------------|-------------------------------------------------|
//! | unwatched       | `CutConnections` expires, the thread is free  | being listed                                    |
//! | being listed    | the list comes                                | judged, some in each round                      |
//! | being listed    | the kernel refuses                            | unwatched; `CutConnections` is set              |
//! | judged          | all are allowed                               | unwatched                                       |
//! | judged          | all are judged, some are forbidden            | being cut                                       |
//! | being cut       | the thread has done it                        | unwatched                                       |
//! | being cut       | the kernel refuses                            | unwatched; `CutConnections` is set              |
//!
//! `CutConnections` is set when something was tightened, whatever the state; it waits in the table until connections are
//! unwatched and the thread is free. Connections are listed so seldom that it costs at most a tenth of that thread's time.
//!
//! Addresses that were given up are collected until `DeleteFormer` expires, then the thread deletes their connections. That
//! goes before the next step of judging and cutting; the thread has one task at a time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kernel::acl::Connection;
use tracing::warn;

use super::Owner;
use super::timers::{Timer, TimerTable};
use crate::acl::connections::{ConnectionsAnswer, ConnectionsTask, flow};
use crate::acl::state::Tightened;

/// How long after a tightening connections are listed.
const CUT_DELAY: Duration = Duration::from_millis(50);

/// The same while some change is not in force yet: it may be one that fails, and others have been in force for long. What
/// is cut too early is looked at again when it is.
const CUT_DELAY_IN_PART: Duration = Duration::from_secs(1);

/// So long addresses are collected before their connections are deleted: the walk through the table costs tens of
/// milliseconds, however many they are.
const FORMER_ADDRESSES_DELAY: Duration = Duration::from_secs(1);

/// How long after a failure connections are listed or deleted again.
const CONNECTIONS_RETRY_DELAY: Duration = Duration::from_secs(10);

/// Connections that are judged in one round.
const CONNECTIONS_JUDGED_PER_ROUND: usize = 512;

/// After a listing, how many times as long as it took no other is made.
const REST_AFTER_LISTING: u32 = 9;

/// Where cutting stands, and what the thread of connections does.
#[derive(Debug)]
pub(super) struct Cutting {
    stage: Stage,
    /// Connections are not listed before.
    not_before: Instant,
    /// Addresses that were given up, whose connections are to be deleted.
    former: BTreeSet<IpAddr>,
    /// Those of which the thread deletes connections now; none: it does not.
    being_deleted: BTreeSet<IpAddr>,
}

/// See the module.
#[derive(Debug)]
enum Stage {
    Unwatched,
    BeingListed,
    Judged { suspects: Vec<Connection>, forbidden: Vec<Connection> },
    BeingCut,
}

impl Cutting {
    /// Nothing is to end.
    pub(super) const fn new(now: Instant) -> Self {
        Self { stage: Stage::Unwatched, not_before: now, former: BTreeSet::new(), being_deleted: BTreeSet::new() }
    }

    /// Whether the thread has a task.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::BeingListed | Stage::BeingCut) || !self.being_deleted.is_empty()
    }

    /// Whether connections wait to be judged, which needs no thread but comes after what it is doing.
    pub(super) const fn has_suspects(&self) -> bool {
        matches!(&self.stage, Stage::Judged { suspects, .. } if !suspects.is_empty())
    }

    /// Whether the address was given up and its connections are not deleted yet.
    pub(super) fn is_former(&self, address: &IpAddr) -> bool {
        self.former.contains(address) || self.being_deleted.contains(address)
    }

    /// Something that was allowed may be forbidden now.
    pub(super) fn tightened(&mut self, how_far: Tightened, now: Instant, timers: &mut TimerTable) {
        let delay = match how_far {
            Tightened::Whole => CUT_DELAY,
            Tightened::InPart => CUT_DELAY_IN_PART,
        };
        timers.set_at_latest(Timer::CutConnections, self.not_before.max(now + delay));
    }

    /// These addresses were given up.
    pub(super) fn give_up(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        now: Instant,
        timers: &mut TimerTable,
    ) {
        self.former.extend(addresses);
        if !self.former.is_empty() && !timers.is_set(Timer::DeleteFormer) {
            timers.set(Timer::DeleteFormer, now + FORMER_ADDRESSES_DELAY);
        }
    }

    /// What the thread is to do next; it counts as busy from now on. `local` are the addresses of this node's endpoints.
    pub(super) fn next_task(
        &mut self,
        now: Instant,
        timers: &mut TimerTable,
        allows: impl Fn(&Connection) -> bool,
        local: impl FnOnce() -> BTreeSet<IpAddr>,
    ) -> Option<ConnectionsTask> {
        if self.is_busy() {
            return None;
        }
        if timers.expired(Timer::DeleteFormer, now) {
            self.being_deleted = std::mem::take(&mut self.former);
            return Some(ConnectionsTask::Forget(self.being_deleted.clone()));
        }
        if let Stage::Judged { suspects, forbidden } = &mut self.stage {
            let rest = suspects.len().saturating_sub(CONNECTIONS_JUDGED_PER_ROUND);
            forbidden.extend(suspects.split_off(rest).into_iter().filter(|suspect| !allows(suspect)));
            if !suspects.is_empty() {
                return None;
            }
            let forbidden = std::mem::take(forbidden);
            if !forbidden.is_empty() {
                self.stage = Stage::BeingCut;
                return Some(ConnectionsTask::Cut(forbidden));
            }
            self.stage = Stage::Unwatched;
        }
        if timers.expired(Timer::CutConnections, now) {
            self.stage = Stage::BeingListed;
            return Some(ConnectionsTask::Look(local()));
        }
        None
    }

    /// Connections were listed, which took so long.
    pub(super) fn listed(&mut self, found: Vec<Connection>, took: Duration, now: Instant, timers: &mut TimerTable) {
        self.stage = Stage::Judged { suspects: found, forbidden: Vec::new() };
        self.not_before = now + took * REST_AFTER_LISTING;
        if let Some(at) = timers.expiry(Timer::CutConnections) {
            timers.set(Timer::CutConnections, at.max(self.not_before));
        }
    }

    /// Forbidden connections were cut.
    pub(super) fn cut(&mut self) {
        self.stage = Stage::Unwatched;
    }

    /// Connections could not be listed, or not all that are forbidden could be cut.
    pub(super) fn failed(&mut self, now: Instant, timers: &mut TimerTable) {
        self.stage = Stage::Unwatched;
        timers.set(Timer::CutConnections, self.not_before.max(now + CONNECTIONS_RETRY_DELAY));
    }

    /// The connections of addresses that were given up are deleted, or could not be.
    pub(super) fn former_deleted(&mut self, is_done: bool, now: Instant, timers: &mut TimerTable) {
        let addresses = std::mem::take(&mut self.being_deleted);
        if !is_done {
            self.former.extend(addresses);
            timers.set(Timer::DeleteFormer, now + CONNECTIONS_RETRY_DELAY);
        }
    }
}

impl Owner {
    /// Gives the thread of connections its next task.
    pub(super) fn give_connections_task(&mut self, now: Instant) {
        if self.config.cut_connections
            && let Some(how_far) = self.state.tightened()
        {
            self.cutting.tightened(how_far, now, &mut self.timers);
        }
        let allows = |connection: &Connection| self.compiler.allows(&flow(connection));
        let local = || self.locals.values().flat_map(|local| &local.addresses).copied().collect();
        if let Some(task) = self.cutting.next_task(now, &mut self.timers, allows, local) {
            // The thread ends only with us: if it is gone nobody waits for an answer.
            let _ = self.ends.connections.try_send(task);
        }
    }

    /// The thread of connections has done its task.
    pub(super) fn connections_answer(&mut self, answer: ConnectionsAnswer, now: Instant) {
        match answer {
            ConnectionsAnswer::Forgotten(result) => {
                if let Err(error) = &result {
                    warn!(%error, "tracked connections of former addresses cannot be deleted; this is tried again");
                }
                self.cutting.former_deleted(result.is_ok(), now, &mut self.timers);
            }
            ConnectionsAnswer::Looked(Ok(found), took) => self.cutting.listed(found, took, now, &mut self.timers),
            ConnectionsAnswer::Looked(Err(error), _) => {
                warn!(%error, "tracked connections cannot be read; those that policies forbid now live on for a while");
                self.cutting.failed(now, &mut self.timers);
            }
            ConnectionsAnswer::Cut(count, failure) => {
                self.reports.view.connections_cut += count;
                self.cutting.cut();
                if let Some(error) = failure {
                    warn!(%error, "a tracked connection that policies forbid cannot be deleted; this is tried again");
                    self.cutting.failed(now, &mut self.timers);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
