//! The append-only log of an update group: messages encoded once, read by every member at its own pace.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::Packed;

/// A place in a [`Log`]: the number of runs of messages before it since the log began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor(u64);

/// Runs of encoded messages in the order in which they are to be sent. What every member has read is dropped from the front.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The place of the first message that is still held.
    first: u64,
    /// The messages that are held, in their order.
    runs: VecDeque<Packed>,
    /// The octets of the messages that are held.
    bytes: usize,
}

impl Log {
    pub(crate) fn append(&mut self, run: Packed) {
        self.bytes += run.octets.len();
        self.runs.push_back(run);
    }

    /// The place behind the last message.
    pub(crate) fn head(&self) -> Cursor {
        Cursor(self.first + self.runs.len() as u64)
    }

    /// The place of the first message held.
    pub(crate) const fn tail(&self) -> Cursor {
        Cursor(self.first)
    }

    /// The octets held.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands out messages from the cursor on, which moves along, until `budget` octets are spent. Returns their number.
    pub(crate) fn read(&self, cursor: &mut Cursor, out: &mut Vec<Bytes>, budget: &mut usize) -> u64 {
        let mut messages = 0;
        let at = usize::try_from(cursor.0.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for run in self.runs.range(at.min(self.runs.len())..) {
            if *budget == 0 {
                break;
            }
            *budget = budget.saturating_sub(run.octets.len());
            out.push(run.octets.clone());
            messages += run.messages as u64;
            cursor.0 += 1;
        }
        messages
    }

    /// The runs before the cursor.
    pub(crate) fn until(&self, cursor: Cursor) -> impl Iterator<Item = &Packed> {
        let count = usize::try_from(cursor.0.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.runs.iter().take(count)
    }

    /// What stands from this place on.
    pub(crate) fn since(&self, cursor: Cursor) -> impl Iterator<Item = &Packed> {
        let read = usize::try_from(cursor.0.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.runs.iter().skip(read)
    }

    /// The place behind the first messages that have to go for no more than `limit` octets to be held.
    pub(crate) fn cut_for(&self, limit: usize) -> Cursor {
        let mut excess = self.bytes.saturating_sub(limit);
        let mut cut = self.first;
        for run in &self.runs {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(run.octets.len());
            cut += 1;
        }
        Cursor(cut)
    }

    /// Drops the messages before the cursor.
    pub(crate) fn trim(&mut self, to: Cursor) {
        while self.first < to.0 {
            let Some(run) = self.runs.pop_front() else { break };
            self.bytes -= run.octets.len();
            self.first += 1;
        }
        if self.runs.is_empty() {
            self.runs = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
