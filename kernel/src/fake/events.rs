//! The fake's events: a queue per subscriber.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::KernelError;
use crate::events::{Bell, Event, EventSource, Wait, Waker, wait_readable};

/// What happens in a [`super::FakeKernel`] from the moment of the subscription on.
#[derive(Debug)]
pub struct FakeEvents {
    queue: Arc<Mutex<VecDeque<Event>>>,
    /// Rings when the queue has something new.
    filled: Bell,
    /// Rings when the reader is to stop waiting.
    woken: Bell,
    waker: Waker,
}

/// The fake kernel's end.
#[derive(Debug)]
pub(super) struct Subscriber {
    queue: Arc<Mutex<VecDeque<Event>>>,
    filled: Waker,
}

impl FakeEvents {
    pub(super) fn new() -> Result<(Self, Subscriber), KernelError> {
        let queue = Arc::default();
        let (filled, fill) = Bell::new()?;
        let (woken, waker) = Bell::new()?;
        let subscriber = Subscriber { queue: Arc::clone(&queue), filled: fill };
        Ok((Self { queue, filled, woken, waker }, subscriber))
    }
}

impl Subscriber {
    pub(super) fn tell(&self, event: Event) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.filled.wake();
    }
}

impl EventSource for FakeEvents {
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait, KernelError> {
        loop {
            if self.woken.silence() {
                return Ok(Wait::Woken);
            }
            // Silenced before the queue is read: what is queued in between rings again.
            self.filled.silence();
            if let Some(event) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return Ok(Wait::Event(event));
            }
            if !wait_readable([self.woken.as_fd(), self.filled.as_fd()], timeout)? {
                return Ok(Wait::TimedOut);
            }
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
