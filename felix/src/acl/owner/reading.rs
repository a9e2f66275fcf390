//! What the kernel has: at the start, and again when others may have changed it. And the tasks of the thread that runs
//! iptables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::acl::{RuleChange, RuleChangeKind, RuleEvent, Tables};
use kernel::events::Wait;
use tracing::warn;
use types::Family;

use super::{EVENTS_PER_ROUND, LOOK, Owner, RETRY};
use crate::acl::names::{PREFIX, SetRef};
use crate::acl::render::{self, TableName};
use crate::acl::sets::fixed_spec;
use crate::acl::tables::{ReadTables, TablesAnswer, TablesTask, answer};

impl Owner {
    /// Reads all that is ours, takes over the classes of an earlier life, and makes sure that unknown addresses are dropped.
    /// Nothing else is changed yet. Blocks; `tables` is the caller's still.
    pub(crate) fn open(&mut self, tables: &mut dyn Tables, now: Instant) -> Result<(), KernelError> {
        let families = self.state.families().clone();
        let mut missing: BTreeSet<_> = families.iter().flat_map(|family| SetRef::base(*family)).collect();
        for header in self.ends.sets.sets()? {
            match SetRef::parse(header.name.as_str()) {
                Some(set @ SetRef::Program(..)) => self.state.set_found(set),
                Some(set) => {
                    missing.remove(&set);
                    let elements = self.ends.sets.elements(&header.name)?;
                    self.state.fixed_set_read(set, &elements);
                }
                None if header.name.as_str().starts_with(PREFIX) => self.strangers.push(header.name),
                None => {}
            }
        }
        for set in missing {
            self.make_base_set(set)?;
            self.state.fixed_set_read(set, &[]);
        }
        let all = self.tables_with(TableName::ALL);
        match answer(tables, TablesTask::Count(all)) {
            TablesAnswer::Counted(Ok(read)) => {
                self.drops_read(&read);
                self.tables_read(read, now);
            }
            TablesAnswer::Counted(Err(error)) => return Err(error),
            TablesAnswer::Read(_) | TablesAnswer::Restored(..) => {}
        }
        self.compiler.adopt(self.state.adopted());
        while let Some(job) = self.state.table_job() {
            // If it fails, the owner goes on trying; the node is not ready until then.
            let task = answer(tables, TablesTask::Restore(job));
            self.tables_answer(task, now);
            if self.restore_trouble.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// One of the sets that the first rules refer to: it is there before them.
    pub(super) fn make_base_set(&mut self, set: SetRef) -> Result<(), KernelError> {
        match self.ends.sets.create_set(&set.kernel_name(), &fixed_spec(set, 0)) {
            Ok(()) | Err(KernelError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// These tables of all families.
    pub(super) fn tables_with(&self, names: impl IntoIterator<Item = TableName> + Clone) -> Vec<(Family, TableName)> {
        let families = self.state.families().iter();
        families.flat_map(|family| names.clone().into_iter().map(|name| (*family, name))).collect()
    }

    pub(super) fn look_at_all(&mut self, now: Instant) {
        self.unread.extend(self.tables_with(TableName::ALL));
        self.unread_since.get_or_insert(now);
        self.look_at = Some(now);
    }

    pub(super) fn take_events(&mut self, now: Instant) {
        for _ in 0..EVENTS_PER_ROUND {
            match self.ends.events.next(Some(Duration::ZERO)) {
                Ok(Wait::Event(event)) => self.rules_changed(&event, now),
                Ok(Wait::Woken) => {}
                Ok(Wait::TimedOut) => return,
                Err(error) => return self.deaf(&error),
            }
        }
    }

    /// Without events the rules are read; without a pause this would spin.
    pub(super) fn deaf(&mut self, error: &KernelError) {
        warn!(%error, "changes of rules are not heard");
        self.look_at_all(Instant::now());
        std::thread::sleep(RETRY.0);
    }

    /// Others changed rules. Most of that does not concern us: kube-proxy does so all the time.
    pub(super) fn rules_changed(&mut self, event: &RuleEvent, now: Instant) {
        if !self.hears_rules {
            // It is about the tables of the other variant.
            return;
        }
        match event {
            RuleEvent::Changed { changes, .. } => {
                for change in changes {
                    let name = TableName::ALL.into_iter().find(|name| name.as_str() == change.table);
                    let Some(name) = name.filter(|name| concerns_us(*name, change)) else { continue };
                    if self.state.families().contains(&change.family) {
                        self.unread.insert((change.family, name));
                        self.unread_since.get_or_insert(now);
                        self.look_at.get_or_insert(now + LOOK);
                    }
                }
            }
            RuleEvent::Lost => self.look_at_all(now),
        }
    }

    /// Gives the thread that runs iptables its next task: what it should read comes before what it should change.
    pub(super) fn give_table_task(&mut self, now: Instant) {
        if self.tables_busy {
            return;
        }
        if !self.unread.is_empty() && self.look_at.is_none_or(|at| now >= at) {
            self.look_at = None;
            self.read_since = self.unread_since.take();
            let which = std::mem::take(&mut self.unread).into_iter().collect();
            return self.give_tables(TablesTask::Read(which));
        }
        if self.restore_at.is_some_and(|at| now < at) {
            return;
        }
        if let Some(job) = self.state.table_job() {
            self.give_tables(TablesTask::Restore(job));
        } else if let Some(table) = self.routine.pop() {
            self.read_since = self.routine_since;
            self.give_tables(TablesTask::Read(vec![table]));
        } else if let Some(since) = self.unprotected_since.take() {
            let window = now.saturating_duration_since(since);
            self.view.unprotected += window;
            warn!(?window, "chains that protect pods had been changed by another program; repaired");
        }
    }

    pub(super) fn give_tables(&mut self, task: TablesTask) {
        // The thread ends only with us.
        self.tables_busy = self.ends.tables.try_send(task).is_ok();
    }

    pub(super) fn take_answers(&mut self, now: Instant) {
        while let Ok(answer) = self.ends.tables_answers.try_recv() {
            self.tables_busy = false;
            self.tables_answer(answer, now);
        }
        while let Ok(answer) = self.ends.connections_answers.try_recv() {
            self.connections_answer(answer, now);
        }
    }

    fn tables_answer(&mut self, answer: TablesAnswer, now: Instant) {
        match answer {
            TablesAnswer::Restored(result, took) => self.restored(result, took, now),
            TablesAnswer::Read(Ok(read)) => self.tables_read(read, now),
            TablesAnswer::Read(Err(error)) => {
                warn!(%error, "rules cannot be read; tried again");
                self.unread.extend(self.tables_with(TableName::ALL));
                self.unread_since = self.unread_since.or(self.read_since).or(Some(now));
                self.look_at = Some(now + self.restore_backoff.delay());
                self.restore_trouble = Some(error);
            }
            TablesAnswer::Counted(result) => {
                self.count_drops = false;
                match result {
                    Ok(read) => self.drops_read(&read),
                    Err(error) => warn!(%error, "counters of rules cannot be read"),
                }
                self.send_views();
            }
        }
    }

    fn restored(&mut self, result: Result<(), KernelError>, took: Duration, now: Instant) {
        self.view.restore.observe(took);
        let family = self.state.restored(result.is_ok(), now);
        match result {
            Ok(()) => {
                self.restore_trouble = None;
                self.restore_at = None;
                self.restore_backoff.reset();
            }
            Err(error) => {
                self.view.restore_failures += 1;
                if self.restore_trouble.is_none() {
                    warn!(%error, "rules cannot be changed; what is in force stays so; tried again");
                }
                self.restore_trouble = Some(error);
                self.restore_at = Some(now + self.restore_backoff.delay());
                // Perhaps one of its tables was changed after all.
                let tables = TableName::ALL.into_iter().filter_map(|name| Some((family?, name)));
                self.unread.extend(tables);
                self.look_at = Some(now);
                self.doubted.extend(family);
            }
        }
    }

    fn tables_read(&mut self, read: ReadTables, now: Instant) {
        let mut families: BTreeMap<Family, BTreeMap<_, _>> = BTreeMap::new();
        for ((family, name), table) in read {
            families.entry(family).or_default().insert(name, table);
        }
        for (family, tables) in families {
            let disturbance = self.state.tables_read(family, tables);
            // After a failed restore of our own, differences are not others' doing.
            if self.doubted.remove(&family) || !disturbance.repairs {
                continue;
            }
            self.view.repairs += 1;
            warn!(%family, "another program changed our chains; they are repaired");
            if disturbance.is_unprotected {
                let since = self.read_since.unwrap_or(now);
                self.unprotected_since.get_or_insert(since);
            }
        }
        self.read_since = None;
    }

    fn drops_read(&mut self, read: &ReadTables) {
        let unknown = render::unknown_hash(self.state.layout());
        for ((family, _), table) in read {
            self.drops.read(*family, table, unknown);
        }
        self.drops.prime();
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
