//! Who may come in: connections from addresses that are no configured peer's, and too many from one that is, are closed as
//! they are accepted. No task, buffer or turn of the speaker's owner is spent on them, and they are told nothing.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::info;

/// Connections from one peer's address that are let in within [`WINDOW`]: a peer dials once in seconds, or a few times where
/// it restarts.
const PER_PEER: u32 = 16;

/// The time over which a peer's connections are counted, and the least time between two lines of the log.
const WINDOW: Duration = Duration::from_secs(1);

/// How many connections were closed as they were accepted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turned(Arc<AtomicU64>);

impl Turned {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One listener's door.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// The configured peers, as the owner says.
    peers: watch::Receiver<HashSet<IpAddr>>,
    /// All that were turned away, at all doors.
    turned: Turned,
    /// The connections of each peer that were let in within the window that began then.
    recent: HashMap<IpAddr, (Instant, u32)>,
    /// What was turned away and not told yet, and when that was told last.
    untold: (u64, Option<Instant>),
}

impl Door {
    pub(crate) fn new(peers: watch::Receiver<HashSet<IpAddr>>, turned: Turned) -> Self {
        Self { peers, turned, recent: HashMap::new(), untold: (0, None) }
    }

    /// Whether a connection from this address is let in.
    pub(crate) fn admits(&mut self, remote: IpAddr, now: Instant) -> bool {
        let is_peer = self.peers.borrow().contains(&remote);
        let admitted = is_peer && self.is_within_limit(remote, now);
        if !admitted {
            self.turned.0.fetch_add(1, Ordering::Relaxed);
            self.tell(remote, is_peer, now);
        }
        admitted
    }

    fn is_within_limit(&mut self, peer: IpAddr, now: Instant) -> bool {
        // Former peers are forgotten before the map outgrows those that there are.
        if self.recent.len() > 2 * self.peers.borrow().len() + 16 {
            self.recent.retain(|_, (since, _)| *since + WINDOW > now);
        }
        let (since, count) = self.recent.entry(peer).or_insert((now, 0));
        if *since + WINDOW <= now {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= PER_PEER
    }

    fn tell(&mut self, remote: IpAddr, is_peer: bool, now: Instant) {
        let (count, told) = &mut self.untold;
        *count += 1;
        if told.is_none_or(|told| told + WINDOW <= now) {
            let why = if is_peer { "it opens too many at once" } else { "it is no configured peer" };
            info!(%remote, count, "a BGP connection from {remote} is closed: {why} (connections closed since the last line: {count})");
            (*count, *told) = (0, Some(now));
        }
    }
}

#[cfg(test)]
mod tests;
