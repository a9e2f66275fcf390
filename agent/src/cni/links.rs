//! The host's ends of attachments: which of them serve a pod, and how one is parked, that is, taken out of use and left to
//! the reaper.

use std::collections::BTreeSet;

use kernel::{Kernel, KernelError, Linux, ours};

use types::InterfaceName;

/// The host interfaces that serve a pod now: ours by name, up, and not parked.
pub(super) fn serving(kernel: &mut dyn Kernel, parked_group: u32) -> Result<BTreeSet<InterfaceName>, KernelError> {
    let links = kernel.links()?;
    let serving = links.iter().filter(|link| ours::is_our_link(link) && link.up && link.group != parked_group);
    Ok(serving.filter_map(|link| link.name.parse().ok()).collect())
}

/// Parks links of ours that no endpoint has: an ADD was cut off, or its journal entry is from another boot. The reaper
/// deletes them.
pub(super) fn park_orphans(
    kernel: &mut dyn Kernel,
    endpoints: &BTreeSet<InterfaceName>,
    parked_group: u32,
) -> Result<usize, KernelError> {
    let belongs = |name: &str| name.parse().is_ok_and(|name: InterfaceName| endpoints.contains(&name));
    let links = kernel.links()?;
    let orphans: Vec<_> = links.iter().filter(|link| ours::is_our_link(link) && !belongs(&link.name)).collect();
    orphans.iter().try_for_each(|link| ours::park(kernel, link, parked_group))?;
    Ok(orphans.len())
}

/// Parks the link of an attachment that is given up, if it was made: the binary that made it may be dead. Off the runtime's
/// threads, as netlink blocks.
pub(super) async fn park(interface: InterfaceName, parked_group: u32) -> anyhow::Result<()> {
    let parked = tokio::task::spawn_blocking(move || {
        let mut kernel = Linux::open()?;
        match kernel.link(&interface)? {
            Some(link) => ours::park(&mut kernel, &link, parked_group),
            None => Ok(()),
        }
    });
    Ok(parked.await??)
}
