//! Which of the kernel's rules are to be read again, because others may have changed them.
//!
//! | rules are     | what happens                            | rules are then | `ReadRules`           |
//! |---------------|-----------------------------------------|----------------|-----------------------|
//! | as known      | others change a table                   | unread         | set: after a pause    |
//! | unread        | others change a table                   | unread         | as it was             |
//! | any           | events are lost                         | unread: all    | cancelled: at once    |
//! | any           | events cannot be heard                  | unread: all    | set: the next round   |
//! | any           | a restore of ours fails                 | unread: its    | cancelled: at once    |
//! | unread        | iptables is free, the timer is not set  | as known       | -                     |
//! | any           | a reading fails                         | unread: all    | set: after a back-off |
//!
//! A table is taken for known when its reading begins. So what others change while it is read makes it unread once more, and
//! leads to another reading. Beside this all tables are read in turn, one at a time and when iptables has nothing else to
//! do: at every resync, and where the kernel tells nothing of changes at every poll.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::acl::{IptablesVariant, RuleChange, RuleChangeKind, RuleEvent};
use kernel::events::Wait;
use tracing::warn;
use types::Family;

use super::timers::{Timer, TimerTable};
use super::{KERNEL_RETRY_DELAY, Owner};
use crate::acl::names::PREFIX;
use crate::acl::render::TableName;
use crate::acl::rule_tables::Disturbance;
use crate::acl::tables::ReadTables;

/// How long after an event the rules are read: several changes of one program are one.
const EVENTS_PAUSE: Duration = Duration::from_millis(20);

/// Events of others' changes that one round takes.
const EVENTS_PER_ROUND: usize = 1_024;

/// A table of a family.
pub(super) type TableOf = (Family, TableName);

/// Tables to be read now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Which.
    pub(super) tables: Vec<TableOf>,
    /// Since when others may have changed them, where they may.
    pub(super) since: Option<Instant>,
}

/// What is to be read, and what is known of others' doing.
#[derive(Debug)]
pub(super) struct Reading {
    hearing: Hearing,
    rules: Rules,
    /// Tables that are to be read in turn.
    in_turn: Vec<TableOf>,
    /// Families in which a restore of ours failed since they were read: it may have changed something after all, so what
    /// differs there is not others' doing.
    failed_restores: BTreeSet<Family>,
    /// Since when chains that protect pods may not have been as they should, until they are repaired.
    unprotected_since: Option<Instant>,
}

/// How others' changes come to be known.
#[derive(Debug)]
enum Hearing {
    /// The kernel tells of them (nftables).
    Events,
    /// It does not (legacy iptables): all tables are read every while.
    Polls {
        /// When the last poll was.
        last: Instant,
        /// When the one before it was: what the last one finds may have been so since then.
        since: Option<Instant>,
    },
}

/// Whether others may have changed rules since they were read.
#[derive(Debug)]
enum Rules {
    /// They have not, as far as was heard.
    AsKnown,
    /// They may have: these tables are to be read when `ReadRules` is not set.
    Unread {
        tables: BTreeSet<TableOf>,
        /// Since when; none where a restore of ours is the only reason.
        since: Option<Instant>,
    },
}

impl Reading {
    /// All rules are as known.
    pub(super) const fn new(variant: IptablesVariant, now: Instant) -> Self {
        let hearing = match variant {
            IptablesVariant::Nft => Hearing::Events,
            IptablesVariant::Legacy => Hearing::Polls { last: now, since: None },
        };
        Self {
            hearing,
            rules: Rules::AsKnown,
            in_turn: Vec::new(),
            failed_restores: BTreeSet::new(),
            unprotected_since: None,
        }
    }

    /// Whether the kernel tells of changes.
    pub(super) const fn hears_events(&self) -> bool {
        matches!(self.hearing, Hearing::Events)
    }

    /// Others changed this table.
    pub(super) fn changed(&mut self, table: TableOf, now: Instant, timers: &mut TimerTable) {
        if matches!(self.rules, Rules::AsKnown) {
            timers.set(Timer::ReadRules, now + EVENTS_PAUSE);
        }
        self.add([table], Some(now));
    }

    /// Others may have changed any of these tables, as events were lost.
    pub(super) fn lost(&mut self, all: Vec<TableOf>, now: Instant, timers: &mut TimerTable) {
        self.add(all, Some(now));
        timers.cancel(Timer::ReadRules);
    }

    /// Nothing is heard any more, so others may have changed any of these tables. They are read when that is over: read in
    /// each round that hears nothing, they would leave iptables no time for what is to be restored.
    pub(super) fn deaf(&mut self, all: Vec<TableOf>, now: Instant, timers: &mut TimerTable) {
        self.add(all, Some(now));
        timers.set(Timer::ReadRules, now);
    }

    /// A restore of ours failed. Perhaps one of the family's tables was changed after all.
    pub(super) fn restore_failed(&mut self, family: Family, timers: &mut TimerTable) {
        self.add(TableName::ALL.map(|name| (family, name)), None);
        self.failed_restores.insert(family);
        timers.cancel(Timer::ReadRules);
    }

    /// What was requested, because of changes since then, could not be read; all is read at that time.
    pub(super) fn failed(
        &mut self,
        all: Vec<TableOf>,
        since: Option<Instant>,
        now: Instant,
        again_at: Instant,
        timers: &mut TimerTable,
    ) {
        self.add(all, since.or(Some(now)));
        timers.set(Timer::ReadRules, again_at);
    }

    fn add(&mut self, more: impl IntoIterator<Item = TableOf>, others_since: Option<Instant>) {
        match &mut self.rules {
            Rules::AsKnown => self.rules = Rules::Unread { tables: more.into_iter().collect(), since: others_since },
            Rules::Unread { tables, since } => {
                tables.extend(more);
                *since = since.or(others_since);
            }
        }
    }

    /// What is to be read now; it is taken for known from now on.
    pub(super) fn take_unread(&mut self, timers: &TimerTable) -> Option<Request> {
        if timers.is_set(Timer::ReadRules) {
            return None;
        }
        match std::mem::replace(&mut self.rules, Rules::AsKnown) {
            Rules::AsKnown => None,
            Rules::Unread { tables, since } => Some(Request { tables: tables.into_iter().collect(), since }),
        }
    }

    /// All these tables are to be read in turn.
    pub(super) fn read_in_turn(&mut self, all: Vec<TableOf>) {
        self.in_turn = all;
    }

    /// All these tables are to be read in turn, as the kernel does not tell of changes.
    pub(super) fn poll(&mut self, all: Vec<TableOf>, now: Instant) {
        self.in_turn = all;
        if let Hearing::Polls { last, since } = &mut self.hearing {
            *since = Some(std::mem::replace(last, now));
        }
    }

    /// The next table that is to be read in turn.
    pub(super) fn take_in_turn(&mut self) -> Option<Request> {
        let table = self.in_turn.pop()?;
        let since = match self.hearing {
            Hearing::Events => None,
            Hearing::Polls { since, .. } => since,
        };
        Some(Request { tables: vec![table], since })
    }

    /// A family's tables were read, as others may have changed them since then, and this is what differs. Whether others
    /// did it.
    pub(super) fn compared(
        &mut self,
        family: Family,
        disturbance: Disturbance,
        since: Option<Instant>,
        now: Instant,
    ) -> bool {
        if self.failed_restores.remove(&family) || !disturbance.repairs {
            return false;
        }
        if disturbance.is_unprotected {
            self.unprotected_since.get_or_insert_with(|| since.unwrap_or(now));
        }
        true
    }

    /// Everything is as it should be. For how long chains that protect pods were not, if they were not.
    pub(super) fn repaired(&mut self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.unprotected_since.take()?))
    }
}

impl Owner {
    /// These tables of all families.
    pub(super) fn tables_with(&self, names: impl IntoIterator<Item = TableName> + Clone) -> Vec<TableOf> {
        let families = self.state.families().iter();
        families.flat_map(|family| names.clone().into_iter().map(|name| (*family, name))).collect()
    }

    pub(super) fn take_events(&mut self, now: Instant) {
        for _ in 0..EVENTS_PER_ROUND {
            match self.ends.events.next(Some(Duration::ZERO)) {
                Ok(Wait::Event(event)) => self.rules_changed(&event, now),
                Ok(Wait::Woken) => {}
                Ok(Wait::TimedOut) => return,
                Err(error) => return self.events_failed(&error),
            }
        }
    }

    /// Without events the rules are read; without a pause this would spin.
    pub(super) fn events_failed(&mut self, error: &KernelError) {
        warn!(%error, "the kernel does not say when other programs change rules; all our chains are read again");
        let all = self.tables_with(TableName::ALL);
        // Later than the round began, so not in this one.
        self.reading.deaf(all, Instant::now(), &mut self.timers);
        std::thread::sleep(KERNEL_RETRY_DELAY.0);
    }

    fn events_lost(&mut self, now: Instant) {
        let all = self.tables_with(TableName::ALL);
        self.reading.lost(all, now, &mut self.timers);
    }

    /// Others changed rules. Most of that does not concern us: kube-proxy does so all the time.
    pub(super) fn rules_changed(&mut self, event: &RuleEvent, now: Instant) {
        if !self.reading.hears_events() {
            // It is about the tables of the other variant.
            return;
        }
        match event {
            RuleEvent::Changed { changes, .. } => {
                for change in changes {
                    let name = TableName::ALL.into_iter().find(|name| name.as_str() == change.table);
                    let Some(name) = name.filter(|name| concerns_us(*name, change)) else { continue };
                    if self.state.families().contains(&change.family) {
                        self.reading.changed((change.family, name), now, &mut self.timers);
                    }
                }
            }
            RuleEvent::Lost => self.events_lost(now),
        }
    }

    /// Tables have been read, as others may have changed them since then.
    pub(super) fn tables_read(&mut self, read: ReadTables, since: Option<Instant>, now: Instant) {
        let mut families: BTreeMap<Family, BTreeMap<_, _>> = BTreeMap::new();
        for ((family, name), table) in read {
            families.entry(family).or_default().insert(name, table);
        }
        for (family, tables) in families {
            let disturbance = self.state.tables_read(family, tables);
            if self.reading.compared(family, disturbance, since, now) {
                self.reports.view.repairs += 1;
                warn!(%family, "another program changed our chains; they are repaired");
            }
        }
    }
}

/// Whether a change may be one of our chains, or may have put something before our hooks or taken them away.
fn concerns_us(table: TableName, change: &RuleChange) -> bool {
    let Some(chain) = change.chain.as_deref() else { return change.kind == RuleChangeKind::Removed };
    if chain.starts_with(PREFIX) {
        return true;
    }
    match table {
        TableName::Mangle => matches!(chain, "FORWARD" | "INPUT"),
        TableName::Raw => chain == "PREROUTING",
        // Appended: what others put there does not disturb.
        TableName::Nat => chain == "POSTROUTING" && change.kind == RuleChangeKind::Removed,
        TableName::Filter => chain == "FORWARD" && change.kind == RuleChangeKind::Removed,
    }
}

#[cfg(test)]
mod tests;
