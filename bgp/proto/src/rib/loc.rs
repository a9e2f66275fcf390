//! Loc-RIB: the table of one family. It finds prefixes, holds their paths, and tells what has become of those that were
//! touched since the last time it was asked.
//!
//! A prefix is in a trie, for look-ups and ordered listings, and in a slot, whose number is the walk order of peers that
//! join (a walk by slot survives any change of the table, and what changes behind it is in the update group's log).
//!
//! Changes are not decided at once: a touched slot is noted together with what was published of it, and
//! [`PrefixTable::settle`] decides once per round, however often the prefix changed in between.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use prefix_trie::PrefixMap;
use types::Prefix;

use super::adj_in::{Admission, Path, Paths, PeerIndex};
use super::attrs::{AttrId, AttributeSets};
use super::decision::{self, Candidate, Source};
use super::next_hop::NextHopId;

/// A prefix of one family, as compact as the family allows.
pub(crate) trait Network: prefix_trie::Prefix + Copy + Eq + Hash + std::fmt::Debug {
    /// The same, of any family.
    fn prefix(self) -> Prefix;
    /// The same; nothing for a prefix of the other family.
    fn of(prefix: Prefix) -> Option<Self>;
}

impl Network for Ipv4Network {
    fn prefix(self) -> Prefix {
        Prefix::from(IpNetwork::V4(self))
    }

    fn of(prefix: Prefix) -> Option<Self> {
        match prefix.network() {
            IpNetwork::V4(network) => Some(network),
            IpNetwork::V6(_) => None,
        }
    }
}

impl Network for Ipv6Network {
    fn prefix(self) -> Prefix {
        Prefix::from(IpNetwork::V6(self))
    }

    fn of(prefix: Prefix) -> Option<Self> {
        match prefix.network() {
            IpNetwork::V6(network) => Some(network),
            IpNetwork::V4(_) => None,
        }
    }
}

/// What a table needs to know of the peers.
pub(crate) trait Peers {
    /// The candidate that a path is, given its attributes.
    fn candidate(&self, path: &Path, attributes: &AttributeSets) -> Candidate;
}

/// The best route to a prefix, as peers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Best {
    /// Its attributes and next hop.
    pub(crate) attrs: AttrId,
    /// Who offers it.
    pub(crate) peer: PeerIndex,
    /// What kind of peer that is.
    pub(crate) source: Source,
}

/// What became of one touched prefix.
#[derive(Debug)]
pub(crate) struct Change {
    /// The prefix.
    pub(crate) prefix: Prefix,
    /// The best route before, and now.
    pub(crate) best: (Option<Best>, Option<Best>),
    /// The next hops that packets take from now on, ascending; nothing where they are the same as before.
    pub(crate) next_hops: Option<Vec<IpAddr>>,
}

/// All prefixes of one family.
#[derive(Debug)]
pub(crate) struct PrefixTable<N: Network> {
    /// The prefixes with their paths; a free slot has no paths and is not in `by_prefix`.
    slots: Vec<Slot<N>>,
    /// The numbers of free slots, to be used again.
    free: Vec<u32>,
    /// The number of each prefix's slot.
    by_prefix: PrefixMap<N, u32>,
    /// The slots that have changed since the last [`PrefixTable::settle`].
    touched: Vec<Touched>,
}

/// A prefix and the paths to it.
#[derive(Debug)]
struct Slot<N> {
    prefix: N,
    /// How many of the first paths packets use, the best among them first; 0 where no route is usable.
    used: u8,
    /// Whether the slot is among the touched ones.
    touched: bool,
    /// Empty in a free slot.
    paths: Paths,
}

/// A slot that has changed since the last round, and what was published of it.
#[derive(Debug)]
struct Touched {
    slot: u32,
    /// Its attributes bear a reference of their own.
    best: Option<Best>,
    next_hops: Vec<IpAddr>,
}

impl<N: Network> Default for PrefixTable<N> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_prefix: PrefixMap::new(), touched: Vec::new() }
    }
}

impl<N: Network> PrefixTable<N> {
    /// Takes in a route, whose reference to its attributes is handed over. Returns the route that it replaces, with its
    /// reference.
    pub(crate) fn announce(&mut self, prefix: Prefix, path: Path, attributes: &mut AttributeSets) -> Option<Path> {
        let id = self.slot_of(N::of(prefix)?);
        self.touch(id, attributes);
        self.slots.get_mut(id as usize)?.paths.insert(path)
    }

    /// Takes a peer's route out and returns it, with its reference.
    pub(crate) fn withdraw(&mut self, prefix: Prefix, peer: PeerIndex, attributes: &mut AttributeSets) -> Option<Path> {
        let id = *self.by_prefix.get(&N::of(prefix)?)?;
        if !self.slots.get(id as usize)?.paths.as_slice().iter().any(|path| path.peer == peer) {
            return None;
        }
        self.touch(id, attributes);
        let mut removed = None;
        self.slots.get_mut(id as usize)?.paths.remove(|path| path.peer == peer, |path| removed = Some(path));
        removed
    }

    /// Takes out all paths that `goes` names, and hands them over with their references.
    pub(crate) fn sweep(
        &mut self,
        attributes: &mut AttributeSets,
        goes: impl Fn(&Path) -> bool,
        mut removed: impl FnMut(Path),
    ) {
        for id in self.ids() {
            if self.paths(id).iter().any(&goes) {
                self.touch(id, attributes);
                if let Some(slot) = self.slots.get_mut(id as usize) {
                    slot.paths.remove(&goes, &mut removed);
                }
            }
        }
    }

    /// Judges the paths of a slot anew. `changed` is told each path whose admission is another now, with the former one.
    pub(crate) fn revise(
        &mut self,
        id: u32,
        attributes: &mut AttributeSets,
        mut judge: impl FnMut(&Prefix, &Path, &AttributeSets) -> Admission,
        mut changed: impl FnMut(Prefix, &Path, Admission),
    ) {
        let Some(slot) = self.slots.get(id as usize) else { return };
        let prefix = slot.prefix.prefix();
        let judged: Vec<Admission> =
            slot.paths.as_slice().iter().map(|path| judge(&prefix, path, attributes)).collect();
        if slot.paths.as_slice().iter().zip(&judged).all(|(path, admission)| path.admission() == *admission) {
            return;
        }
        self.touch(id, attributes);
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        for (path, admission) in slot.paths.as_mut_slice().iter_mut().zip(judged) {
            let before = path.admission();
            if before != admission {
                path.set_admission(admission);
                changed(prefix, path, before);
            }
        }
    }

    /// The slots of a prefix and of those within it.
    pub(crate) fn ids_within(&self, prefix: Prefix) -> Vec<u32> {
        let Some(within) = N::of(prefix) else { return Vec::new() };
        self.by_prefix.children(&within).map(|(_, id)| *id).collect()
    }

    /// Whether this peer's route to the prefix may be used; none where it has none.
    pub(crate) fn admission(&self, prefix: Prefix, peer: PeerIndex) -> Option<Admission> {
        let id = *self.by_prefix.get(&N::of(prefix)?)?;
        self.paths(id).iter().find(|path| path.peer == peer).map(Path::admission)
    }

    /// Touches every prefix with a route through one of these next hops.
    pub(crate) fn touch_next_hops(&mut self, changed: &HashSet<NextHopId>, attributes: &mut AttributeSets) {
        for id in self.ids() {
            let concerned = |path: &Path| attributes.next_hop_id(path.attrs).is_some_and(|id| changed.contains(&id));
            if self.paths(id).iter().any(concerned) {
                self.touch(id, attributes);
            }
        }
    }

    /// Touches every prefix that a peer offers, as something that the decision looks at has changed with the peer.
    pub(crate) fn touch_peer(&mut self, peer: PeerIndex, attributes: &mut AttributeSets) {
        for id in self.ids() {
            if self.paths(id).iter().any(|path| path.peer == peer) {
                self.touch(id, attributes);
            }
        }
    }

    /// Decides every touched prefix, tells `sink` what has changed, and forgets prefixes without a path. References held
    /// for what was published are given back after the sink has seen the change.
    pub(crate) fn settle(
        &mut self,
        attributes: &mut AttributeSets,
        peers: &impl Peers,
        mut sink: impl FnMut(&AttributeSets, Change),
    ) {
        for touched in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(touched.slot as usize) else { continue };
            slot.touched = false;
            slot.decide(attributes, peers);
            let best = slot.best();
            let next_hops = slot.next_hops(attributes);
            let next_hops = (next_hops != touched.next_hops).then_some(next_hops);
            if best != touched.best || next_hops.is_some() {
                sink(attributes, Change { prefix: slot.prefix.prefix(), best: (touched.best, best), next_hops });
            }
            if let Some(best) = touched.best {
                attributes.release(best.attrs);
            }
            if slot.paths.as_slice().is_empty() {
                self.by_prefix.remove(&slot.prefix);
                self.free.push(touched.slot);
            }
        }
    }

    /// Whether [`PrefixTable::settle`] has something to do.
    pub(crate) const fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The number of prefixes.
    pub(crate) fn len(&self) -> usize {
        self.by_prefix.len()
    }

    /// The best route to a prefix as of the last [`PrefixTable::settle`].
    pub(crate) fn best(&self, prefix: Prefix) -> Option<Best> {
        self.slots.get(*self.by_prefix.get(&N::of(prefix)?)? as usize)?.best()
    }

    /// The prefixes with a best route from slot `from` on, up to `count` slots; the slot to go on with, nothing at the
    /// end.
    pub(crate) fn walk(&self, from: u32, count: usize, mut each: impl FnMut(Prefix, Best)) -> Option<u32> {
        let start = (from as usize).min(self.slots.len());
        let end = start.saturating_add(count).min(self.slots.len());
        for slot in self.slots.get(start..end).unwrap_or_default() {
            if let Some(best) = slot.best() {
                each(slot.prefix.prefix(), best);
            }
        }
        if end == self.slots.len() { None } else { u32::try_from(end).ok() }
    }

    /// The prefixes that have a best route, as it is published.
    pub(crate) fn each_published(&self, mut each: impl FnMut(Prefix, Best)) {
        self.walk(0, self.slots.len(), &mut each);
    }

    /// The prefixes and their paths, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Prefix, &[Path])> {
        self.found(self.by_prefix.iter())
    }

    /// The prefixes within another, itself included, and their paths, in ascending order.
    pub(crate) fn within(&self, within: N) -> impl Iterator<Item = (Prefix, &[Path])> {
        self.found(self.by_prefix.children(&within))
    }

    fn found<'a>(&'a self, ids: impl Iterator<Item = (N, &'a u32)>) -> impl Iterator<Item = (Prefix, &'a [Path])> {
        ids.filter_map(|(_, id)| self.slots.get(*id as usize)).map(|slot| (slot.prefix.prefix(), slot.paths.as_slice()))
    }

    /// All slots.
    pub(crate) fn ids(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn paths(&self, id: u32) -> &[Path] {
        self.slots.get(id as usize).map_or(&[], |slot| slot.paths.as_slice())
    }

    /// The slot of a prefix, a new one where it has none.
    fn slot_of(&mut self, prefix: N) -> u32 {
        if let Some(id) = self.by_prefix.get(&prefix) {
            return *id;
        }
        let slot = Slot { prefix, used: 0, touched: false, paths: Paths::None };
        let id = self.free.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        match self.slots.get_mut(id as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.by_prefix.insert(prefix, id);
        id
    }

    /// Notes what is published of the slot before its first change in this round.
    fn touch(&mut self, id: u32, attributes: &mut AttributeSets) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if slot.touched {
            return;
        }
        slot.touched = true;
        let best = slot.best();
        let next_hops = slot.next_hops(attributes);
        if let Some(best) = best {
            attributes.retain(best.attrs);
        }
        self.touched.push(Touched { slot: id, best, next_hops });
    }
}

impl<N> Slot<N> {
    fn best(&self) -> Option<Best> {
        let path = self.paths.as_slice().first().filter(|_| self.used > 0)?;
        Some(Best { attrs: path.attrs, peer: path.peer, source: path.source })
    }

    /// The addresses of the next hops in use, ascending, each once. None for a prefix of our own.
    fn next_hops(&self, attributes: &AttributeSets) -> Vec<IpAddr> {
        let used = self.paths.as_slice().iter().take(usize::from(self.used));
        let mut next_hops: Vec<_> = used.filter_map(|path| attributes.next_hop(path.attrs)).collect();
        next_hops.sort_unstable();
        next_hops.dedup();
        next_hops
    }

    /// Puts the best path first and those that share the load with it behind it.
    fn decide(&mut self, attributes: &AttributeSets, peers: &impl Peers) {
        let paths = self.paths.as_mut_slice();
        if let [path] = paths {
            self.used = u8::from(peers.candidate(path, attributes).excluded.is_none());
            return;
        }
        let candidates: Vec<_> = paths.iter().map(|path| peers.candidate(path, attributes)).collect();
        let mut judged: Vec<_> =
            decision::decide(&candidates).into_iter().zip(candidates).zip(paths.iter().copied()).collect();
        judged.sort_by_key(|((verdict, candidate), _)| (verdict.rank(), candidate.tie_break()));
        let used = judged.iter().filter(|((verdict, _), _)| verdict.is_used()).count();
        self.used = u8::try_from(used).unwrap_or(u8::MAX);
        for (place, (_, path)) in paths.iter_mut().zip(judged) {
            *place = path;
        }
    }
}

#[cfg(test)]
mod tests;
