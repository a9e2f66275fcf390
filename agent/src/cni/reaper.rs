//! Deletes parked links in groups: one message for many, as each deletion costs an RCU grace period of its own.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use kernel::ours::{self, change_if_there};
use kernel::{Kernel, KernelError, Link, LinkChange};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// How many links are deleted at most with one message, for which the kernel holds its RTNL lock: 41 ms were measured for 100 links,
/// and 24 for 20, as most of it is one RCU wait.
const LINKS_PER_MESSAGE: usize = 128;

/// Links of one drain arrive together: it is over when none has come for so long.
const GATHER: Duration = Duration::from_millis(20);

/// How long the first waits for the others at most. Whoever parks or makes a link waits for the RTNL lock while links are deleted.
const GATHER_AT_MOST: Duration = Duration::from_millis(200);

/// How long after a failure it is tried again to delete what is parked.
const REAP_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Follows `parked` until its senders are gone. Blocking: runs on its own thread.
pub(crate) fn run(mut kernel: Box<dyn Kernel>, group: u32, mut parked: mpsc::Receiver<()>) {
    loop {
        match reap(kernel.as_mut(), group) {
            Ok(0) => {}
            Ok(count) => debug!(count, "parked links are deleted"),
            Err(error) => {
                warn!(%error, group, "parked links stay until the next attempt");
                std::thread::sleep(REAP_RETRY_DELAY);
                if parked.is_closed() {
                    return;
                }
                continue;
            }
        }
        if parked.blocking_recv().is_none() {
            return;
        }
        gather(&mut parked);
    }
}

/// Waits for the others of a drain.
fn gather(parked: &mut mpsc::Receiver<()>) {
    let begun = Instant::now();
    let mut is_over = false;
    while !is_over && begun.elapsed() < GATHER_AT_MOST {
        std::thread::sleep(GATHER);
        is_over = parked.try_recv().is_err();
        while parked.try_recv().is_ok() {}
    }
}

/// Deletes what is parked now; the number of links deleted. What is deleted at once is what was found: links of ours, down,
/// moved to a group that nobody else knows. Whatever comes into the group of parked links meanwhile is not among them.
pub(crate) fn reap(kernel: &mut dyn Kernel, group: u32) -> Result<usize, KernelError> {
    let links = kernel.links()?;
    let is_parked = |link: &&Link| link.group == group && ours::is_our_link(link) && !link.up;
    let parked: Vec<u32> = links.iter().filter(is_parked).map(|link| link.index).collect();
    let taken: BTreeSet<u32> = links.iter().map(|link| link.group).collect();
    for batch in parked.chunks(LINKS_PER_MESSAGE) {
        let own = unused_group(&taken);
        let moved = |kernel: &mut dyn Kernel, to| {
            let change = LinkChange { group: Some(to), ..LinkChange::default() };
            batch.iter().try_for_each(|index| change_if_there(kernel, *index, &change))
        };
        let deleted = moved(kernel, own).and_then(|()| kernel.delete_link_group(own));
        if let Err(error) = deleted {
            // Back to where the next attempt finds them.
            moved(kernel, group)?;
            return Err(error);
        }
    }
    Ok(parked.len())
}

/// A number that no link's group has, and that nobody else thinks of.
fn unused_group(taken: &BTreeSet<u32>) -> u32 {
    const HIGH: u32 = 1 << 30;
    loop {
        // The upper half of a hash of nothing with random keys; the kernel keeps groups as signed numbers.
        let random = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
        let group = (random & (HIGH - 1)) | HIGH;
        if !taken.contains(&group) {
            return group;
        }
    }
}

#[cfg(test)]
mod tests;
