//! Which published endpoints count: those whose addresses lie in blocks of the node that publishes them (pure; the tasks around
//! it are in `remote_task`).
//!
//! A node that could publish any address would give itself another pod's rights. What is refused for want of a block is
//! kept, for the block's claim may be heard later; what was accepted is not kept, so when a block is lost, endpoints are
//! listed anew.

use std::collections::BTreeMap;
use std::net::IpAddr;

use felix::policy::{EndpointFacts, RemoteKey};
use types::ownership::{Claim, Claims, Owner, View, overlapping};
use types::update::{Change, Listing};
use types::{EndpointId, NodeName, Prefix, Update, WorkloadEndpoint};

use super::facts;

/// The owners of blocks, and the endpoints that wait for one.
#[derive(Debug)]
pub(crate) struct Peers {
    /// This node: its own endpoints are known first hand.
    own: NodeName,
    /// Who has claimed what.
    claims: Claims,
    /// How far the listing of blocks has come.
    block_listing: Listing<Prefix>,
    /// Endpoints were in sync before blocks were.
    owes_in_sync: bool,
    /// Published, but not in a block of their node.
    refused: BTreeMap<RemoteKey, WorkloadEndpoint>,
}

/// What follows from a report about blocks.
#[derive(Debug, PartialEq)]
pub(crate) enum Consequence {
    /// These endpoints count now; or nothing follows.
    Accepted(Vec<Update<RemoteKey, EndpointFacts>>),
    /// Endpoints that counted may not any more: they are to be listed again.
    Relist,
}

impl Peers {
    pub(crate) fn new(own: NodeName) -> Self {
        Self {
            own,
            claims: Claims::new(),
            block_listing: Listing::new(),
            owes_in_sync: false,
            refused: BTreeMap::new(),
        }
    }

    /// The claims of blocks, as their source reports them.
    pub(crate) fn block(&mut self, update: Update<Prefix, Claim>) -> Consequence {
        let is_in_sync = matches!(update, Update::InSync);
        let mut lost = false;
        let mut accepted = Vec::new();
        let claims = &self.claims;
        match self.block_listing.follow(update, || claims.by_block().keys().copied().collect::<Vec<_>>()) {
            // Of a claim that cannot be read what was known of its owner stays.
            Change::Set(block, Claim { owner: None, .. }) if self.claims.by_block().contains_key(&block) => {}
            Change::Set(block, claim) => {
                let owner = claim.owner.clone();
                let before = self.claims.set(block, claim);
                // Endpoints in a block that an older claim overlaps may have counted until now.
                lost = before.is_some_and(|before| before.owner != owner)
                    || self.takes_from_others(&block, owner.as_ref());
                accepted = owner.map(|owner| self.accept(&owner)).unwrap_or_default();
            }
            Change::Gone(blocks) => {
                for block in blocks {
                    lost |= self.claims.remove(&block).is_some();
                }
            }
        }
        if is_in_sync && std::mem::take(&mut self.owes_in_sync) {
            accepted.push(Update::InSync);
        }
        if lost { Consequence::Relist } else { Consequence::Accepted(accepted) }
    }

    /// An update of published endpoints, as policy is to hear of it.
    pub(crate) fn endpoint(
        &mut self,
        update: Update<(NodeName, EndpointId), Box<WorkloadEndpoint>>,
    ) -> Vec<Update<RemoteKey, EndpointFacts>> {
        let others = update.filter_map(|(node, id)| (node != self.own).then_some(RemoteKey { node, id }));
        let Some(update) = others else { return Vec::new() };
        vec![match update {
            Update::Restart => {
                self.refused.clear();
                self.owes_in_sync = false;
                Update::Restart
            }
            // Before all blocks are known some endpoints wait for theirs: absence would be taken for their end.
            Update::InSync if !self.block_listing.is_known() => {
                self.owes_in_sync = true;
                return Vec::new();
            }
            Update::InSync => Update::InSync,
            Update::Set(key, endpoint) => {
                if self.is_owned(&key.node, &endpoint.addresses) {
                    self.refused.remove(&key);
                    Update::Set(key, facts::of_endpoint(*endpoint))
                } else {
                    self.refused.insert(key.clone(), *endpoint);
                    // It may have counted with other addresses.
                    Update::Delete(key)
                }
            }
            Update::Delete(key) => {
                self.refused.remove(&key);
                Update::Delete(key)
            }
        }]
    }

    /// Endpoints that are published but do not count.
    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }

    fn accept(&mut self, node: &NodeName) -> Vec<Update<RemoteKey, EndpointFacts>> {
        let keys: Vec<RemoteKey> = self
            .refused
            .iter()
            .filter(|(key, endpoint)| key.node == *node && self.is_owned(node, &endpoint.addresses))
            .map(|(key, _)| key.clone())
            .collect();
        let accepted = keys.into_iter().filter_map(|key| {
            let endpoint = self.refused.remove(&key)?;
            Some(Update::Set(key, facts::of_endpoint(endpoint)))
        });
        accepted.collect()
    }

    /// Whether claims of others overlap this one of `owner`.
    fn takes_from_others(&self, block: &Prefix, owner: Option<&NodeName>) -> bool {
        overlapping(self.claims.by_block(), block).any(|(_, other)| other.owner.as_ref() != owner)
    }

    fn is_owned(&self, node: &NodeName, addresses: &[IpAddr]) -> bool {
        let (claims, borrowed) = (Some(&self.claims), &BTreeMap::new());
        let view = View { ranges: &[], claims, borrowed };
        addresses.iter().all(|address| view.owner(*address) == Owner::Node(node))
    }
}

#[cfg(test)]
mod tests;
