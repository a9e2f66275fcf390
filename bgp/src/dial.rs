//! A dial that is under way, and what the kernel drops meanwhile.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use kernel::netstat::TcpDrops;
use tokio::task::AbortHandle;

/// A dial that is given up earlier is not needed any more: the peer was faster.
const UNANSWERED_AFTER: Duration = Duration::from_secs(3);

/// A dial that is under way.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Aborting it gives the dial up.
    pub(crate) task: AbortHandle,
    /// The peer's address.
    pub(crate) remote: IpAddr,
    /// When the dial began.
    begun: Instant,
    /// What the kernel had dropped then.
    drops: TcpDrops,
}

impl Dial {
    /// The dial of this peer that the task has just begun.
    pub(crate) fn begun(remote: IpAddr, task: AbortHandle) -> Self {
        // Counts that cannot be read explain nothing, and are in nobody's way.
        Self { task, remote, begun: Instant::now(), drops: TcpDrops::now().unwrap_or_default() }
    }

    /// What the kernel has dropped since, where the dial has lasted so long that nobody seems to answer.
    pub(crate) fn dropped_in_vain(&self) -> Option<TcpDrops> {
        (self.begun.elapsed() >= UNANSWERED_AFTER).then(|| TcpDrops::now().unwrap_or_default().since(self.drops))
    }
}
