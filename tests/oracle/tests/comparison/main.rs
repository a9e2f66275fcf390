//! The oracle against the product: what is compiled, and what is rendered as text, must do to every packet of generated worlds
//! what the specification says. `MANX_SEED` chooses the worlds, `MANX_CASES` multiplies their number.

#![cfg(test)]

mod compiled;
mod history;
mod node;
mod program;
mod read;
mod rendered;

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

/// Waits for a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
