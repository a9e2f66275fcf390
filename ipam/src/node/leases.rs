//! Addresses for interfaces that other plugins wire.

use store::JournalWrite;
use types::{EndpointId, Family, LinkKind, WorkloadEndpoint};

use super::Node;
use crate::allocator::{NoRoom, least_block};
use crate::{Pool, ReserveError};

impl Node {
    /// What an ADD is told that wants a subnet.
    pub(super) fn leased(
        &mut self,
        id: &EndpointId,
        leased: Result<(WorkloadEndpoint, Vec<JournalWrite>), NoRoom>,
        link: LinkKind,
    ) -> Result<WorkloadEndpoint, ReserveError> {
        match leased {
            Ok((endpoint, writes)) => {
                self.journal.extend(writes);
                Ok(endpoint)
            }
            Err(NoRoom::Full(subnet)) => Err(ReserveError::SubnetFull { network: id.network.clone(), subnet }),
            Err(NoRoom::Family(family)) => {
                Err(ReserveError::NoSubnet { family, link, obstacle: self.obstacle(family) })
            }
        }
    }
}

/// Whether another block would have room, whichever pool it is claimed from; else claiming more would never end.
pub(super) fn are_spacious(open: &[&Pool], family: Family, link: LinkKind) -> bool {
    let mut of_family = open.iter().filter(|pool| pool.cidr.family() == family);
    of_family.all(|pool| pool.block_addresses() >= least_block(link))
}

#[cfg(test)]
mod tests;
