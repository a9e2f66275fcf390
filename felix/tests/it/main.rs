//! felix as the agent has it: through its handle, on the fake kernel and on the real one.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod acl;
mod fake;
mod real;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use felix::routes::Routes;
use types::{FibUpdate, InterfaceName, NextHopWatch, Prefix};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn interface(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn set(text: &str, next_hops: &[&str]) -> FibUpdate {
    FibUpdate::Set { prefix: prefix(text), next_hops: next_hops.iter().map(|hop| ip(hop)).collect() }
}

async fn track(felix: &Routes, hops: &[&str]) {
    for hop in hops {
        felix.watch(vec![NextHopWatch::Track(ip(hop))]).await;
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Waits until a condition holds; felix answers to events on its own thread.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::yield_now();
    }
}
