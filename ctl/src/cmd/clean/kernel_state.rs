//! What is ours in the kernel, seen and taken away.

use std::thread;
use std::time::{Duration, Instant};

use kernel::acl::{Remains, SetName, Sets, Tables};
use kernel::{Kernel, KernelError, RouteChange, RouteFilter, ours};
use types::Family;
use types::config::KernelMarks;

use super::plan::{Found, KernelRemoval};

/// nftables lets go of the sets of a rule that was deleted some time later, and tells nobody: so long is waited for it.
pub(crate) const SET_RELEASE_WAIT: Duration = Duration::from_secs(3);

/// How long to wait before a set that is still in use is tried again.
const SET_RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// The kernel of a node.
pub(crate) struct HostKernel {
    pub(crate) kernel: Box<dyn Kernel>,
    pub(crate) sets: Box<dyn Sets>,
    /// The tables of each variant of iptables.
    pub(crate) tables: Vec<Box<dyn Tables>>,
    /// The route protocols that are ours.
    pub(crate) marks: KernelMarks,
    /// How long sets may be in use by rules that are gone.
    pub(crate) set_release_wait: Duration,
    /// When that time ends for all sets; none before the first of them is removed.
    pub(crate) sets_awaited_until: Option<Instant>,
}

impl HostKernel {
    /// Adds what is ours to what was found; answers what could not be looked at.
    pub(crate) fn look(&mut self, found: &mut Found) -> Vec<KernelError> {
        let mut failed = Vec::new();
        match self.kernel.links() {
            Ok(links) => found.links.extend(links.into_iter().filter(ours::is_our_link)),
            Err(error) => failed.push(error),
        }
        for family in Family::ALL {
            for protocol in [self.marks.local_protocol, self.marks.bgp_protocol] {
                match self.kernel.routes(&RouteFilter::main(family).of_protocol(protocol)) {
                    Ok(routes) => found.routes.extend(routes),
                    Err(error) => failed.push(error),
                }
            }
            for tables in &mut self.tables {
                match Remains::of_family(tables.as_mut(), family) {
                    Ok(remains) => found.rules.extend(remains),
                    // This variant of iptables is not installed.
                    Err(KernelError::Gone(_)) => {}
                    Err(error) => failed.push(error),
                }
            }
        }
        match self.sets.sets() {
            Ok(sets) => found.sets.extend(sets.into_iter().map(|set| set.name).filter(ours::is_our_set)),
            Err(error) => failed.push(error),
        }
        failed
    }

    /// Removes one object from the kernel.
    pub(crate) fn carry_out(&mut self, step: &KernelRemoval) -> Result<(), KernelError> {
        match step {
            KernelRemoval::Link { index, .. } => self.kernel.delete_link(*index),
            KernelRemoval::Route(route) => {
                let failures = self.kernel.change_routes(&[RouteChange::Delete(route.clone())])?;
                failures.into_iter().next().map_or(Ok(()), |failure| Err(failure.error))
            }
            KernelRemoval::Rules(remains) => {
                let tables = self.tables.iter_mut().find(|tables| tables.variant() == remains.variant);
                tables.map_or(Ok(()), |tables| tables.restore(remains.family, &remains.removal()))
            }
            KernelRemoval::Set(name) => self.destroy(name),
        }
    }

    fn destroy(&mut self, name: &SetName) -> Result<(), KernelError> {
        let wait = self.set_release_wait;
        let until = *self.sets_awaited_until.get_or_insert_with(|| Instant::now() + wait);
        loop {
            match self.sets.destroy_set(name) {
                Err(KernelError::Busy(_)) if Instant::now() < until => thread::sleep(SET_RELEASE_PAUSE),
                destroyed => return destroyed,
            }
        }
    }
}

#[cfg(test)]
mod tests;
