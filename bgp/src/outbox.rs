//! Values on their way to another task.

use std::collections::VecDeque;

use tokio::sync::mpsc;

/// How many values go in one batch: few enough for the other task to look up between two of them.
const PER_BATCH: usize = 4_096;

/// Values on their way to another task. The owner does not wait for that task: it gathers values until there is room.
pub(crate) struct Outbox<T> {
    /// To the other task.
    sender: mpsc::Sender<Vec<T>>,
    /// The values that have not been sent, in their order.
    waiting: VecDeque<T>,
}

impl<T> Outbox<T> {
    pub(crate) const fn new(sender: mpsc::Sender<Vec<T>>) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, value: T) {
        self.waiting.push_back(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends the first of what waits as soon as there is room; safe to cancel.
    pub(crate) async fn flush(&mut self) {
        match self.sender.reserve().await {
            Ok(permit) => permit.send(self.waiting.drain(..self.waiting.len().min(PER_BATCH)).collect()),
            // The other task has ended, and with it the programming of routes: the agent is ending.
            Err(_) => self.waiting.clear(),
        }
    }
}
