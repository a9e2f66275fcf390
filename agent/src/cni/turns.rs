//! Whatever changes an attachment takes its turn: one after the other, in the order in which they asked. An attachment is known
//! here by its host interface, which is what two of them would contend for.
//!
//! A runtime does one thing at a time with a container; but a DEL whose binary has given up waiting, a tombstone that was read
//! a moment ago and a look at the kernel are not the runtime's, and must not act on what has changed since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use types::InterfaceName;

/// Who waits for whom. Clones are of the same queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    /// Those of attachments that something is done with now.
    queues: Arc<Mutex<BTreeMap<InterfaceName, Weak<Queue>>>>,
}

type Queue = tokio::sync::Mutex<()>;

/// While it is there, nobody else changes the attachment.
#[derive(Debug)]
#[must_use = "a turn ends when it is dropped"]
pub(super) struct Turn {
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for the turn at an attachment.
    pub(super) async fn at(&self, host_interface: &InterfaceName) -> Turn {
        Turn { _held: self.queue(host_interface).lock_owned().await }
    }

    fn queue(&self, host_interface: &InterfaceName) -> Arc<Queue> {
        // What a panic can leave here is whole: every change is one call.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(host_interface).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::default();
        queues.insert(host_interface.clone(), Arc::downgrade(&queue));
        queue
    }
}
