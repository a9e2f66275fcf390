//! A bounded queue from tasks to a thread: who hands over waits without blocking its runtime, who takes blocks its thread,
//! for a limited time where it wants to (a channel of tokio has no such limit for threads).

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Ended;

/// The sending end of the queue.
pub(crate) struct Queue<C> {
    /// The commands. The channel is unbounded by itself; `room` bounds it.
    commands: mpsc::Sender<Queued<C>>,
    /// The places that are free.
    room: Arc<Semaphore>,
}

struct Queued<C> {
    command: C,
    /// Gives the place back when the thread has taken the command, or has ended.
    _place: OwnedSemaphorePermit,
}

/// Where an owner that is a thread takes its commands from: the other end of [`queue`](crate::queue()).
pub struct Inbox<C> {
    commands: mpsc::Receiver<Queued<C>>,
}

/// What an owner finds in its [`Inbox`].
#[derive(Debug, PartialEq, Eq)]
pub enum Next<C> {
    /// A command.
    Command(C),
    /// No command has come in the time given.
    Idle,
    /// All handles are gone, and no command is left.
    Closed,
}

/// The two ends of a queue for at most `bound` commands.
pub(crate) fn ends<C>(bound: usize) -> (Queue<C>, Inbox<C>) {
    let (to_thread, commands) = mpsc::channel();
    (Queue { commands: to_thread, room: Arc::new(Semaphore::new(bound)) }, Inbox { commands })
}

impl<C> Queue<C> {
    /// Waits for a place, then queues.
    pub(crate) async fn send(&self, command: C) -> Result<(), Ended> {
        let place = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Ended)?;
        self.commands.send(Queued { command, _place: place }).map_err(|_| Ended)
    }
}

impl<C> Clone for Queue<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), room: Arc::clone(&self.room) }
    }
}

impl<C> Inbox<C> {
    /// Blocks until there is a command; `idle` limits the wait, where given.
    pub fn next(&self, idle: Option<Duration>) -> Next<C> {
        let queued = match idle {
            Some(idle) => self.commands.recv_timeout(idle),
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match queued {
            Ok(queued) => Next::Command(queued.command),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::Closed,
        }
    }

    /// A command that is already there; does not block.
    pub fn waiting(&self) -> Option<C> {
        self.commands.try_recv().ok().map(|queued| queued.command)
    }
}

impl<C> std::fmt::Debug for Inbox<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Inbox").finish_non_exhaustive()
    }
}
