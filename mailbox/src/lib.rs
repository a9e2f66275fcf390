//! How a handle speaks to the one task or thread that owns a state: it tells it things, or asks and waits for the answer.
//!
//! An owner takes commands of a type `C`. A command that is a question carries the sender of its answer. How the commands
//! get there depends on what the owner waits for:
//! - a task waits on a bounded channel of tokio ([`Mailbox::new`]);
//! - an owner that waits for something else (a netlink socket) is woken after each command, and once more when the last
//!   handle goes ([`Mailbox::waking`]);
//! - a thread that wants to know when it is idle takes them from a bounded queue with a time limit ([`queue()`]).

mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use queue::Queue;
pub use queue::{Inbox, Next};

/// The handle's end. Clones speak to the same owner, which sees its channel closed when the last one is gone.
pub struct Mailbox<C> {
    /// To the owner. Dropped before `waker`, so that an owner that is woken by that sees that nobody is left.
    commands: Commands<C>,
    /// Makes an owner that does not wait for commands look for them.
    waker: Option<Arc<Waker>>,
}

/// The owner has ended: what it was told or asked last is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the owner of this state has ended")]
pub struct Ended;

/// A mailbox for an owner that is a thread, which takes the commands from the [`Inbox`]. It holds at most `bound` commands:
/// who hands over the next one waits.
pub fn queue<C>(bound: usize) -> (Mailbox<C>, Inbox<C>) {
    let (commands, inbox) = queue::ends(bound);
    (Mailbox { commands: Commands::Queue(commands), waker: None }, inbox)
}

impl<C> Mailbox<C> {
    /// A mailbox of an owner that waits on the channel.
    pub const fn new(commands: mpsc::Sender<C>) -> Self {
        Self { commands: Commands::Channel(commands), waker: None }
    }

    /// To an owner that waits elsewhere: `wake` makes it look at the channel.
    pub fn waking(commands: mpsc::Sender<C>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { commands: Commands::Channel(commands), waker: Some(Arc::new(Waker(Box::new(wake)))) }
    }

    /// Hands a command over, and waits while there is no room for it. Dropping the future before that hands nothing over.
    pub async fn tell(&self, command: C) -> Result<(), Ended> {
        match &self.commands {
            Commands::Channel(channel) => channel.send(command).await.map_err(|_| Ended)?,
            Commands::Queue(queue) => queue.send(command).await?,
        }
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        Ok(())
    }

    /// Hands a question over and waits for its answer. The owner may also drop the question, as it does when it ends.
    pub async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> C) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.tell(question(reply)).await?;
        answer.await.map_err(|_| Ended)
    }
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), waker: self.waker.clone() }
    }
}

impl<C> fmt::Debug for Mailbox<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// The way to the owner.
enum Commands<C> {
    /// The owner is a task.
    Channel(mpsc::Sender<C>),
    /// The owner is a thread.
    Queue(Queue<C>),
}

impl<C> Clone for Commands<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Channel(channel) => Self::Channel(channel.clone()),
            Self::Queue(queue) => Self::Queue(queue.clone()),
        }
    }
}

/// Wakes an owner, for the last time when it is dropped.
struct Waker(Box<dyn Fn() + Send + Sync>);

impl Waker {
    fn wake(&self) {
        (self.0)();
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.wake();
    }
}
