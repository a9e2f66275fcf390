//! One peer of an update group: how far it has read the log, and what it has yet to be told besides.

use std::collections::VecDeque;
use std::sync::Arc;

use types::Prefix;

use super::log::Cursor;

/// How many batches of missed prefixes are kept apart. More are merged into one, which holds each prefix once.
const MISSED_BATCHES: usize = 8;

/// A peer of a group. It reads the log first, so that older news of the log never comes behind what it is told from the
/// table.
#[derive(Debug)]
pub(crate) struct Member {
    /// The place of the log up to which it has read.
    pub(super) cursor: Cursor,
    /// Prefixes whose changes were dropped from the log before it read them, because it was slow.
    missed: VecDeque<Missed>,
    /// The slot of the table with which its walk goes on; nothing when it has walked it all.
    pub(super) walk: Option<u32>,
    /// Whether it still has to be told that it has been sent everything (RFC 4724 section 2).
    pub(super) owes_end_of_rib: bool,
}

/// Missed prefixes, shared by all members that missed them.
#[derive(Debug)]
struct Missed {
    prefixes: Arc<[Prefix]>,
    /// How many of them the peer has been told again.
    done: usize,
}

impl Member {
    /// A peer that joins at this place of the log and has the table before it.
    pub(super) const fn new(cursor: Cursor, owes_end_of_rib: bool) -> Self {
        Self { cursor, missed: VecDeque::new(), walk: Some(0), owes_end_of_rib }
    }

    /// Notes that the peer will not read the log about these prefixes, which are in ascending order.
    pub(super) fn miss(&mut self, prefixes: &Arc<[Prefix]>) {
        self.missed.push_back(Missed { prefixes: Arc::clone(prefixes), done: 0 });
        if self.missed.len() > MISSED_BATCHES {
            let mut all: Vec<_> = self.missed.drain(..).flat_map(|missed| missed.left().to_vec()).collect();
            all.sort_unstable();
            all.dedup();
            self.missed.push_back(Missed { prefixes: all.into(), done: 0 });
        }
    }

    /// All prefixes that it has missed and not been told again.
    pub(super) fn missed(&self) -> impl Iterator<Item = Prefix> {
        self.missed.iter().flat_map(|missed| missed.left().iter().copied())
    }

    /// The next missed prefixes, at most `count`; none when nothing is missed any more.
    pub(super) fn next_missed(&mut self, count: usize) -> Vec<Prefix> {
        let Some(first) = self.missed.front_mut() else { return Vec::new() };
        let next: Vec<_> = first.left().iter().take(count).copied().collect();
        first.done += next.len();
        if first.left().is_empty() {
            self.missed.pop_front();
        }
        next
    }
}

impl Missed {
    fn left(&self) -> &[Prefix] {
        self.prefixes.get(self.done..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
