//! What the thread that runs iptables is given to do, one task at a time, and what becomes of its answers.
//!
//! | the thread  | is given, in this order of importance                  | its answer                                  |
//! |-------------|--------------------------------------------------------|---------------------------------------------|
//! | is free     | tables that others may have changed, to be read        | compared; a failure makes all unread, and   |
//! |             |                                                        | is over when all have been read             |
//! |             | a restore, unless one has failed a moment ago          | known; a failure is tried again later       |
//! |             | a table whose turn it is, to be read                   | compared                                    |
//! |             | counters, where somebody wants to see them             | shown                                       |
//! | is at work  | nothing                                                | -                                           |

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::acl::Tables;
use tracing::warn;
use types::backoff::Backoff;

use super::reading::{Request, TableOf};
use super::timers::Timer;
use super::{KERNEL_RETRY_DELAY, Owner};
use crate::acl::render::{self, TableName};
use crate::acl::tables::{ReadTables, TablesAnswer, TablesTask, answer};

/// The thread that runs iptables, as its owner sees it.
#[derive(Debug)]
pub(super) struct Iptables {
    /// What it is doing.
    work: Work,
    /// Why rules cannot be changed; until a restore succeeds.
    unchangeable: Option<KernelError>,
    /// Why rules cannot be read, and the tables that have not been read since; until all of them are, or a restore succeeds.
    unreadable: Option<(KernelError, BTreeSet<TableOf>)>,
    /// Delays between attempts.
    backoff: Backoff,
}

/// What the thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing.
    Idle,
    /// It makes a restore.
    Restoring,
    /// It reads tables that others may have changed since then.
    Reading { since: Option<Instant> },
    /// It reads counters.
    Counting,
}

impl Iptables {
    /// It has nothing to do.
    pub(super) fn new(seed: u64) -> Self {
        let (first, most) = KERNEL_RETRY_DELAY;
        let backoff = Backoff::new(first, most, seed);
        Self { work: Work::Idle, unchangeable: None, unreadable: None, backoff }
    }

    /// Whether the thread has a task.
    pub(super) fn is_busy(&self) -> bool {
        self.work != Work::Idle
    }

    /// Whether the task is to read counters.
    pub(super) fn is_counting(&self) -> bool {
        self.work == Work::Counting
    }

    /// Why rules cannot be read or changed, if so.
    pub(super) fn trouble(&self) -> Option<&KernelError> {
        self.unchangeable.as_ref().or_else(|| self.unreadable.as_ref().map(|(error, _)| error))
    }

    /// These tables have been read.
    fn have_read(&mut self, read: &ReadTables) {
        let Some((_, left)) = &mut self.unreadable else { return };
        left.retain(|table| !read.contains_key(table));
        if left.is_empty() {
            self.unreadable = None;
            if self.unchangeable.is_none() {
                self.backoff.reset();
            }
        }
    }
}

impl Owner {
    /// Gives the thread that runs iptables its next task: what it should read comes before what it should change.
    pub(super) fn give_table_task(&mut self, now: Instant) {
        if self.iptables.is_busy() {
            return;
        }
        if let Some(request) = self.reading.take_unread(&self.timers) {
            return self.give_reading(request);
        }
        if self.timers.is_set(Timer::RetryRestore) {
            return;
        }
        if let Some(job) = self.state.table_job() {
            self.give_iptables(Work::Restoring, TablesTask::Restore(job));
        } else if let Some(request) = self.reading.take_in_turn() {
            self.give_reading(request);
        } else if let Some(window) = self.reading.repaired(now) {
            self.reports.view.unprotected += window;
            warn!(?window, "chains that protect pods had been changed by another program; repaired");
        }
    }

    /// Has counters read.
    pub(super) fn give_counting(&mut self) {
        let which = self.tables_with([TableName::Mangle, TableName::Raw]);
        self.give_iptables(Work::Counting, TablesTask::Count(which));
    }

    fn give_reading(&mut self, Request { tables, since }: Request) {
        self.give_iptables(Work::Reading { since }, TablesTask::Read(tables));
    }

    fn give_iptables(&mut self, work: Work, task: TablesTask) {
        // The thread ends only with us.
        if self.ends.tables.try_send(task).is_ok() {
            self.iptables.work = work;
        }
    }

    /// Makes the first restores before anything else goes on. If one fails the owner goes on trying; the node is not ready
    /// until then.
    pub(super) fn restore_at_once(&mut self, tables: &mut dyn Tables, now: Instant) {
        while self.iptables.unchangeable.is_none()
            && let Some(job) = self.state.table_job()
        {
            if let TablesAnswer::Restored(result, took) = answer(tables, TablesTask::Restore(job)) {
                self.restored(result, took, now);
            }
        }
    }

    /// The thread has done its task.
    pub(super) fn tables_answer(&mut self, answer: TablesAnswer, now: Instant) {
        let since = match std::mem::replace(&mut self.iptables.work, Work::Idle) {
            Work::Reading { since } => since,
            Work::Idle | Work::Restoring | Work::Counting => None,
        };
        match answer {
            TablesAnswer::Restored(result, took) => self.restored(result, took, now),
            TablesAnswer::Read(Ok(read)) => {
                self.iptables.have_read(&read);
                self.tables_read(read, since, now);
            }
            TablesAnswer::Read(Err(error)) => {
                warn!(%error, "the kernel's rules cannot be read; they are read again in a while");
                let (all, again_at) = (self.tables_with(TableName::ALL), now + self.iptables.backoff.delay());
                self.iptables.unreadable = Some((error, all.iter().copied().collect()));
                self.reading.failed(all, since, now, again_at, &mut self.timers);
            }
            TablesAnswer::Counted(result) => {
                match result {
                    Ok(read) => self.counters_read(&read),
                    Err(error) => warn!(%error, "packets that rules drop cannot be counted"),
                }
                self.send_views();
            }
        }
    }

    fn restored(&mut self, result: Result<(), KernelError>, took: Duration, now: Instant) {
        self.reports.view.restore.observe(took);
        let family = self.state.restored(result.is_ok(), now);
        match result {
            Ok(()) => {
                (self.iptables.unchangeable, self.iptables.unreadable) = (None, None);
                self.iptables.backoff.reset();
                self.timers.cancel(Timer::RetryRestore);
            }
            Err(error) => {
                self.reports.view.restore_failures += 1;
                if self.iptables.unchangeable.is_none() {
                    warn!(%error, "rules cannot be changed; those in force stay so, and the change is tried again");
                }
                self.iptables.unchangeable = Some(error);
                self.timers.set(Timer::RetryRestore, now + self.iptables.backoff.delay());
                if let Some(family) = family {
                    self.reading.restore_failed(family, &mut self.timers);
                }
            }
        }
    }

    /// Tables have been read with counters.
    pub(super) fn counters_read(&mut self, read: &ReadTables) {
        let unknown = render::unknown_hash(self.state.layout());
        for ((family, _), table) in read {
            self.reports.drops.read(*family, table, unknown);
        }
        self.reports.drops.prime();
    }
}
