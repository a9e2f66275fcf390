//! Who may announce which route, as the speaker is to hear of it (pure): claims of blocks as their source reports them, pools
//! and nodes as the cluster declares them, turned into changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bgp::{Freshness, Holder, OriginChange, OriginNode, Range};
use types::ownership::{Claim, Claims, Standing, overlapping};
use types::resource::IpPoolSpec;
use types::update::{Change, Listing};
use types::{NodeName, Prefix, ResourceName, Update};

/// How many blocks are remembered that nobody has any more, for their last owners' routes.
const FORMER: usize = 4_096;

/// What the speaker was told, and what it is still to be told.
#[derive(Debug)]
pub(crate) struct Origins {
    /// This node.
    own: NodeName,
    /// Whether claims are those of the whole cluster. Without etcd they are this node's alone, and say nothing of others' blocks.
    is_shared: bool,
    /// All claims.
    claims: Claims,
    /// Where their source stands.
    listing: Listing<Prefix>,
    /// Who the speaker was told has what.
    told: BTreeMap<Prefix, Holder>,
    /// Blocks that nobody has any more, the longest gone first; some may have been claimed since.
    former: VecDeque<Prefix>,
    /// The ranges of pools, and whether blocks may be claimed there.
    pools: Vec<(Range, bool)>,
    /// The ranges and nodes that the speaker was told.
    ranges: Vec<Range>,
    /// See `ranges`.
    nodes: Vec<OriginNode>,
    /// What it has not been told yet.
    changes: Vec<OriginChange>,
}

impl Origins {
    pub(crate) const fn new(own: NodeName, is_shared: bool) -> Self {
        Self {
            own,
            is_shared,
            claims: Claims::new(),
            listing: Listing::new(),
            told: BTreeMap::new(),
            former: VecDeque::new(),
            pools: Vec::new(),
            ranges: Vec::new(),
            nodes: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Whether all claims have been heard once: before, no route can be judged.
    pub(crate) const fn is_known(&self) -> bool {
        self.listing.is_known()
    }

    /// Whether claims are those of the whole cluster.
    pub(crate) const fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// This node's blocks, where they are all that is known.
    pub(crate) fn own_blocks(&mut self, blocks: &BTreeSet<Prefix>) {
        let claims = blocks.iter().map(|block| (*block, Claim { owner: Some(self.own.clone()), created: 0 }));
        for update in Update::listing(claims.collect::<Vec<_>>()) {
            self.take(update);
        }
    }

    /// The claims of blocks, as their source reports them.
    pub(crate) fn claim(&mut self, update: Update<Prefix, Claim>) {
        if self.is_shared {
            self.take(update);
        }
    }

    fn take(&mut self, update: Update<Prefix, Claim>) {
        let claims = &self.claims;
        match self.listing.follow(update, || claims.by_block().keys().copied().collect::<Vec<_>>()) {
            Change::Set(block, claim) => {
                if self.claims.set(block, claim.clone()).as_ref() != Some(&claim) {
                    self.changed(block);
                }
            }
            Change::Gone(blocks) => {
                for block in blocks {
                    if self.claims.remove(&block).is_some() {
                        self.changed(block);
                    }
                }
            }
        }
    }

    /// The cluster has these pools and nodes.
    pub(crate) fn declared(&mut self, pools: &[(ResourceName, IpPoolSpec, bool)], nodes: &[OriginNode]) {
        let ranges = pools.iter().filter_map(|(_, pool, _)| {
            let block_len = pool.block_len().ok()?.len();
            Some((Range { cidr: pool.cidr, block_len }, !pool.disabled))
        });
        self.pools = ranges.collect();
        if self.nodes != nodes {
            self.nodes = nodes.to_vec();
            self.changes.push(OriginChange::Nodes(self.nodes.clone()));
        }
    }

    /// Claims are known this well from now on. Those of this node alone are always known.
    pub(crate) fn known_as_of(&mut self, freshness: Freshness) {
        if self.is_shared {
            self.changes.push(OriginChange::Freshness(freshness));
        }
    }

    /// What the speaker is to be told now.
    pub(crate) fn take_changes(&mut self) -> Vec<OriginChange> {
        let ranges = self.covered();
        if self.ranges != ranges {
            self.ranges.clone_from(&ranges);
            self.changes.push(OriginChange::Ranges(ranges));
        }
        std::mem::take(&mut self.changes)
    }

    /// Where routes are judged: in the ranges that blocks are claimed from. A disabled pool in which nobody has a block is another
    /// cluster's range, written down so that it is not taken for the world outside.
    fn covered(&self) -> Vec<Range> {
        if !self.is_shared {
            let own = self.claims.by_block().keys();
            return own.map(|block| Range { cidr: *block, block_len: block.len() }).collect();
        }
        let has_claims = |range: &Range| overlapping(self.claims.by_block(), &range.cidr).next().is_some();
        self.pools.iter().filter(|(range, is_open)| *is_open || has_claims(range)).map(|(range, _)| *range).collect()
    }

    /// The claim of a block has changed: it is judged anew, and those that it overlaps.
    fn changed(&mut self, block: Prefix) {
        let mut affected: Vec<Prefix> = overlapping(self.claims.by_block(), &block).map(|(other, _)| *other).collect();
        affected.extend(overlapping(&self.told, &block).map(|(other, _)| *other));
        affected.push(block);
        affected.sort_unstable();
        affected.dedup();
        for block in affected {
            self.tell(block);
        }
    }

    fn tell(&mut self, block: Prefix) {
        let before = self.told.get(&block);
        let holder = match self.claims.standing(&block) {
            Standing::Owned(owner) if *owner == self.own => Some(Holder::Own),
            Standing::Owned(owner) => Some(Holder::Node(owner.clone())),
            Standing::Unreadable => Some(Holder::Unreadable),
            Standing::Overlapped { .. } => None,
            Standing::Absent => match before {
                Some(Holder::Node(owner) | Holder::Former(owner))
                    if overlapping(self.claims.by_block(), &block).next().is_none() =>
                {
                    Some(Holder::Former(owner.clone()))
                }
                _ => None,
            },
        };
        if before == holder.as_ref() {
            return;
        }
        match &holder {
            Some(known) => drop(self.told.insert(block, known.clone())),
            None => drop(self.told.remove(&block)),
        }
        if matches!(holder, Some(Holder::Former(_))) {
            self.remember(block);
        }
        self.changes.push(OriginChange::Holder(block, holder));
    }

    /// Remembers that a block is nobody's any more, in the place of the one for which that is longest.
    fn remember(&mut self, block: Prefix) {
        self.former.push_back(block);
        while self.former.len() > FORMER {
            let Some(oldest) = self.former.pop_front() else { return };
            if matches!(self.told.get(&oldest), Some(Holder::Former(_))) && !self.former.contains(&oldest) {
                self.told.remove(&oldest);
                self.changes.push(OriginChange::Holder(oldest, None));
            }
        }
    }
}

#[cfg(test)]
mod tests;
