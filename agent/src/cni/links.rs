//! The host's ends of attachments: which of them serve a pod, and how one is parked, that is, taken out of use and left to
//! the reaper.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use kernel::acl::{LinuxSets, Sets};
use kernel::{Kernel, KernelError, Linux, ours};

use types::InterfaceName;

/// The node's kernel, opened for each look at it: netlink blocks, so it is asked off the runtime's threads.
#[derive(Clone)]
pub(crate) struct HostLinks {
    open: Arc<dyn Fn() -> Result<Box<dyn Kernel>, KernelError> + Send + Sync>,
    sets: Arc<dyn Fn() -> Result<Box<dyn Sets>, KernelError> + Send + Sync>,
}

impl HostLinks {
    /// The kernel that this process runs on.
    pub(crate) fn node() -> Self {
        Self::of(|| Ok(Box::new(Linux::open()?)), || Ok(Box::new(LinuxSets::open()?)))
    }

    /// Any other.
    pub(crate) fn of(
        open: impl Fn() -> Result<Box<dyn Kernel>, KernelError> + Send + Sync + 'static,
        sets: impl Fn() -> Result<Box<dyn Sets>, KernelError> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Arc::new(open), sets: Arc::new(sets) }
    }

    /// What the kernel lacks of an endpoint's policies, in words.
    pub(super) async fn lacking(
        &self,
        interface: InterfaceName,
        addresses: Vec<IpAddr>,
    ) -> anyhow::Result<Vec<String>> {
        let open = Arc::clone(&self.sets);
        let look = move || felix::acl::lacking(open()?.as_mut(), &interface, &addresses);
        Ok(tokio::task::spawn_blocking(look).await??)
    }

    /// The names of all links.
    pub(super) async fn link_names(&self) -> anyhow::Result<BTreeSet<String>> {
        self.ask(|kernel| Ok(kernel.links()?.into_iter().map(|link| link.name).collect())).await
    }

    /// Whether the link is there, and whether it is up.
    pub(super) async fn link(&self, interface: InterfaceName) -> anyhow::Result<Presence> {
        let link = self.ask(move |kernel| kernel.link(&interface)).await?;
        Ok(link.map_or(Presence::Gone, |link| if link.up { Presence::Up } else { Presence::Down }))
    }

    /// Parks the link of an attachment that is given up, if it was made: the binary that made it may be dead.
    pub(super) async fn park(&self, interface: InterfaceName, parked_group: u32) -> anyhow::Result<()> {
        let park = move |kernel: &mut dyn Kernel| match kernel.link(&interface)? {
            Some(link) => ours::park(kernel, &link, parked_group),
            None => Ok(()),
        };
        self.ask(park).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Kernel) -> Result<T, KernelError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let open = Arc::clone(&self.open);
        Ok(tokio::task::spawn_blocking(move || work(open()?.as_mut())).await??)
    }
}

impl fmt::Debug for HostLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostLinks")
    }
}

/// What a look for a link has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// There is none of that name.
    Gone,
    /// It serves nobody now.
    Down,
    /// It is in use.
    Up,
}

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
