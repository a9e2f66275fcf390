//! [`Revisions`] shared between a store's calls and its watches, for the stores that live in this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use types::Update;

use crate::revisions::{Change, Revisions};
use crate::{Entry, Incarnation, Key};

/// A state that can be waited on. The lock is held for the length of a look-up, never across an await.
#[derive(Debug)]
pub(crate) struct History {
    /// The entries and changes, and whether the watches hear of them.
    state: Mutex<State>,
    /// Says that the state may have changed.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// The entries, and the changes that led to them.
    revisions: Revisions,
    /// While false, watches hear nothing, as if the way to the store were cut.
    reachable: bool,
}

/// How far a watch has got.
struct Position {
    /// The life of the store that the revision is of.
    incarnation: Incarnation,
    /// All changes up to this revision have been reported.
    revision: u64,
}

impl History {
    pub(crate) fn new(revisions: Revisions) -> Self {
        Self { state: Mutex::new(State { revisions, reachable: true }), changed: watch::Sender::new(()) }
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Revisions) -> T) -> T {
        look(&self.lock().revisions)
    }

    /// Changes the state, then wakes the watches.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Revisions) -> T) -> T {
        let result = change(&mut self.lock().revisions);
        self.changed.send_replace(());
        result
    }

    /// Cuts the watches off, or lets them hear again.
    pub(crate) fn set_reachable(&self, reachable: bool) {
        self.lock().reachable = reachable;
        self.changed.send_replace(());
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.lock().reachable
    }

    /// A watch: reports until the receiver is dropped or `closed` is cancelled.
    pub(crate) async fn follow(&self, prefix: Key, to: mpsc::Sender<Update<Key, Entry>>, closed: CancellationToken) {
        let mut changed = self.changed.subscribe();
        let mut position = None;
        loop {
            changed.borrow_and_update();
            for update in self.news(&prefix, &mut position) {
                tokio::select! {
                    sent = to.send(update) => if sent.is_err() { return },
                    () = closed.cancelled() => return,
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = to.closed() => return,
                () = closed.cancelled() => return,
            }
        }
    }

    /// What is to be reported from `position` on, which moves to now.
    fn news(&self, prefix: &Key, position: &mut Option<Position>) -> Vec<Update<Key, Entry>> {
        let state = self.lock();
        if !state.reachable {
            return Vec::new();
        }
        let revisions = &state.revisions;
        let changes = position
            .as_ref()
            .filter(|position| position.incarnation == *revisions.incarnation())
            .and_then(|position| revisions.since(prefix, position.revision));
        *position =
            Some(Position { incarnation: revisions.incarnation().clone(), revision: revisions.version().count() });
        changes.map_or_else(
            || {
                let entries = revisions.listing(prefix).entries;
                Update::listing(entries.into_iter().map(|entry| (entry.key.clone(), entry))).collect()
            },
            |changes| changes.into_iter().map(update).collect(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn update(change: Change) -> Update<Key, Entry> {
    match change.held {
        Some(held) => Update::Set(change.key, held.entry),
        None => Update::Delete(change.key),
    }
}
