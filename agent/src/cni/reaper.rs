//! Deletes parked links in groups: one message for many, as each deletion costs an RCU grace period of its own.

use std::time::Duration;

use kernel::ours::change_if_there;
use kernel::{Kernel, KernelError, LinkChange};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use types::InterfaceName;

/// How many links are deleted at most with one message: more would hold the kernel's RTNL lock for too long.
const LINKS_PER_MESSAGE: usize = 32;

/// Links of one drain arrive together; the first waits this long for the others.
const GATHER: Duration = Duration::from_millis(20);

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
        std::thread::sleep(GATHER);
        while parked.try_recv().is_ok() {}
    }
}

/// Deletes what is parked now; the number of links deleted. A group with a member that does not bear our name is not
/// ours alone: then each of ours is deleted by itself.
pub(crate) fn reap(kernel: &mut dyn Kernel, group: u32) -> Result<usize, KernelError> {
    let ours = |name: &str| InterfaceName::new(name).is_ok_and(|name| name.is_ours());
    let members: Vec<_> = kernel.links()?.into_iter().filter(|link| link.group == group).collect();
    let (links, foreign): (Vec<_>, Vec<_>) = members.into_iter().partition(|link| ours(&link.name));
    if !foreign.is_empty() {
        links.iter().try_for_each(|link| kernel.delete_link(link.index))?;
        return Ok(links.len());
    }
    let mut left = links.as_slice();
    while left.len() > LINKS_PER_MESSAGE {
        // A group cannot be deleted in part: the surplus goes back to the default group, down and routeless as it is,
        // and returns for the next message.
        let (now, later) = left.split_at(LINKS_PER_MESSAGE);
        let moved = |kernel: &mut dyn Kernel, to| {
            let change = LinkChange { group: Some(to), ..LinkChange::default() };
            later.iter().try_for_each(|link| change_if_there(kernel, link.index, &change))
        };
        moved(kernel, 0)?;
        let deleted = kernel.delete_link_group(group);
        moved(kernel, group)?;
        deleted?;
        left = later;
        debug!(count = now.len(), "parked links are deleted");
    }
    if !left.is_empty() {
        kernel.delete_link_group(group)?;
    }
    Ok(links.len())
}
