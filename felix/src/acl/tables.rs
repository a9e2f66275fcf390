//! The thread that runs iptables: a restore takes milliseconds, a slow one seconds, and members of sets do not wait for it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::acl::Tables;
use kernel::events::Waker;
use types::Family;

use super::render::TableName;
use super::rule_tables::TableJob;
use super::saved::SavedTable;

/// What is asked of it; one at a time.
#[derive(Debug)]
pub(crate) enum TablesTask {
    /// Make this so.
    Restore(TableJob),
    /// Say what these hold.
    Read(Vec<(Family, TableName)>),
    /// The same with counters.
    Count(Vec<(Family, TableName)>),
}

/// Tables of one family each, as read.
pub(crate) type ReadTables = BTreeMap<(Family, TableName), SavedTable>;

/// The answer.
#[derive(Debug)]
pub(crate) enum TablesAnswer {
    /// How the restore went and how long it took.
    Restored(Result<(), KernelError>, Duration),
    /// What the tables hold.
    Read(Result<ReadTables, KernelError>),
    /// The same with counters.
    Counted(Result<ReadTables, KernelError>),
}

/// Answers tasks until nobody gives any.
pub(crate) fn serve(
    mut tables: Box<dyn Tables>,
    tasks: &mpsc::Receiver<TablesTask>,
    answers: &mpsc::SyncSender<TablesAnswer>,
    waker: &Waker,
) {
    while let Ok(task) = tasks.recv() {
        if answers.send(answer(tables.as_mut(), task)).is_err() {
            return;
        }
        waker.wake();
    }
}

/// Carries out one task.
pub(crate) fn answer(tables: &mut dyn Tables, task: TablesTask) -> TablesAnswer {
    match task {
        TablesTask::Restore(TableJob { family, text }) => {
            let began = Instant::now();
            let result = tables.restore(family, &text);
            TablesAnswer::Restored(result, began.elapsed())
        }
        TablesTask::Read(which) => TablesAnswer::Read(read(tables, &which, false)),
        TablesTask::Count(which) => TablesAnswer::Counted(read(tables, &which, true)),
    }
}

fn read(tables: &mut dyn Tables, which: &[(Family, TableName)], counters: bool) -> Result<ReadTables, KernelError> {
    let mut all = ReadTables::new();
    for (family, name) in which {
        let text = tables.save(*family, name.as_str(), counters)?;
        all.insert((*family, *name), SavedTable::parse(&text, name.as_str()));
    }
    Ok(all)
}
