//! Everything that ipam knows and decides, without doing any of it: pools, claims of all nodes, own blocks and endpoints.
//!
//! Calls and reports go in with the time; results, [`Job`]s for the store, rows for the journal and [`Event`]s for the log
//! come out. [`crate::run`] carries them.

mod agreement;
mod leases;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use store::{Entry, Key, Outcome, Version};
use types::update::Mirror;
use types::{EndpointId, Family, InterfaceName, NodeName, Prefix, ResourceName, Update, WorkloadEndpoint};

use crate::allocator::{Allocator, Description, Phase, Request};
use crate::journal_queue::JournalQueue;
use crate::messages::{Answer, Event, Job};
use crate::plan::claims::{self, Claim, ClaimOutcome, ClaimStep, Claims, Situation, Verdict};
use crate::plan::confirmations::Confirmations;
use crate::plan::publications::Publications;
use crate::pool::seed;
use crate::rows::{self, Restored};
use crate::view::{OwnBlock, OwnPool, View};
use crate::{IpamConfig, IpamError, Pool, PoolCount, ReserveError};
use types::ownership::overlapping;

/// The node's state.
#[derive(Debug)]
pub(crate) struct Node {
    /// The node's name.
    name: NodeName,
    /// Whether a store is shared with other nodes.
    shared: bool,
    /// The pools.
    pools: Mirror<ResourceName, Pool>,
    /// The claims of all nodes; without a shared store, those of this node.
    known: Mirror<Prefix, Claim>,
    /// Blocks whose claims have changed while the claims are being listed.
    unjudged: BTreeSet<Prefix>,
    /// Own claims that older ones overlap, and when they were made.
    overlapped: BTreeMap<Prefix, Version>,
    /// Families in which no own block has room for a subnet that was asked for: another block is to be claimed.
    cramped: BTreeSet<Family>,
    /// The blocks that this node owns, and the endpoints in them.
    allocator: Allocator,
    /// The claims that are under way.
    claims: Claims,
    /// Whether the store agrees on own blocks.
    confirmations: Confirmations,
    /// Whether the log knows that no addresses are given out.
    is_fenced: bool,
    /// The published copy.
    publications: Publications,
    /// The rows that are to be journalled.
    journal: JournalQueue,
    /// The events that are to be logged.
    events: Vec<Event>,
}

impl Node {
    /// Takes over what the journal says.
    pub(crate) fn new(config: &IpamConfig, shared: bool, mut restored: Restored, now: Instant) -> Self {
        let name = config.node.clone();
        let fencing = config.fencing.filter(|_| shared);
        let confirmed = restored.confirmed.clone();
        let mut node = Self {
            shared,
            pools: Mirror::new(),
            known: Mirror::new(),
            unjudged: BTreeSet::new(),
            overlapped: BTreeMap::new(),
            cramped: BTreeSet::new(),
            allocator: Allocator::new(config.cool_down, shared),
            claims: Claims::new(name.clone()),
            confirmations: Confirmations::new(fencing, &config.boot_id, confirmed, seed(&name), now),
            is_fenced: false,
            publications: Publications::new(name.clone()),
            journal: JournalQueue::new(),
            events: Vec::new(),
            name,
        };
        let rebooted = restored.boot_id.as_ref() != Some(&config.boot_id);
        if rebooted {
            // Nor does a link.
            let shared = std::mem::take(&mut restored.shared);
            node.journal.extend(shared.keys().map(rows::unshared));
        }
        node.allocator.restore(restored, now);
        if rebooted {
            node.journal.push(rows::boot_id(&config.boot_id));
            // No pod lives longer than the boot in which it was started.
            let ids: Vec<EndpointId> = node.allocator.all_committed().map(|endpoint| endpoint.id.clone()).collect();
            if !ids.is_empty() {
                node.events.push(Event::Rebooted(ids.len()));
            }
            for id in ids {
                node.release(&id, now);
            }
        }
        if !shared {
            let own: Vec<Prefix> = node.allocator.blocks().keys().copied().collect();
            own.into_iter().for_each(|block| node.known.learn(block, unshared(&node.name)));
            node.known.apply(Update::InSync);
        }
        node
    }

    // What the agent asks.

    /// Whether an attachment holds nothing, as an ADD wants it.
    pub(crate) fn check_unattached(&self, id: &EndpointId) -> Result<(), ReserveError> {
        match self.allocator.phase(id) {
            Some(Phase::Committed) => Err(ReserveError::AlreadyAttached(id.clone())),
            Some(Phase::Reserved) => Err(ReserveError::UnderWay(id.clone())),
            None => Ok(()),
        }
    }

    /// Holds addresses for an attachment.
    pub(crate) fn reserve(&mut self, id: &EndpointId, request: Request) -> Result<WorkloadEndpoint, ReserveError> {
        self.check_unattached(id)?;
        if !self.pools.is_known() {
            return Err(ReserveError::PoolsUnknown);
        }
        let open = open(&self.pools);
        if open.is_empty() {
            let refused = self.pools.entries().values().filter_map(|pool| pool.check().err()).collect();
            return Err(ReserveError::NoPool { refused });
        }
        if let Some((why, limit)) = self.fenced() {
            return Err(ReserveError::Unconfirmed { why, limit });
        }
        let doubted = self.doubted_blocks();
        if let Some(link) = request.link {
            let leased = self.allocator.lease(id.clone(), request, link, &open, &doubted);
            let spacious = |family| leases::are_spacious(&open, family, link);
            let cramped = leased.as_ref().err().and_then(|no_room| no_room.family()).filter(|family| spacious(*family));
            self.cramped.extend(cramped);
            return self.leased(id, leased, link);
        }
        let reserved = self.allocator.reserve(id.clone(), request, &open, &doubted);
        reserved.map_err(|family| {
            let pools = open.iter().filter(|pool| pool.cidr.family() == family).map(|pool| self.count(pool)).collect();
            ReserveError::Exhausted { family, pools, obstacle: self.obstacle(family) }
        })
    }

    /// Whether waiting may help an attachment that got this error: a block may be claimed soon, or the pools be named.
    pub(crate) fn may_wait(&self, error: &ReserveError) -> bool {
        match error {
            ReserveError::PoolsUnknown | ReserveError::Unconfirmed { .. } => true,
            ReserveError::Exhausted { family, .. } | ReserveError::NoSubnet { family, .. } => {
                !self.claims.is_full(*family) || self.doubted_blocks().iter().any(|block| block.family() == *family)
            }
            _ => false,
        }
    }

    /// An attachment waits: what was put off after a failure is done now.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.claims.hurry();
        if self.fenced().is_some() || !self.confirmations.doubted().is_empty() {
            self.confirmations.hurry(now);
        }
    }

    /// The attachment is complete. Journal what is queued, then call [`Node::journalled`] or [`Node::not_journalled`].
    pub(crate) fn commit(&mut self, id: &EndpointId) -> Result<(), IpamError> {
        let row = self.allocator.commit(id).ok_or_else(|| IpamError::NotReserved(id.clone()))?;
        self.journal.push(row);
        Ok(())
    }

    /// What [`Node::commit`] queued is in the journal: the others may know.
    pub(crate) fn journalled(&mut self, id: EndpointId) {
        self.publications.change(id);
    }

    /// What [`Node::commit`] queued is not in the journal, and is not to be: the endpoint is reserved as before.
    pub(crate) fn not_journalled(&mut self, id: &EndpointId) {
        self.allocator.uncommit(id);
        self.journal.retract_endpoint(id);
    }

    /// Takes in what is known now of an attachment's pod.
    pub(crate) fn describe(&mut self, id: &EndpointId, facts: Description) -> Option<WorkloadEndpoint> {
        let (endpoint, row) = self.allocator.describe(id, facts)?;
        if let Some(row) = row {
            self.journal.push(row);
            self.publications.change(id.clone());
        }
        Some(endpoint)
    }

    /// Lets an attachment go, however far it had come.
    pub(crate) fn release(&mut self, id: &EndpointId, now: Instant) -> Option<WorkloadEndpoint> {
        let (endpoint, phase, writes) = self.allocator.release(id, now)?;
        self.journal.extend(writes);
        if phase == Phase::Committed {
            self.publications.change(id.clone());
        }
        Some(endpoint)
    }

    /// Lets go the endpoints whose host interface is not there; gives them.
    pub(crate) fn reconcile(&mut self, present: &BTreeSet<InterfaceName>, now: Instant) -> Vec<WorkloadEndpoint> {
        let absent = self.allocator.without_interface(present);
        absent.into_iter().filter_map(|id| self.release(&id, now)).collect()
    }

    /// An endpoint, complete or not.
    pub(crate) fn endpoint(&self, id: &EndpointId) -> Option<WorkloadEndpoint> {
        self.allocator.endpoint(id).cloned()
    }

    /// All complete endpoints.
    pub(crate) fn endpoints(&self) -> Vec<WorkloadEndpoint> {
        self.allocator.all_committed().cloned().collect()
    }

    /// The blocks that this node owns.
    pub(crate) fn blocks(&self) -> BTreeSet<Prefix> {
        self.allocator.blocks().keys().copied().collect()
    }

    /// All of it, for people.
    pub(crate) fn view(&self) -> View {
        let own_block = |cidr: &Prefix| OwnBlock::new(*cidr, self.allocator.count(cidr));
        let own_pool = |pool: &Pool| {
            let own = self.allocator.blocks().keys().filter(|block| pool.cidr.covers(block));
            OwnPool { pool: pool.clone(), addresses: pool.addresses(), blocks: own.map(own_block).collect() }
        };
        let pools = self.pools.entries();
        let claimed = self.known.entries().iter();
        let claimed = claimed.filter_map(|(block, claim)| Some((*block, claim.owner.clone()?)));
        let own = self.allocator.blocks().keys().map(|block| (*block, self.name.clone()));
        let endpoints: BTreeMap<_, _> =
            self.allocator.all_committed().map(|endpoint| (endpoint.id.clone(), endpoint.addresses.clone())).collect();
        View {
            pools: pools.iter().map(|(name, pool)| (name.clone(), pool.cidr)).collect(),
            blocks: claimed.chain(own).collect(),
            addresses: endpoints.values().flatten().copied().collect(),
            resting: self.allocator.resting().clone(),
            own: pools.values().map(own_pool).collect(),
            endpoints,
            unpublished: self.publications.behind(),
        }
    }

    // What sources and the store report.

    /// A report about the pools.
    pub(crate) fn pool_update(&mut self, update: Update<ResourceName, Pool>) {
        if let Update::Set(_, pool) = &update
            && let Err(error) = pool.check()
            && self.pools.entries().get(&pool.name) != Some(pool)
        {
            self.events.push(Event::PoolRefused(error));
        }
        self.pools.apply(update);
        self.claims.look_again();
    }

    /// A report about the claims of all nodes.
    pub(crate) fn claim_update(&mut self, update: Update<Key, Entry>, now: Instant) {
        let (update, wrong) = claims::read_update(update);
        self.events.extend(wrong.map(Event::ClaimUnreadable));
        let Some(update) = update else { return };
        match update {
            // Every watch begins with a restart. A later one means that history was lost, and with it perhaps what this node
            // has published.
            Update::Restart => self.publications.doubt(),
            Update::InSync => {
                self.claims.listed();
                if self.fenced().is_some() {
                    self.confirmations.hurry(now);
                }
            }
            Update::Set(..) | Update::Delete(_) => {}
        }
        self.unjudged.extend(self.known.apply(update));
        self.claims.look_again();
        // Nothing is ours before all older claims are known.
        if !self.known.is_listing() {
            self.judge_all();
        }
    }

    /// What the store is to be asked now. Empty until something else happens.
    pub(crate) fn jobs(&mut self, now: Instant) -> Vec<Job> {
        let rested = self.allocator.tick(now);
        self.journal.extend(rested);
        if !self.shared {
            self.claim_unshared(now);
            return Vec::new();
        }
        let step = if self.may_claim() { self.begin_claim(now) } else { None };
        let claim = step.map(|step| match step {
            ClaimStep::Claim(block) => Job::Claim(block),
            ClaimStep::Withdraw(block, created) => Job::Withdraw(block, created),
        });
        let confirmation = self.begin_confirmation(now);
        // Own blocks first: what is published of their addresses is not free.
        let publication = if self.known.is_known() { self.begin_publication(now) } else { None };
        [claim, confirmation, publication].into_iter().flatten().collect()
    }

    /// The store has answered.
    pub(crate) fn answered(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Claim(block, Ok(outcome)) => self.claim_answered(block, outcome),
            Answer::Withdraw(block, Ok(())) => {
                // The watch may still show the claim for a while: it must not be taken back a second time.
                self.overlapped.remove(&block);
                self.claims.settled();
            }
            Answer::Claim(block, Err(error)) | Answer::Withdraw(block, Err(error)) => {
                self.claims.failed(error.to_string(), now);
                self.events.push(Event::ClaimFailed(block, error));
            }
            Answer::Confirmed(Ok(shown)) => self.confirmation_answered(shown, now),
            Answer::Confirmed(Err(error)) => {
                self.confirmations.failed(now);
                self.events.push(Event::NotConfirmed(error));
            }
            Answer::Listed(Ok(listing)) => self.published_listed(&listing.entries, now),
            Answer::Written(Ok(Outcome::Conflict)) => self.publication_refuted(now),
            Answer::Written(Ok(Outcome::Committed(_))) => {
                for (id, published) in self.publications.acknowledged() {
                    self.allocator.acknowledge(&id, &published, now);
                }
            }
            Answer::Listed(Err(error)) | Answer::Written(Err(error)) => {
                self.publications.failed(now);
                self.events.push(Event::PublicationFailed(error));
            }
        }
    }

    /// When [`Node::jobs`] may have something without anything else happening.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let store = [self.claims.deadline(), self.publications.deadline(), self.confirmation_deadline()];
        store.into_iter().filter(|_| self.shared).chain([self.allocator.deadline()]).flatten().min()
    }

    /// The rows that are to be journalled.
    pub(crate) const fn journal(&mut self) -> &mut JournalQueue {
        &mut self.journal
    }

    /// What has happened since this was asked last.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    // Own blocks.

    /// Judges the blocks whose claims have changed, and those that they overlap.
    fn judge_all(&mut self) {
        let changed = std::mem::take(&mut self.unjudged);
        let mut affected = BTreeSet::new();
        for block in &changed {
            affected.extend(overlapping(self.known.entries(), block).map(|(other, _)| *other));
            affected.extend(overlapping(self.allocator.blocks(), block).map(|(other, _)| *other));
        }
        changed.union(&affected).for_each(|block| self.judge(block));
    }

    /// Takes over or gives up a block, as the claims say.
    fn judge(&mut self, block: &Prefix) {
        self.claims.seen(block);
        let verdict = claims::verdict(&self.name, self.known.entries(), block);
        self.overlapped.remove(block);
        match verdict {
            Verdict::Ours => self.own(*block),
            Verdict::Theirs(owner) => self.lose(block, format!("node {owner}")),
            Verdict::Overlapped(older) => {
                if let Some(claim) = self.known.entries().get(block) {
                    self.overlapped.insert(*block, claim.created);
                }
                self.lose(block, format!("the older claim of {older}"));
            }
            // The claim is made again, or the watch will show it soon; meanwhile the block's addresses stay in use.
            Verdict::Unclaimed | Verdict::Unreadable => {}
        }
    }

    fn own(&mut self, block: Prefix) {
        // What the watch shows of a block in doubt is older than the answer that raised the doubt.
        if self.confirmations.doubted().contains(&block) && !self.allocator.blocks().contains_key(&block) {
            return;
        }
        let before = self.allocator.blocks().len();
        // A range that is too large for a block cannot come from a pool that was checked; nothing is given out of it.
        if self.allocator.adopt(block).is_ok() && self.allocator.blocks().len() > before {
            self.journal.push(rows::block_owned(&block, &self.name));
            self.events.push(Event::Owned(block));
            self.cramped.remove(&block.family());
        }
    }

    fn lose(&mut self, block: &Prefix, to: String) {
        if !self.allocator.blocks().contains_key(block) {
            return;
        }
        let endpoints = self.allocator.lose(block);
        let endpoints = endpoints.into_iter().map(|endpoint| format!("{} ({})", endpoint.pod, endpoint.id)).collect();
        self.journal.push(rows::block_lost(block));
        self.events.push(Event::Lost { block: *block, to, endpoints });
    }

    /// Whether blocks may be claimed: all claims and pools must be known, or a claim would be a guess.
    fn may_claim(&self) -> bool {
        self.known.is_known() && self.pools.is_known()
    }

    fn begin_claim(&mut self, now: Instant) -> Option<ClaimStep> {
        let open = open(&self.pools);
        let (known, overlapped, allocator) = (self.known.entries(), &self.overlapped, &self.allocator);
        let missing = self.confirmations.missing();
        let cramped = &self.cramped;
        self.claims.begin(Situation { open: &open, known, missing, overlapped, cramped, allocator }, now)
    }

    /// Without a shared store, a claim is a row in the journal.
    fn claim_unshared(&mut self, now: Instant) {
        while self.may_claim()
            && let Some(ClaimStep::Claim(block)) = self.begin_claim(now)
        {
            self.known.learn(block, unshared(&self.name));
            self.own(block);
            self.claims.settled();
        }
    }

    /// What was published for endpoints that nobody here knows, as after the journal was lost, has not rested yet.
    fn published_listed(&mut self, entries: &[Entry], now: Instant) {
        for published in
            entries.iter().filter_map(|entry| store::decode::<WorkloadEndpoint>(&entry.key, &entry.value).ok())
        {
            let withheld = self.allocator.withhold(&published, now);
            self.journal.extend(withheld);
        }
        self.publications.listed(entries, &self.allocator);
    }

    fn claim_answered(&mut self, block: Prefix, outcome: ClaimOutcome) {
        let shown = self.known.entries().contains_key(&block);
        self.confirmations.found(&block);
        match outcome {
            ClaimOutcome::Claimed => self.claims.claimed(block, shown),
            ClaimOutcome::Taken(Claim { owner, .. }) if owner.as_ref() == Some(&self.name) => {
                self.claims.claimed(block, shown);
            }
            ClaimOutcome::Taken(claim) => {
                self.claims.settled();
                if let Some(owner) = &claim.owner {
                    // This answer is newer than whatever the watch has shown of the block.
                    self.lose(&block, format!("node {owner}"));
                }
                self.known.learn(block, claim);
                self.judge(&block);
            }
            ClaimOutcome::Vanished => self.claims.settled(),
        }
    }

    // Errors.

    fn count(&self, pool: &Pool) -> PoolCount {
        let own = self.allocator.blocks().keys().filter(|block| pool.cidr.covers(block));
        let counts: Vec<_> = own.map(|block| self.allocator.count(block)).collect();
        PoolCount {
            pool: pool.name.clone(),
            blocks: counts.len(),
            addresses: counts.iter().map(|count| count.addresses).sum(),
            in_use: counts.iter().map(|count| count.in_use).sum(),
            resting: counts.iter().map(|count| count.resting).sum(),
        }
    }

    fn obstacle(&self, family: Family) -> Option<String> {
        if !self.known.is_known() {
            return Some("the datastore has not answered since the agent started".to_owned());
        }
        let doubted = self.doubted_blocks().into_iter().find(|block| block.family() == family);
        let doubt = doubted.map(|block| format!("whether {block} is this node's is being found out"));
        doubt.or_else(|| self.claims.obstacle(family))
    }
}

/// The pools out of which this node may give addresses.
fn open(pools: &Mirror<ResourceName, Pool>) -> Vec<&Pool> {
    pools.entries().values().filter(|pool| pool.is_open() && pool.check().is_ok()).collect()
}

/// A claim of a node without a shared store, which no store has given a version.
fn unshared(node: &NodeName) -> Claim {
    Claim { owner: Some(node.clone()), created: Version::new(0) }
}

#[cfg(test)]
mod tests;
