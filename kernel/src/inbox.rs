//! What one thread waits on: the datagrams of a multicast socket, and a bell.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::KernelError;
use crate::events::{Bell, Wait, Waker, wait_readable};

/// Events that the owner has not asked for yet, and what ends its wait for more.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    /// The datagram that was received last.
    datagram: Vec<u8>,
    /// The events that the owner has not asked for yet, oldest first.
    pending: VecDeque<E>,
    /// How many datagrams are taken in before the first of their events is handed out.
    datagrams_at_once: usize,
    /// The event that says that the kernel has dropped events.
    lost: fn() -> E,
    bell: Bell,
    waker: Waker,
}

impl<E> Inbox<E> {
    pub(crate) fn new(datagrams_at_once: usize, lost: fn() -> E) -> Result<Self, KernelError> {
        let (bell, waker) = Bell::new()?;
        Ok(Self { datagram: Vec::new(), pending: VecDeque::new(), datagrams_at_once, lost, bell, waker })
    }

    /// A handle by which another thread ends the wait.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits for a waker, for as long at most, and takes nothing in.
    pub(crate) fn gather(&self, at_most: Duration) -> Result<(), KernelError> {
        if self.pending.is_empty() {
            wait_readable([self.bell.as_fd()], Some(at_most))?;
        }
        Ok(())
    }

    /// Waits for the next event, for a waker, or until `timeout` has passed (none: for ever). Wakes come before events.
    /// `receive` takes one datagram without waiting, `read` adds the events that it tells of.
    pub(crate) fn next(
        &mut self,
        socket: BorrowedFd<'_>,
        timeout: Option<Duration>,
        operation: &str,
        receive: impl Fn(&mut Vec<u8>) -> io::Result<()>,
        mut read: impl FnMut(&[u8], &mut VecDeque<E>),
    ) -> Result<Wait<E>, KernelError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if self.bell.silence() {
                return Ok(Wait::Woken);
            }
            if let Some(event) = self.pending.pop_front() {
                return Ok(Wait::Event(event));
            }
            for _ in 0..self.datagrams_at_once {
                match receive(&mut self.datagram) {
                    Ok(()) => read(&self.datagram, &mut self.pending),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE)) => {
                        self.pending.push_back((self.lost)());
                    }
                    Err(error) => return Err(KernelError::io(operation, &error)),
                }
            }
            if !self.pending.is_empty() {
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !wait_readable([self.bell.as_fd(), socket], left)? {
                return Ok(Wait::TimedOut);
            }
        }
    }
}
