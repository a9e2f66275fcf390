//! A bounded queue from tasks to a thread: senders wait without blocking their runtime, the receiver blocks its thread.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A queue that holds at most `bound` requests.
pub(crate) fn queue<T>(bound: usize) -> (Requests<T>, Inbox<T>) {
    let (requests, inbox) = mpsc::channel();
    (Requests { requests, room: Arc::new(Semaphore::new(bound)) }, Inbox { inbox })
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Requests<T> {
    /// Unbounded by itself; `room` bounds it.
    requests: mpsc::Sender<Queued<T>>,
    /// Free places.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Queued<T> {
    request: T,
    /// Gives the place back when the thread has taken the request.
    _place: OwnedSemaphorePermit,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    inbox: mpsc::Receiver<Queued<T>>,
}

/// What the thread finds.
pub(crate) enum Next<T> {
    /// A request.
    Request(T),
    /// None for the time given.
    Idle,
    /// All senders are gone.
    Closed,
}

impl<T> Requests<T> {
    /// Waits for a place, then queues. Gives the request back when the thread has ended.
    pub(crate) async fn send(&self, request: T) -> Result<(), T> {
        let Ok(place) = Arc::clone(&self.room).acquire_owned().await else { return Err(request) };
        self.requests.send(Queued { request, _place: place }).map_err(|unsent| unsent.0.request)
    }
}

impl<T> Clone for Requests<T> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), room: Arc::clone(&self.room) }
    }
}

impl<T> Inbox<T> {
    /// The next request; `idle` limits the wait, where given.
    pub(crate) fn next(&self, idle: Option<Duration>) -> Next<T> {
        let queued = match idle {
            Some(idle) => self.inbox.recv_timeout(idle),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match queued {
            Ok(queued) => Next::Request(queued.request),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::Closed,
        }
    }

    /// A request that is already there.
    pub(crate) fn waiting(&self) -> Option<T> {
        self.inbox.try_recv().ok().map(|queued| queued.request)
    }
}
