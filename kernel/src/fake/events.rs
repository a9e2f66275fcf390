//! The fakes' events: a queue per subscriber.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::KernelError;
use crate::events::{Bell, Event, EventSource, Wait, Waker, wait_readable};

/// What happens in a [`super::FakeKernel`] from the moment of the subscription on.
#[derive(Debug)]
pub struct FakeEvents(pub(super) Queue<Event>);

impl EventSource for FakeEvents {
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait, KernelError> {
        self.0.next(timeout)
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }
}

/// The reader's end of a queue of events.
#[derive(Debug)]
pub(super) struct Queue<E> {
    events: Arc<Mutex<VecDeque<E>>>,
    /// Rings when the queue has something new.
    filled: Bell,
    /// Rings when the reader is to stop waiting.
    woken: Bell,
    waker: Waker,
}

/// The end of the queue that the fake puts events into.
#[derive(Debug)]
pub(super) struct Subscriber<E> {
    events: Arc<Mutex<VecDeque<E>>>,
    filled: Waker,
}

/// Both ends of a new queue.
pub(super) fn queue<E>() -> Result<(Queue<E>, Subscriber<E>), KernelError> {
    let events = Arc::default();
    let (filled, fill) = Bell::new()?;
    let (woken, waker) = Bell::new()?;
    let subscriber = Subscriber { events: Arc::clone(&events), filled: fill };
    Ok((Queue { events, filled, woken, waker }, subscriber))
}

impl<E> Subscriber<E> {
    pub(super) fn tell(&self, event: E) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.filled.wake();
    }
}

impl<E> Queue<E> {
    pub(super) fn next(&self, timeout: Option<Duration>) -> Result<Wait<E>, KernelError> {
        loop {
            if self.woken.silence() {
                return Ok(Wait::Woken);
            }
            // The bell is silenced before the queue is read, so that an event which comes in between rings it again.
            self.filled.silence();
            if let Some(event) = self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return Ok(Wait::Event(event));
            }
            if !wait_readable([self.woken.as_fd(), self.filled.as_fd()], timeout)? {
                return Ok(Wait::TimedOut);
            }
        }
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
