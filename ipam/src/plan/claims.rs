//! Which blocks to claim.
//!
//! A claim is `blocks/CIDR`, written if absent; that compare-and-swap on one key decides who owns a block. Two claims may
//! overlap all the same, when pools are cut anew while nodes claim: then the older one counts, and the younger one's owner
//! takes it back. A node uses a block once its watch has shown the claim, because by then it has seen every older one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use store::{Check, DecodeError, Entry, Key, Version, Write, keys};
use types::ownership::{Standing, standing};
use types::{BlockClaim, Family, NodeName, Prefix, Update};

use crate::Pool;
use crate::allocator::{Allocator, families};
use crate::plan::Retry;
use crate::pool::seed;

/// A claim as the store shows it.
pub(crate) type Claim = types::ownership::Claim<Version>;

/// The owner of a block, as far as claims tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This node's.
    Ours,
    /// The block is another node's.
    Theirs(NodeName),
    /// Claimed by this node, but an older claim overlaps it.
    Overlapped(Prefix),
    /// The block is nobody's.
    Unclaimed,
    /// The claim cannot be read, so nobody can tell whose the block is.
    Unreadable,
}

/// The next thing to do about claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    /// Claim this block.
    Claim(Prefix),
    /// Take back the claim that was made at this version.
    Withdraw(Prefix, Version),
}

/// How a claim went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimOutcome {
    /// The claim was written.
    Claimed,
    /// There was a claim already, and this is it.
    Taken(Claim),
    /// There was a claim, but it has gone since.
    Vanished,
}

/// The claims of this node that are under way. One at a time: more are seldom needed, and each shows what is left.
#[derive(Debug)]
pub(crate) struct Claims {
    /// This node.
    node: NodeName,
    /// The request that is under way.
    under_way: Option<UnderWay>,
    /// The pause after a failure.
    retry: Retry,
    /// What the last failure was, until something succeeds.
    failure: Option<String>,
    /// Families of whose pools every block is claimed, as of the last look.
    full: BTreeSet<Family>,
}

#[derive(Debug, PartialEq, Eq)]
enum UnderWay {
    /// The store has been asked.
    Asked,
    /// The store has taken the claim; the watch has not shown it yet.
    Unseen(Prefix),
}

/// The state that claims are planned from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// The pools that this node may use, by name.
    pub(crate) open: &'a [&'a Pool],
    /// All claims of all nodes.
    pub(crate) known: &'a BTreeMap<Prefix, Claim>,
    /// Claims of this node that the store has no longer, though the watch has not shown that yet.
    pub(crate) missing: &'a BTreeSet<Prefix>,
    /// Own claims that older ones overlap, and when they were made.
    pub(crate) overlapped: &'a BTreeMap<Prefix, Version>,
    /// Families of which another block is needed, whatever is free in those that there are.
    pub(crate) cramped: &'a BTreeSet<Family>,
    /// The blocks that this node owns, and what is free in them.
    pub(crate) allocator: &'a Allocator,
}

impl Claims {
    pub(crate) fn new(node: NodeName) -> Self {
        let retry = Retry::new(seed(&node));
        Self { node, under_way: None, retry, failure: None, full: BTreeSet::new() }
    }

    /// What to do now, if anything; it counts as begun.
    pub(crate) fn begin(&mut self, situation: Situation<'_>, now: Instant) -> Option<ClaimStep> {
        if self.under_way.is_some() || !self.retry.is_due(now) {
            return None;
        }
        let step = self.next(situation)?;
        self.under_way = Some(UnderWay::Asked);
        Some(step)
    }

    /// Takes back what an older claim overlaps, claims again what the store has forgotten, claims ahead of need.
    fn next(&mut self, situation: Situation<'_>) -> Option<ClaimStep> {
        let Situation { open, known, missing, overlapped, cramped, allocator } = situation;
        if let Some((block, created)) = overlapped.first_key_value() {
            return Some(ClaimStep::Withdraw(*block, *created));
        }
        let is_forgotten = |block: &&Prefix| !known.contains_key(block) || missing.contains(block);
        if let Some(block) = allocator.blocks().keys().find(is_forgotten) {
            return Some(ClaimStep::Claim(*block));
        }
        let is_needed = |family: &Family| cramped.contains(family) || is_short(open, allocator, *family);
        for family in families(open).filter(is_needed) {
            // A search that finds no candidate has walked through the whole pool: it is not repeated before something changes.
            if self.full.contains(&family) {
                continue;
            }
            match candidate(&self.node, open, known, family) {
                Some(block) => return Some(ClaimStep::Claim(block)),
                None => drop(self.full.insert(family)),
            }
        }
        None
    }

    /// Pools or claims have changed: there may be candidates again.
    pub(crate) fn look_again(&mut self) {
        self.full.clear();
    }

    /// Whether every block of the family's pools was claimed at the last look.
    pub(crate) fn is_full(&self, family: Family) -> bool {
        self.full.contains(&family)
    }

    /// The store has answered a claim of `block`; `shown`: the watch shows it already.
    pub(crate) fn claimed(&mut self, block: Prefix, shown: bool) {
        self.under_way = if shown { None } else { Some(UnderWay::Unseen(block)) };
        self.retry.succeeded();
        self.failure = None;
    }

    /// The store has answered, and nothing is to be waited for.
    pub(crate) fn settled(&mut self) {
        self.under_way = None;
        self.retry.succeeded();
        self.failure = None;
    }

    /// The store has not answered, or refuses. If the claim was made all the same, the watch will show it.
    pub(crate) fn failed(&mut self, error: String, now: Instant) {
        self.under_way = None;
        self.retry.failed(now);
        self.failure = Some(error);
    }

    /// The watch has shown this block, or that it is not there.
    pub(crate) fn seen(&mut self, block: &Prefix) {
        if self.under_way == Some(UnderWay::Unseen(*block)) {
            self.under_way = None;
        }
    }

    /// The watch has listed everything: what it does not show is not to be waited for.
    pub(crate) fn listed(&mut self) {
        if let Some(UnderWay::Unseen(_)) = self.under_way {
            self.under_way = None;
        }
    }

    /// An ADD waits for an address: what was put off after a failure is tried at once.
    pub(crate) fn hurry(&mut self) {
        self.retry.hurry();
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        // While a job is under way, its answer decides when the next one begins.
        if self.under_way.is_some() { None } else { self.retry.deadline() }
    }

    /// Why there is no new block for a family, where something is in the way.
    pub(crate) fn obstacle(&self, family: Family) -> Option<String> {
        match (&self.failure, &self.under_way) {
            _ if self.is_full(family) => Some("every block of them is claimed".to_owned()),
            (Some(failure), _) => Some(failure.clone()),
            (None, Some(UnderWay::Unseen(block))) => Some(format!("the claim of {block} is not confirmed yet")),
            (None, _) => None,
        }
    }
}

/// The block to claim next for a family: the first pool by name that has one left.
fn candidate<V>(node: &NodeName, open: &[&Pool], known: &BTreeMap<Prefix, V>, family: Family) -> Option<Prefix> {
    open.iter().filter(|pool| pool.cidr.family() == family).find_map(|pool| pool.candidates(node, known).next())
}

/// Whether so little is free that another block is to be claimed: less than a quarter of a block, or than 8 addresses (of
/// blocks that are smaller: than one whole block).
fn is_short(open: &[&Pool], allocator: &Allocator, family: Family) -> bool {
    let of_family = open.iter().filter(|pool| pool.cidr.family() == family);
    let block = of_family.map(|pool| u64::from(pool.block_addresses())).max().unwrap_or(0);
    allocator.free(open, family) < (block / 4).max(block.min(8))
}

/// The owner of `block`, by all claims that are known.
pub(crate) fn verdict(node: &NodeName, known: &BTreeMap<Prefix, Claim>, block: &Prefix) -> Verdict {
    match standing(known, block) {
        Standing::Absent => Verdict::Unclaimed,
        Standing::Unreadable | Standing::Overlapped { owner: None, .. } => Verdict::Unreadable,
        Standing::Owned(owner) | Standing::Overlapped { owner: Some(owner), .. } if owner != node => {
            Verdict::Theirs(owner.clone())
        }
        Standing::Owned(_) => Verdict::Ours,
        Standing::Overlapped { by, .. } => Verdict::Overlapped(*by),
    }
}

/// The transaction that claims a block.
pub(crate) fn claim(block: &Prefix, node: &NodeName) -> (Vec<Check>, Vec<Write>) {
    let key = keys::block(block);
    let value = store::encode(&BlockClaim { owner: node.clone() });
    (vec![Check::absent(key.clone())], vec![Write::put(key, value)])
}

/// The transaction that takes a claim back.
pub(crate) fn withdrawal(block: &Prefix, created: Version) -> (Vec<Check>, Vec<Write>) {
    let key = keys::block(block);
    (vec![Check::created(key.clone(), created)], vec![Write::delete(key)])
}

/// An entry under `blocks/`, and what is wrong with it, if anything.
pub(crate) fn read_claim(entry: &Entry) -> (Claim, Option<DecodeError>) {
    let created = entry.created;
    match store::decode::<BlockClaim>(&entry.key, &entry.value) {
        Ok(claim) => (Claim { owner: Some(claim.owner), created }, None),
        Err(error) => (Claim { owner: None, created }, Some(error)),
    }
}

/// A report of the watch of `blocks/`, typed; none: about a key that is no block's. Also what is wrong with an entry.
pub(crate) fn read_update(update: Update<Key, Entry>) -> (Option<Update<Prefix, Claim>>, Option<DecodeError>) {
    let block = |key: &Key| match keys::subject(key) {
        Ok(keys::Subject::Block(block)) => Some(block),
        _ => None,
    };
    let mut wrong = None;
    let claim = |_: &Key, entry: Entry| {
        let (claim, error) = read_claim(&entry);
        wrong = error;
        claim
    };
    let update = update.map(|key| key, claim).filter_map(|key| block(&key));
    (update, wrong)
}
