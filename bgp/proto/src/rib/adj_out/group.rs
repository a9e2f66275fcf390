//! Peers that are told the same, and the log of what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use types::{Prefix, RouterId};

use super::log::Log;
use super::member::Member;
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::rib::adj_in::PeerIndex;
use crate::rib::attrs::{AttrId, AttributeSets};
use crate::rib::decision::Source;
use crate::rib::loc::{Best, Change, Network, PrefixTable};
use crate::wire::{Message, Packed, Packer, frame_length};

/// A run of messages in the log ends at about this many octets, so that a slow peer's budget is not exceeded by much.
const OCTETS_PER_RUN: usize = 32 * 1024;

/// Once this many prefixes have been noted, they are encoded without waiting for the end of the round.
const PREFIXES_NOTED_AT_MOST: usize = 64 * 1024;

/// How many prefixes are encoded at a time, and walked at a time for one peer alone.
const PREFIXES_PER_CHUNK: usize = 4_096;

/// What encoding needs to look up.
pub(crate) struct View<'a> {
    pub(crate) attributes: &'a AttributeSets,
    pub(crate) import: &'a ImportPolicy,
    /// The BGP Identifier of a peer, while it is known.
    pub(crate) router_id: &'a dyn Fn(PeerIndex) -> Option<RouterId>,
}

/// What two routes have in common when they are told alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    attrs: AttrId,
    source: Source,
    /// The peer's BGP Identifier, where the route is reflected and names no originator yet (RFC 4456 section 8).
    originator: Option<RouterId>,
}

/// Peers with the same [`ExportPolicy`], one family.
#[derive(Debug)]
pub(crate) struct UpdateGroup {
    /// What the members have in common.
    policy: ExportPolicy,
    /// The peers, each with what it has read and has yet to be told.
    members: BTreeMap<PeerIndex, Member>,
    /// What all members are told, encoded once.
    log: Log,
    /// How many members have not read the whole log.
    behind: usize,
    /// Encodes messages; it holds none between calls.
    packer: Packer,
    /// What this round announces.
    announced: Vec<(Told, Prefix)>,
    /// What this round withdraws.
    withdrawn: Vec<Prefix>,
    /// Whether the log has grown since the last round was closed.
    grown: bool,
    /// How many routes were not told because no message has room for them (RFC 4271 section 9.2).
    too_long: u64,
}

impl UpdateGroup {
    pub(crate) fn new(policy: ExportPolicy) -> Self {
        Self {
            packer: Packer::new(policy.codec),
            policy,
            members: BTreeMap::new(),
            log: Log::default(),
            behind: 0,
            announced: Vec::new(),
            withdrawn: Vec::new(),
            grown: false,
            too_long: 0,
        }
    }

    pub(crate) const fn policy(&self) -> &ExportPolicy {
        &self.policy
    }

    /// The peers, in the order of their places.
    pub(crate) fn members(&self) -> impl Iterator<Item = PeerIndex> {
        self.members.keys().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Routes that were not told because no message has room for their attributes (RFC 4271 section 9.2).
    pub(crate) const fn too_long(&self) -> u64 {
        self.too_long
    }

    /// A peer joins. It is sent the whole table, then follows the log.
    pub(crate) fn join(&mut self, peer: PeerIndex, owes_end_of_rib: bool) {
        self.leave(peer);
        self.members.insert(peer, Member::new(self.log.head(), owes_end_of_rib));
    }

    /// A peer wants the whole table again (RFC 2918 section 4).
    pub(crate) fn refresh(&mut self, peer: PeerIndex) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.walk = Some(0);
        }
    }

    /// The prefixes of which a peer has not been told what the others have: they may be withdrawn. In ascending order.
    pub(crate) fn untold(&self, peer: PeerIndex) -> Vec<Prefix> {
        let Some(member) = self.members.get(&peer) else { return Vec::new() };
        let unread = self.log.since(member.cursor).flat_map(|run| prefixes_of(run, &self.policy));
        let mut untold: Vec<_> = unread.chain(member.missed()).collect();
        untold.sort_unstable();
        untold.dedup();
        untold
    }

    /// The peer is told what holds for these prefixes, in ascending order, before its walk of the table goes on.
    pub(crate) fn miss(&mut self, peer: PeerIndex, prefixes: Vec<Prefix>) {
        if let Some(member) = self.members.get_mut(&peer)
            && !prefixes.is_empty()
        {
            member.miss(&prefixes.into());
        }
    }

    pub(crate) fn leave(&mut self, peer: PeerIndex) {
        if let Some(member) = self.members.remove(&peer)
            && member.cursor < self.log.head()
        {
            self.behind -= 1;
            self.trim();
        }
    }

    /// Notes what a change means for the peers.
    pub(crate) fn note(&mut self, change: &Change, view: &View<'_>) {
        if self.members.is_empty() {
            return;
        }
        let (old, new) = change.best;
        let old = old.and_then(|best| self.told(&change.prefix, best, view));
        let new = new.and_then(|best| self.told(&change.prefix, best, view));
        match new {
            Some(told) if old != new => self.announced.push((told, change.prefix)),
            None if old.is_some() => self.withdrawn.push(change.prefix),
            Some(_) | None => {}
        }
        if self.announced.len() + self.withdrawn.len() >= PREFIXES_NOTED_AT_MOST {
            self.encode(view);
        }
    }

    /// Notes that policy admits a prefix from now on, or no longer.
    pub(crate) fn note_admission(&mut self, prefix: Prefix, best: Best, before: &View<'_>, after: &View<'_>) {
        if self.members.is_empty() {
            return;
        }
        match (self.told(&prefix, best, before), self.told(&prefix, best, after)) {
            (None, Some(told)) => self.announced.push((told, prefix)),
            (Some(_), None) => self.withdrawn.push(prefix),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Whether [`UpdateGroup::close_round`] has something to do.
    pub(crate) const fn has_notes(&self) -> bool {
        !self.announced.is_empty() || !self.withdrawn.is_empty()
    }

    /// Appends what was noted to the log, which holds no more than `log_limit` octets. Returns whether there was anything.
    pub(crate) fn close_round(&mut self, view: &View<'_>, log_limit: usize) -> bool {
        self.encode(view);
        let grown = std::mem::take(&mut self.grown);
        if grown {
            self.cut_loose(log_limit);
        }
        grown
    }

    fn encode(&mut self, view: &View<'_>) {
        let runs = self.pack(view);
        if !runs.is_empty() {
            self.behind = self.members.len();
            self.grown = true;
        }
        for run in runs {
            self.log.append(run);
        }
    }

    /// Encodes what was noted, each attribute set once.
    fn pack(&mut self, view: &View<'_>) -> Vec<Packed> {
        let mut runs = Vec::new();
        let mut size = 0;
        let mut withdrawn = std::mem::take(&mut self.withdrawn);
        let mut announced = std::mem::take(&mut self.announced);
        announced.sort_by_key(|(told, _)| *told);
        for same in announced.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((told, _)) = same.first() else { continue };
            let Some(route) = view.attributes.value(told.attrs) else { continue };
            let (path, next_hop) = self.policy.rewrite(told.source, route, told.originator);
            for part in same.chunks(PREFIXES_PER_CHUNK) {
                let prefixes = part.iter().map(|(_, prefix)| *prefix);
                if self.packer.reach(next_hop, None, &path, prefixes.clone()).is_err() {
                    self.too_long += part.len() as u64;
                    withdrawn.extend(prefixes);
                }
                // An estimate of the octets that were packed, of the right order for both families.
                size += 64 + part.len() * 8;
                if size >= OCTETS_PER_RUN {
                    runs.push(self.packer.take());
                    size = 0;
                }
            }
        }
        for part in withdrawn.chunks(PREFIXES_PER_CHUNK) {
            self.packer.withdraw(self.policy.family, part.iter().copied());
            runs.push(self.packer.take());
        }
        runs.push(self.packer.take());
        runs.retain(|run| run.messages > 0);
        announced.clear();
        withdrawn.clear();
        if announced.capacity() <= PREFIXES_PER_CHUNK {
            (self.announced, self.withdrawn) = (announced, withdrawn);
        }
        runs
    }

    /// What the peers are told of a route; nothing where policy keeps it from them.
    fn told(&self, prefix: &Prefix, best: Best, view: &View<'_>) -> Option<Told> {
        let route = view.attributes.value(best.attrs)?;
        if !self.policy.admits(prefix, best.source, route, view.import) {
            return None;
        }
        let reflected = !self.policy.is_own_routes_only() && best.source != Source::Local;
        let originator =
            if reflected && route.path.originator_id.is_none() { (view.router_id)(best.peer) } else { None };
        Some(Told { attrs: best.attrs, source: best.source, originator })
    }

    /// What a peer is to be sent next: the log first, then what it has missed, then its walk of the table, and at its end
    /// End-of-RIB once `may_end`. Returns the number of messages.
    pub(crate) fn transmit<N: Network>(
        &mut self,
        peer: PeerIndex,
        table: &PrefixTable<N>,
        view: &View<'_>,
        may_end: bool,
        out: &mut Vec<Bytes>,
        budget: &mut usize,
    ) -> u64 {
        let head = self.log.head();
        let Some(member) = self.members.get_mut(&peer) else { return 0 };
        let was_behind = member.cursor < head;
        let mut messages = self.log.read(&mut member.cursor, out, budget);
        let is_behind = member.cursor < head;
        if was_behind && !is_behind {
            self.behind -= 1;
            if self.behind == 0 {
                self.log.trim(head);
            }
        }
        while !is_behind && *budget > 0 {
            let Some(runs) = self.catch_up(peer, table, view, may_end) else { break };
            for run in runs {
                *budget = budget.saturating_sub(run.octets.len());
                messages += run.messages as u64;
                out.push(run.octets);
            }
        }
        messages
    }

    /// The next piece of what is sent to one peer alone; nothing where there is none left.
    fn catch_up<N: Network>(
        &mut self,
        peer: PeerIndex,
        table: &PrefixTable<N>,
        view: &View<'_>,
        may_end: bool,
    ) -> Option<Vec<Packed>> {
        let member = self.members.get_mut(&peer)?;
        let missed = member.next_missed(PREFIXES_PER_CHUNK);
        if !missed.is_empty() {
            for prefix in missed {
                match table.best(prefix).and_then(|best| self.told(&prefix, best, view)) {
                    Some(told) => self.announced.push((told, prefix)),
                    None => self.withdrawn.push(prefix),
                }
            }
            return Some(self.pack(view));
        }
        if let Some(from) = member.walk {
            let mut found = Vec::new();
            member.walk = table.walk(from, PREFIXES_PER_CHUNK, |prefix, best| found.push((prefix, best)));
            for (prefix, best) in found {
                if let Some(told) = self.told(&prefix, best, view) {
                    self.announced.push((told, prefix));
                }
            }
            return Some(self.pack(view));
        }
        if member.owes_end_of_rib && may_end {
            member.owes_end_of_rib = false;
            self.packer.end_of_rib(self.policy.family);
            return Some(vec![self.packer.take()]);
        }
        None
    }

    /// Drops what every member has read.
    fn trim(&mut self) {
        let slowest = self.members.values().map(|member| member.cursor).min();
        self.log.trim(slowest.unwrap_or_else(|| self.log.head()));
    }

    /// Keeps the log within its limit: members too far behind are noted to have missed what is dropped, and are told the
    /// state of those prefixes later instead of their history.
    fn cut_loose(&mut self, limit: usize) {
        if self.log.bytes() <= limit {
            return;
        }
        self.trim();
        let cut = self.log.cut_for(limit);
        if cut == self.log.tail() {
            return;
        }
        let mut missed: Vec<Prefix> = Vec::new();
        for run in self.log.until(cut) {
            missed.extend(prefixes_of(run, &self.policy));
        }
        missed.sort_unstable();
        missed.dedup();
        let missed: Arc<[Prefix]> = missed.into();
        for member in self.members.values_mut().filter(|member| member.cursor < cut) {
            member.cursor = cut;
            member.miss(&missed);
        }
        self.log.trim(cut);
        let head = self.log.head();
        self.behind = self.members.values().filter(|member| member.cursor < head).count();
    }
}

/// The prefixes that a run of our own messages speaks of.
fn prefixes_of(run: &Packed, policy: &ExportPolicy) -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    let mut rest = run.octets.clone();
    while let Ok(Some(length)) = frame_length(&rest) {
        if length > rest.len() {
            break;
        }
        let message = rest.split_to(length);
        if let Ok(Message::Update(update)) = policy.codec.decode(&message) {
            prefixes.extend(update.withdrawn);
            prefixes.extend(update.reach.into_iter().flat_map(|reach| reach.prefixes));
        }
    }
    prefixes
}
