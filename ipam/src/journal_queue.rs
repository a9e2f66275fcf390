//! Rows that are to be journalled.

use std::collections::BTreeMap;

use store::{JournalWrite, RowKind};
use types::EndpointId;

/// The writes that the journal has not taken yet, the last one of each row. They go together: a journal that has taken
/// one queue is the state of one moment. If it cannot take them, they stay, and the next queue holds them too.
#[derive(Debug, Default)]
pub(crate) struct JournalQueue {
    writes: BTreeMap<(RowKind, String), JournalWrite>,
}

impl JournalQueue {
    pub(crate) const fn new() -> Self {
        Self { writes: BTreeMap::new() }
    }

    /// Adds a write, in place of an older one of the same row.
    pub(crate) fn push(&mut self, write: JournalWrite) {
        let row = match &write {
            JournalWrite::Put(row) => (row.kind, row.key.clone()),
            JournalWrite::Delete { kind, key } => (*kind, key.clone()),
            // Its place among the writes of rows of its kind would matter; nothing here removes all rows of a kind.
            JournalWrite::Clear(_) => return,
        };
        self.writes.insert(row, write);
    }

    /// Appends writes to the queue.
    pub(crate) fn extend(&mut self, writes: impl IntoIterator<Item = JournalWrite>) {
        writes.into_iter().for_each(|write| self.push(write));
    }

    /// The row of an endpoint is not to be written: it is removed instead, in case an earlier one is there.
    pub(crate) fn retract_endpoint(&mut self, id: &EndpointId) {
        self.push(JournalWrite::delete(RowKind::Endpoint, id.to_string()));
    }

    /// All writes, for the journal; call [`JournalQueue::taken`] when it has them.
    pub(crate) fn writes(&self) -> Vec<JournalWrite> {
        self.writes.values().cloned().collect()
    }

    /// The journal has taken them.
    pub(crate) fn taken(&mut self) {
        self.writes.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
