//! How a handle speaks to the one task or thread that owns a state: it tells it things, or asks and waits for the answer.
//!
//! An owner takes commands of a type `C` from a bounded channel. A command that is a question carries the sender of its
//! answer. An owner that waits for something else than the channel (a netlink socket) is woken after each command, and once
//! more when the last handle goes.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// The handle's end. Clones speak to the same owner, which sees its channel closed when the last one is gone.
pub struct Mailbox<C> {
    /// To the owner. Dropped before `waker`, so that an owner that is woken by that sees that nobody is left.
    commands: mpsc::Sender<C>,
    /// Makes an owner that does not wait on the channel look at it.
    waker: Option<Arc<Waker>>,
}

/// The owner has ended: what it was told or asked last is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the owner of this state has ended")]
pub struct Ended;

impl<C> Mailbox<C> {
    /// To an owner that waits on the channel.
    pub const fn new(commands: mpsc::Sender<C>) -> Self {
        Self { commands, waker: None }
    }

    /// To an owner that waits elsewhere: `wake` makes it look at the channel.
    pub fn waking(commands: mpsc::Sender<C>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { commands, waker: Some(Arc::new(Waker(Box::new(wake)))) }
    }

    /// Hands a command over, and waits while the channel is full.
    pub async fn tell(&self, command: C) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)?;
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
        formatter.debug_struct("Mailbox").field("commands", &self.commands).finish_non_exhaustive()
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

#[cfg(test)]
mod tests;
