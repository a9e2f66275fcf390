//! Whether the store and this node agree on whose its blocks are, and what it does where they do not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use types::Prefix;
use types::ownership::{Standing, overlapping, standing};

use super::Node;
use crate::ReserveError;
use crate::fence::{Reading, Unconfirmed};
use crate::messages::{Event, Job};
use crate::plan::claims::Claim;
use crate::plan::confirmations::Shown;
use crate::view::{self, Stray};

impl Node {
    /// What the clocks say. To be told before anything is asked that they matter for.
    pub(crate) fn clocks(&mut self, reading: Option<Reading>) {
        self.confirmations.clocks(reading);
        // A node that has just started is about to ask the store; until then there is nothing to say.
        let fenced = self.fenced().filter(|_| self.is_fenced || self.confirmations.has_failed());
        if fenced.is_some() != self.is_fenced {
            self.is_fenced = fenced.is_some();
            self.events.push(fenced.map_or(Event::Confirmed, |(why, limit)| Event::Fenced(why, limit)));
        }
    }

    /// How far the store and this node agree.
    pub(crate) fn standing(&self) -> view::Standing {
        let own = self.allocator.blocks();
        let owner = |address: &IpAddr| {
            let known = self.known.entries();
            let owner =
                overlapping(known, &Prefix::host(*address)).find_map(|(block, _)| match standing(known, block) {
                    Standing::Owned(owner) => Some(owner.clone()),
                    Standing::Absent | Standing::Unreadable | Standing::Overlapped { .. } => None,
                });
            owner.filter(|owner| *owner != self.name)
        };
        let strays = self.allocator.all_committed().flat_map(|endpoint| {
            let outside =
                endpoint.addresses.iter().filter(|address| !own.keys().any(|block| block.contains(**address)));
            outside.map(|address| Stray { pod: endpoint.pod.clone(), address: *address, owner: owner(address) })
        });
        view::Standing {
            confirmed: self.confirmations.age(),
            answers: !self.confirmations.has_failed(),
            fenced: self.fenced().map(|(why, limit)| ReserveError::Unconfirmed { why, limit }.to_string()),
            strays: strays.collect(),
        }
    }

    /// Why no addresses are given out, if so, and for how long a confirmation counts. Without a block there is nothing to
    /// be confirmed.
    pub(super) fn fenced(&self) -> Option<(Unconfirmed, Duration)> {
        self.confirmations.refuses().filter(|_| !self.allocator.blocks().is_empty())
    }

    /// Own blocks that may be another's by now: the store has forgotten them, or says something else than its watch.
    pub(super) fn doubted_blocks(&self) -> BTreeSet<Prefix> {
        let (known, doubted) = (&self.known, self.confirmations.doubted());
        let is_forgotten = |block: &Prefix| known.is_known() && !known.entries().contains_key(block);
        let own = self.allocator.blocks().keys();
        own.filter(|block| doubted.contains(block) || is_forgotten(block)).copied().collect()
    }

    pub(super) fn begin_confirmation(&mut self, now: Instant) -> Option<Job> {
        if !self.is_anything_to_confirm() || !self.confirmations.begin(now) {
            return None;
        }
        let blocks = self.allocator.blocks().keys().chain(self.confirmations.doubted());
        Some(Job::Confirm(blocks.copied().collect::<BTreeSet<_>>().into_iter().collect()))
    }

    pub(super) fn confirmation_deadline(&self) -> Option<Instant> {
        self.confirmations.deadline().filter(|_| self.is_anything_to_confirm())
    }

    /// Whether there is a block to ask about, and the claims of all nodes to compare the answer with.
    fn is_anything_to_confirm(&self) -> bool {
        let is_there = !self.allocator.blocks().is_empty() || !self.confirmations.doubted().is_empty();
        self.known.is_known() && is_there
    }

    pub(super) fn confirmation_answered(&mut self, shown: Shown, now: Instant) {
        let agrees = shown.claims.into_iter().fold(true, |agrees, (block, claim)| self.compare(block, claim) && agrees);
        if agrees && !shown.is_gone {
            let row = self.confirmations.agreed(now);
            self.journal.extend(row);
        } else {
            self.confirmations.failed(now);
        }
    }

    /// Takes in what the store says of one block; whether the watch has shown the same, and the block is not missing.
    fn compare(&mut self, block: Prefix, claim: Option<Claim>) -> bool {
        let is_own = self.allocator.blocks().contains_key(&block);
        if claim.is_none() && is_own {
            self.doubt(block);
            self.confirmations.miss(block);
            return false;
        }
        let agrees = self.known.entries().get(&block) == claim.as_ref();
        if let Some(owner) = claim.and_then(|claim| claim.owner).filter(|owner| *owner != self.name) {
            self.lose(&block, format!("node {owner}"));
        }
        self.confirmations.found(&block);
        if agrees {
            self.confirmations.trust(&block);
            if !is_own {
                self.judge(&block);
            }
        } else {
            self.doubt(block);
        }
        agrees
    }

    /// The store has refused to publish: one of the claims is not as the watch has shown it.
    pub(super) fn publication_refuted(&mut self, now: Instant) {
        let blocks = self.publications.refuted(now);
        if !blocks.is_empty() {
            self.confirmations.hurry(now);
        }
        blocks.into_iter().for_each(|block| self.doubt(block));
    }

    fn doubt(&mut self, block: Prefix) {
        if self.confirmations.doubt(block) {
            self.events.push(Event::Doubted(block));
        }
    }

    pub(super) fn begin_publication(&mut self, now: Instant) -> Option<Job> {
        let (known, allocator, doubted) = (self.known.entries(), &self.allocator, self.confirmations.doubted());
        let claim = |address: &IpAddr| {
            let block = allocator.blocks().keys().find(|block| block.contains(*address) && !doubted.contains(block))?;
            known.get(block).map(|claim| (*block, claim.created))
        };
        self.publications.begin(allocator, claim, now).map(Job::Publication)
    }
}

#[cfg(test)]
mod tests;
