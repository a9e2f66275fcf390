//! Addresses for interfaces that other plugins wire: each with a subnet that has a gateway.
//!
//! Where the interface is alone on its link (ptp), a subnet of two does, out of any block. Where pods of a network share a link
//! (bridge, macvlan), they take each other for neighbours, all addresses of the subnet are on the link, and its gateway is
//! configured on the node: such a subnet is a whole block, of which nobody else gets an address before the next boot, when the
//! link is gone for certain.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use store::JournalWrite;
use types::{EndpointId, Family, LinkKind, NetworkName, Prefix, Subnet, WorkloadEndpoint};

use super::{Allocator, Request, families};
use crate::{Pool, rows};

/// The smallest block that makes a subnet for a link with several pods.
const LEAST_SHARED: u32 = 8;

/// The fewest addresses of a block that has room for a subnet.
pub(crate) const fn least_block(link: LinkKind) -> u32 {
    match link {
        LinkKind::PointToPoint => 2,
        LinkKind::Shared => LEAST_SHARED,
    }
}

/// Why there is no address with a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Another block of the family would do.
    Family(Family),
    /// Every address of the network's subnet is taken.
    Full(Prefix),
}

impl NoRoom {
    /// The family of which another block would do.
    pub(crate) const fn family(self) -> Option<Family> {
        match self {
            Self::Family(family) => Some(family),
            Self::Full(_) => None,
        }
    }
}

impl Allocator {
    /// As [`Allocator::reserve`], for an interface on a link of this kind. Gives what to journal, too.
    pub(crate) fn lease(
        &mut self,
        id: EndpointId,
        request: Request,
        link: LinkKind,
        open: &[&Pool],
        doubted: &BTreeSet<Prefix>,
    ) -> Result<(WorkloadEndpoint, Vec<JournalWrite>), NoRoom> {
        let mut chosen = Vec::new();
        for family in families(open) {
            let block = match link {
                LinkKind::PointToPoint => self.with_pair(open, family, doubted),
                LinkKind::Shared => self.subnet_of(&id.network, open, family, doubted)?,
            };
            chosen.push(block.ok_or(NoRoom::Family(family))?);
        }
        let (mut addresses, mut subnets, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for cidr in chosen {
            let Some(block) = self.blocks.get_mut(&cidr) else { continue };
            let taken = match link {
                LinkKind::PointToPoint => block.take_pair().map(|(gateway, address)| {
                    let length = cidr.family().bits() - 1;
                    (address, Subnet { length, gateway })
                }),
                LinkKind::Shared => {
                    if let Entry::Vacant(vacant) = self.shared.entry(cidr) {
                        block.share();
                        vacant.insert(id.network.clone());
                        writes.push(rows::shared(&cidr, &id.network));
                    }
                    let subnet = Subnet { length: cidr.len(), gateway: block.gateway() };
                    block.take().map(|address| (address, subnet))
                }
            };
            let Some((address, subnet)) = taken else { continue };
            addresses.push(address);
            subnets.push(subnet);
        }
        Ok((self.hold(id, request, addresses, subnets), writes))
    }

    fn with_pair(&self, open: &[&Pool], family: Family, doubted: &BTreeSet<Prefix>) -> Option<Prefix> {
        let mut blocks = self.blocks_of(open, family).filter(|(cidr, _)| !doubted.contains(*cidr));
        blocks.find(|(_, block)| block.has_pair()).map(|(cidr, _)| *cidr)
    }

    /// The network's block, or one that becomes it; none: every block is in use for something else.
    fn subnet_of(
        &self,
        network: &NetworkName,
        open: &[&Pool],
        family: Family,
        doubted: &BTreeSet<Prefix>,
    ) -> Result<Option<Prefix>, NoRoom> {
        let in_open_pool = |cidr: &Prefix| open.iter().any(|pool| pool.cidr.covers(cidr));
        let has_subnet = |cidr: &Prefix| cidr.family() == family && in_open_pool(cidr);
        if let Some((cidr, _)) = self.shared.iter().find(|(cidr, of)| *of == network && has_subnet(cidr)) {
            return match self.blocks.get(cidr) {
                // What is not this node's, or may not be, is left alone; a second subnet would make a mess of the link.
                None => Ok(None),
                Some(_) if doubted.contains(cidr) => Ok(None),
                Some(block) if block.turn().is_some() => Ok(Some(*cidr)),
                Some(_) => Err(NoRoom::Full(*cidr)),
            };
        }
        let mut blocks = self.blocks_of(open, family).filter(|(cidr, _)| !doubted.contains(*cidr));
        Ok(blocks.find(|(_, block)| block.is_unused() && block.size() >= LEAST_SHARED).map(|(cidr, _)| *cidr))
    }
}

#[cfg(test)]
mod tests;
