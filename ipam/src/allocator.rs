//! The node's allocator: which of its addresses belong to whom, from reservation to rest.
//!
//! ```text
//!            reserve            commit               release
//!   free ───────────► reserved ────────► committed ────────────► releasing ─┐ the store no longer
//!     ▲                  │  ▲              │                                 │ shows the address
//!     │ cool-down over   │  └──────────────┘ uncommit (not journalled)       │ (at once without one)
//!     │                  │ release                                           │
//!   cooling ◄────────────┴───────────────────────────────────────────────────┘
//! ```
//!
//! Pure: it neither journals nor publishes, but says what is to be journalled. Who owns a block is not decided here.

mod leases;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use store::JournalWrite;
use types::{
    EndpointId, EndpointPort, Family, InterfaceName, LinkKind, NetworkName, PodRef, Prefix, Subnet, WorkloadEndpoint,
};

use crate::Pool;
use crate::block::{Block, TooLarge};
use crate::rows::{self, Restored};

pub(crate) use leases::{NoRoom, least_block};

/// The pod that an attachment is for, as its ADD names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The pod.
    pub pod: PodRef,
    /// The labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// The named ports of the pod.
    pub ports: Vec<EndpointPort>,
    /// The link that another plugin makes for it; none: it gets a pair of links of this node.
    pub link: Option<LinkKind>,
}

/// Own blocks, and the endpoints that have their addresses.
///
/// An address of an own block is in exactly one place: free in its block, in an endpoint, or in `resting`.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// How long an address rests once its release is known.
    cool_down: Duration,
    /// Whether a release counts only once the store shows it.
    acknowledged: bool,
    /// The blocks that this node owns; no two overlap.
    pub(super) blocks: BTreeMap<Prefix, Block>,
    /// Ranges that are one subnet on the link of a network: addresses of them are given to that network alone.
    pub(super) shared: BTreeMap<Prefix, NetworkName>,
    /// The endpoints that hold addresses.
    pub(super) endpoints: BTreeMap<EndpointId, Held>,
    /// The addresses that were released and are not free yet.
    resting: BTreeSet<IpAddr>,
    /// The addresses of `resting` that the store may still show, by the endpoint that it shows them for. The cool-down of the
    /// other resting addresses is running.
    releasing: BTreeMap<EndpointId, BTreeSet<IpAddr>>,
    /// When the addresses that cool become free. All cool for the same time, so the order in which they began is the order
    /// in which they end.
    cooling: VecDeque<(Instant, IpAddr)>,
    /// How many addresses have become free again: the order in which they are given out.
    turns: u64,
}

/// What may change of a pod while it is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// The named ports of the pod.
    pub ports: Vec<EndpointPort>,
    /// It has ended: its address is nobody's peer.
    pub finished: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) endpoint: WorkloadEndpoint,
    pub(super) phase: Phase,
}

/// How far an attachment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The ADD is under way; a restart forgets the endpoint.
    Reserved,
    /// The endpoint is journalled, or about to be.
    Committed,
}

/// A block in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlockCount {
    pub(crate) addresses: u64,
    pub(crate) in_use: u64,
    pub(crate) resting: u64,
    pub(crate) free: u64,
}

impl Allocator {
    /// Nothing is owned or given out yet. `acknowledged`: a store has to acknowledge releases.
    pub(crate) const fn new(cool_down: Duration, acknowledged: bool) -> Self {
        Self {
            cool_down,
            acknowledged,
            blocks: BTreeMap::new(),
            shared: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            resting: BTreeSet::new(),
            releasing: BTreeMap::new(),
            cooling: VecDeque::new(),
            turns: 0,
        }
    }

    /// Takes over what the journal says. Cool-downs begin anew: how much of them has passed is not known.
    pub(crate) fn restore(&mut self, restored: Restored, now: Instant) {
        for endpoint in restored.endpoints {
            self.endpoints.insert(endpoint.id.clone(), Held { endpoint, phase: Phase::Committed });
        }
        self.shared = restored.shared;
        for (address, by) in restored.resting {
            // The process was killed between two commits: the endpoint that has the address was journalled later.
            if !self.endpoints.values().flat_map(|held| held.endpoint.held()).any(|held| held == address) {
                self.rest(address, Some(by), now);
            }
        }
        for block in restored.blocks {
            // A range that is no block was not written by this build's rules; nothing is given out of it.
            let _ = self.adopt(block);
        }
    }

    /// Gives addresses out of this block from now on, but for those that are in use or rest.
    pub(crate) fn adopt(&mut self, cidr: Prefix) -> Result<(), TooLarge> {
        if self.blocks.contains_key(&cidr) {
            return Ok(());
        }
        let held = self.endpoints.values().flat_map(|held| held.endpoint.held());
        let mut block = Block::new(cidr, held.chain(self.resting.iter().copied()))?;
        if self.shared.contains_key(&cidr) {
            block.share();
        }
        self.blocks.insert(cidr, block);
        Ok(())
    }

    /// Gives nothing more out of this block. Gives the endpoints that have addresses of it; they keep them.
    pub(crate) fn lose(&mut self, cidr: &Prefix) -> Vec<&WorkloadEndpoint> {
        if self.blocks.remove(cidr).is_none() {
            return Vec::new();
        }
        let within = |endpoint: &&WorkloadEndpoint| endpoint.addresses.iter().any(|address| cidr.contains(*address));
        self.endpoints.values().map(|held| &held.endpoint).filter(within).collect()
    }

    /// Holds one address for each family of the pools in `open`, out of own blocks in these pools: of those never given
    /// out, else the one that has been free for longest; none out of `doubted` blocks. All or nothing; an error names a
    /// family without a free address.
    ///
    /// The caller has seen that the id holds nothing ([`Allocator::phase`]).
    pub(crate) fn reserve(
        &mut self,
        id: EndpointId,
        request: Request,
        open: &[&Pool],
        doubted: &BTreeSet<Prefix>,
    ) -> Result<WorkloadEndpoint, Family> {
        let mut chosen = Vec::new();
        for family in families(open) {
            let trusted = self.blocks_of(open, family).filter(|(cidr, _)| !doubted.contains(*cidr));
            let block = trusted.filter_map(|(cidr, block)| Some((block.turn()?, *cidr))).min();
            chosen.push(block.ok_or(family)?.1);
        }
        let addresses = chosen.iter().filter_map(|cidr| self.blocks.get_mut(cidr)?.take()).collect();
        Ok(self.hold(id, request, addresses, Vec::new()))
    }

    /// The addresses are the attachment's from now on.
    pub(super) fn hold(
        &mut self,
        id: EndpointId,
        request: Request,
        addresses: Vec<IpAddr>,
        subnets: Vec<Subnet>,
    ) -> WorkloadEndpoint {
        let Request { pod, labels, ports, link: _ } = request;
        let host_interface = id.host_interface();
        let endpoint = WorkloadEndpoint {
            id: id.clone(),
            pod,
            host_interface,
            addresses,
            subnets,
            labels,
            ports,
            finished: false,
        };
        self.endpoints.insert(id, Held { endpoint: endpoint.clone(), phase: Phase::Reserved });
        endpoint
    }

    /// How far an attachment has come; none: it holds nothing.
    pub(crate) fn phase(&self, id: &EndpointId) -> Option<Phase> {
        self.endpoints.get(id).map(|held| held.phase)
    }

    /// The attachment is complete. Gives what to journal before anybody is told; none: the id holds no reservation.
    pub(crate) fn commit(&mut self, id: &EndpointId) -> Option<JournalWrite> {
        let held = self.endpoints.get_mut(id).filter(|held| held.phase == Phase::Reserved)?;
        held.phase = Phase::Committed;
        Some(rows::committed(&held.endpoint))
    }

    /// What [`Allocator::commit`] gave could not be journalled.
    pub(crate) fn uncommit(&mut self, id: &EndpointId) {
        if let Some(held) = self.endpoints.get_mut(id) {
            held.phase = Phase::Reserved;
        }
    }

    /// What is known of the pod. Gives the endpoint, and what to journal where a committed one has changed; none: the id
    /// holds nothing.
    pub(crate) fn describe(
        &mut self,
        id: &EndpointId,
        facts: Description,
    ) -> Option<(WorkloadEndpoint, Option<JournalWrite>)> {
        let held = self.endpoints.get_mut(id)?;
        let Description { labels, ports, finished } = facts;
        let described = WorkloadEndpoint { labels, ports, finished, ..held.endpoint.clone() };
        let changed = described != held.endpoint && held.phase == Phase::Committed;
        held.endpoint = described;
        Some((held.endpoint.clone(), changed.then(|| rows::committed(&held.endpoint))))
    }

    /// Lets an attachment's addresses rest. Gives the endpoint, how far it had come, and what to journal; none: the id
    /// holds nothing.
    pub(crate) fn release(
        &mut self,
        id: &EndpointId,
        now: Instant,
    ) -> Option<(WorkloadEndpoint, Phase, Vec<JournalWrite>)> {
        let Held { endpoint, phase } = self.endpoints.remove(id)?;
        for address in endpoint.held() {
            // What was only reserved was never published.
            let by = (phase == Phase::Committed).then(|| id.clone());
            self.rest(address, by, now);
        }
        let writes = match phase {
            Phase::Reserved => Vec::new(),
            Phase::Committed => rows::released(&endpoint),
        };
        Some((endpoint, phase, writes))
    }

    /// The store shows an endpoint: its addresses that are free, and that it does not have here, rest like released ones.
    /// Gives what to journal.
    pub(crate) fn withhold(&mut self, published: &WorkloadEndpoint, now: Instant) -> Vec<JournalWrite> {
        let free: Vec<IpAddr> = published.held().filter(|address| self.withdraw(*address)).collect();
        for address in &free {
            self.rest(*address, Some(published.id.clone()), now);
        }
        free.into_iter().map(|address| rows::resting(address, &published.id)).collect()
    }

    /// The store shows `published` as the addresses of an endpoint: what else it had may begin to cool.
    pub(crate) fn acknowledge(&mut self, id: &EndpointId, published: &[IpAddr], now: Instant) {
        let Some(releasing) = self.releasing.get_mut(id) else { return };
        let gone: Vec<IpAddr> = releasing.extract_if(.., |address| !published.contains(address)).collect();
        if releasing.is_empty() {
            self.releasing.remove(id);
        }
        for address in gone {
            self.cool(address, now);
        }
    }

    /// Frees what has rested for long enough; gives what to journal.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<JournalWrite> {
        let mut writes = Vec::new();
        while let Some((_, address)) = self.cooling.pop_front_if(|(until, _)| *until <= now) {
            self.resting.remove(&address);
            self.turns += 1;
            let turn = self.turns;
            // At most one of the own blocks has the address in its range; none has where the block was lost meanwhile.
            self.blocks.values_mut().for_each(|block| block.give_back(address, turn));
            writes.push(rows::rested(address));
        }
        writes
    }

    /// When [`Allocator::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.cooling.front().map(|(until, _)| *until)
    }

    /// An endpoint, committed or not.
    pub(crate) fn endpoint(&self, id: &EndpointId) -> Option<&WorkloadEndpoint> {
        self.endpoints.get(id).map(|held| &held.endpoint)
    }

    /// The endpoint that is to be published under an id.
    pub(crate) fn committed(&self, id: &EndpointId) -> Option<&WorkloadEndpoint> {
        self.endpoints.get(id).filter(|held| held.phase == Phase::Committed).map(|held| &held.endpoint)
    }

    /// All committed endpoints.
    pub(crate) fn all_committed(&self) -> impl Iterator<Item = &WorkloadEndpoint> {
        self.endpoints.values().filter(|held| held.phase == Phase::Committed).map(|held| &held.endpoint)
    }

    /// The committed endpoints whose host interface is not in `present`, but for those that never had one.
    pub(crate) fn without_interface(&self, present: &BTreeSet<InterfaceName>) -> Vec<EndpointId> {
        let absent = |endpoint: &&WorkloadEndpoint| {
            !endpoint.is_wired_elsewhere() && !present.contains(&endpoint.host_interface)
        };
        self.all_committed().filter(absent).map(|endpoint| endpoint.id.clone()).collect()
    }

    /// The ids whose released addresses the store may still show.
    pub(crate) fn releasing(&self) -> impl Iterator<Item = &EndpointId> {
        self.releasing.keys()
    }

    /// The addresses that were released and are not free yet.
    pub(crate) const fn resting(&self) -> &BTreeSet<IpAddr> {
        &self.resting
    }

    /// The blocks that this node owns.
    pub(crate) const fn blocks(&self) -> &BTreeMap<Prefix, Block> {
        &self.blocks
    }

    /// The free addresses of own blocks in these pools.
    pub(crate) fn free(&self, open: &[&Pool], family: Family) -> u64 {
        self.blocks_of(open, family).map(|(_, block)| u64::from(block.free())).sum()
    }

    /// A block of our own, in numbers.
    pub(crate) fn count(&self, cidr: &Prefix) -> BlockCount {
        let Some(block) = self.blocks.get(cidr) else { return BlockCount::default() };
        let resting = self.resting.iter().filter(|address| cidr.contains(**address)).count() as u64;
        let (addresses, free) = (u64::from(block.size()), u64::from(block.free()));
        BlockCount { addresses, in_use: addresses - free - resting, resting, free }
    }

    /// Those that are no network's subnet.
    pub(super) fn blocks_of<'a>(
        &'a self,
        open: &'a [&Pool],
        family: Family,
    ) -> impl Iterator<Item = (&'a Prefix, &'a Block)> {
        let in_open_pool = move |cidr: &Prefix| open.iter().any(|pool| pool.cidr.covers(cidr));
        let is_candidate =
            move |cidr: &Prefix| cidr.family() == family && in_open_pool(cidr) && !self.shared.contains_key(cidr);
        self.blocks.iter().filter(move |(cidr, _)| is_candidate(cidr))
    }

    /// Takes a certain address out of its block; false: it is not free.
    fn withdraw(&mut self, address: IpAddr) -> bool {
        self.blocks.values_mut().any(|block| block.withdraw(address))
    }

    /// `by`: the endpoint under which the store may show the address; none: under none.
    fn rest(&mut self, address: IpAddr, by: Option<EndpointId>, now: Instant) {
        self.resting.insert(address);
        match by.filter(|_| self.acknowledged) {
            Some(id) => drop(self.releasing.entry(id).or_default().insert(address)),
            None => self.cool(address, now),
        }
    }

    fn cool(&mut self, address: IpAddr, now: Instant) {
        self.cooling.push_back((now + self.cool_down, address));
    }
}

/// The families for which there is a pool.
pub(crate) fn families(pools: &[&Pool]) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| pools.iter().any(|pool| pool.cidr.family() == *family))
}

#[cfg(test)]
mod tests;
