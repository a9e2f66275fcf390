//! Values on their way to another task.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// How many values go in one batch: few enough for the other task to look up between two of them.
const PER_BATCH: usize = 4_096;

/// How many values may wait before whoever brings about more should rather wait itself: some milliseconds of the other
/// task's work.
const ENOUGH: usize = 4 * PER_BATCH;

/// How long the other task may take nothing before nobody waits for it any more: sessions do not end because it is stuck.
const STUCK: Duration = Duration::from_secs(1);

/// Values on their way to another task. The owner does not wait for that task: it gathers values until there is room.
pub(crate) struct Outbox<T> {
    /// To the other task.
    sender: mpsc::Sender<Vec<T>>,
    /// The values that have not been sent, in their order.
    waiting: VecDeque<T>,
    /// When the other task last took some, or when the first came that waits.
    moved: Instant,
}

impl<T> Outbox<T> {
    pub(crate) fn new(sender: mpsc::Sender<Vec<T>>) -> Self {
        Self { sender, waiting: VecDeque::new(), moved: Instant::now() }
    }

    pub(crate) fn push(&mut self, value: T) {
        if self.waiting.is_empty() {
            self.moved = Instant::now();
        }
        self.waiting.push_back(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Until when nothing should be done that brings about more values, unless some are taken before; none where more may come.
    pub(crate) fn clogged_until(&self, now: Instant) -> Option<Instant> {
        (self.waiting.len() >= ENOUGH).then(|| self.moved + STUCK).filter(|until| now < *until)
    }

    /// Sends what there is room for.
    pub(crate) fn send(&mut self) {
        while !self.waiting.is_empty() {
            let Ok(permit) = self.sender.try_reserve() else { return };
            permit.send(batch(&mut self.waiting));
            self.moved = Instant::now();
        }
    }

    /// Sends the first of what waits as soon as there is room; safe to cancel.
    pub(crate) async fn flush(&mut self) {
        match self.sender.reserve().await {
            Ok(permit) => {
                permit.send(batch(&mut self.waiting));
                self.moved = Instant::now();
            }
            // The other task has ended, and with it the programming of routes: the agent is ending.
            Err(_) => self.waiting.clear(),
        }
    }
}

/// The first values of those that wait, as many as go in one batch.
fn batch<T>(waiting: &mut VecDeque<T>) -> Vec<T> {
    waiting.drain(..waiting.len().min(PER_BATCH)).collect()
}

#[cfg(test)]
mod tests;
