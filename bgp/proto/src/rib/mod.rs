//! The tables: what peers offer, what is best, and what peers are told.
//!
//! ```text
//!            announce, withdraw, originate                 settle (once per round)
//!   peer ──────► paths of a prefix (adj_in) ──touched──► decision ──► Change ──┬──► FibUpdate
//!                      in PrefixTable (loc)                                    └──► UpdateGroup (adj_out) ──► octets
//! ```
//!
//! How much there is of each: one [`Rib`]; one [`PrefixTable`] per family; one slot of 32 octets (48 for IPv6) per prefix and one path of eight
//! per peer that offers it; one attribute set however many routes bear it; one update group per set of peers that are told
//! the same, whatever their number. There is nothing per peer and prefix besides the path.
//!
//! The tables know no session and no time.

mod adj_in;
mod adj_out;
mod admission;
mod attrs;
mod by_family;
mod decision;
mod intake;
mod loc;
mod next_hop;
mod sources;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use ipnetwork::{Ipv4Network, Ipv6Network};
use types::{Family, FibUpdate, NextHopState, NextHopWatch, Prefix, RouterId};

use crate::policy::{ExportPolicy, ImportPolicy};

pub(crate) use adj_in::PeerIndex;
use adj_in::{Admission, Path};
use adj_out::{UpdateGroup, View};
use admission::{Arrival, Rules};
use attrs::AttributeSets;
pub(crate) use attrs::{AttrId, RouteAttributes};
pub use by_family::ByFamily;
pub use decision::{DecisionStep, Excluded, MAXIMUM_PATHS, Source, Verdict};
pub(crate) use intake::Intake;
pub use intake::{LimitAction, RefusedSample};
use loc::PrefixTable;
pub use sources::RouteCounts;
use sources::Sources;
pub use view::{PathView, RouteView};

/// Runs `$do` on the table of a family.
macro_rules! with_table {
    ($tables:expr, $family:expr, $table:ident => $do:expr) => {
        match $family {
            Family::Ipv4 => {
                let $table = &mut $tables.ipv4;
                $do
            }
            Family::Ipv6 => {
                let $table = &mut $tables.ipv6;
                $do
            }
        }
    };
}

/// How many octets the log of an update group holds for slow peers.
const LOG_LIMIT_OCTETS: usize = 8 * 1024 * 1024;

/// All routes of a speaker.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    /// The attributes of all routes.
    attributes: AttributeSets,
    /// The routes, by family and prefix.
    tables: Tables,
    /// The peers that routes come from, and how many routes they offer.
    sources: Sources,
    /// What learned routes are judged by.
    rules: Rules,
    /// Peers that are to be asked for all their routes again.
    requests: BTreeSet<(PeerIndex, Family)>,
    /// What this speaker originates.
    originated: BTreeSet<Prefix>,
    /// The update groups; an empty place is reused.
    groups: Vec<Option<UpdateGroup>>,
    /// Routes of peers that go at the next [`Rib::sweep`].
    doomed: ByFamily<BTreeMap<PeerIndex, Extent>>,
    /// How many octets a log holds for slow peers: [`LOG_LIMIT_OCTETS`], but for tests.
    log_limit: usize,
}

/// The table of each family.
#[derive(Debug, Default)]
struct Tables {
    ipv4: PrefixTable<Ipv4Network>,
    ipv6: PrefixTable<Ipv6Network>,
}

/// An update group's place in [`Rib::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupId(usize);

/// Which routes of a peer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// Those that came over an earlier session.
    Stale,
    /// All.
    All,
}

impl Rib {
    pub(crate) fn new(import: ImportPolicy) -> Self {
        let rules = Rules { import, ..Rules::default() };
        Self { rules, log_limit: LOG_LIMIT_OCTETS, ..Self::default() }
    }

    // --- peers ---

    /// Makes a peer known, whose routes may then be announced.
    pub(crate) fn add_peer(&mut self, peer: PeerIndex, address: IpAddr) {
        self.sources.add(peer, address);
    }

    /// All routes of a peer go with the next [`Rib::sweep`].
    pub(crate) fn doom_peer(&mut self, peer: PeerIndex) {
        for family in Family::ALL {
            self.doom(peer, family, Extent::All);
        }
    }

    /// Forgets a peer, whose routes are gone and settled: its place may be given to another.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex) {
        self.sources.remove(peer);
    }

    /// A session of the peer is up: its BGP Identifier is known.
    pub(crate) fn set_router_id(&mut self, peer: PeerIndex, router_id: RouterId) {
        if self.sources.set_router_id(peer, router_id) {
            for family in Family::ALL {
                if self.counts(peer, family).received > 0 {
                    with_table!(self.tables, family, table => table.touch_peer(peer, &mut self.attributes));
                }
            }
        }
    }

    /// How many routes of the peer there are.
    pub(crate) fn counts(&self, peer: PeerIndex, family: Family) -> RouteCounts {
        self.sources.counts(peer, family)
    }

    // --- routes in ---

    /// Takes in routes of a peer with the same attributes.
    pub(crate) fn announce(
        &mut self,
        peer: PeerIndex,
        source: Source,
        attributes: RouteAttributes,
        prefixes: impl IntoIterator<Item = Prefix>,
    ) {
        let attrs = self.attributes.intern(attributes);
        for prefix in prefixes {
            let family = prefix.family();
            let Some(admission) = self.admit(peer, source, attrs, &prefix) else {
                self.take_out(peer, prefix);
                continue;
            };
            let generation = self.sources.generation(peer, family);
            let path = Path::new(peer, source, attrs, generation, admission);
            self.attributes.retain(attrs);
            let replaced = match family {
                Family::Ipv4 => self.tables.ipv4.announce(prefix, path, &mut self.attributes),
                Family::Ipv6 => self.tables.ipv6.announce(prefix, path, &mut self.attributes),
            };
            self.sources.added(&path, family);
            if let Some(replaced) = replaced {
                self.sources.removed(&replaced, family);
                self.attributes.release(replaced.attrs);
            }
        }
        self.attributes.collect(attrs);
    }

    /// What becomes of a route; nothing where it is refused and not kept.
    fn admit(&mut self, peer: PeerIndex, source: Source, attrs: AttrId, prefix: &Prefix) -> Option<Admission> {
        if source == Source::Local {
            return Some(Admission::default());
        }
        let Self { attributes, tables, sources, rules, .. } = self;
        let counts = sources.counts(peer, prefix.family());
        let address = sources.address(peer)?;
        let (attributes, intake) = (attributes.value(attrs)?, sources.intake_mut(peer)?);
        let arrival = Arrival { address, attributes };
        let accepted = counts.received.saturating_sub(counts.refused);
        rules.admit(intake, &arrival, prefix, accepted, || match prefix.family() {
            Family::Ipv4 => tables.ipv4.admission(*prefix, peer),
            Family::Ipv6 => tables.ipv6.admission(*prefix, peer),
        })
    }

    /// Takes routes of a peer out.
    pub(crate) fn withdraw(&mut self, peer: PeerIndex, prefixes: impl IntoIterator<Item = Prefix>) {
        for prefix in prefixes {
            let is_kept = self.take_out(peer, prefix);
            if let Some(intake) = self.sources.intake_mut(peer) {
                intake.forget(&prefix);
                if !is_kept {
                    intake.unmiss(prefix.family());
                }
            }
        }
    }

    /// Takes a route of a peer out, and returns whether there was one.
    fn take_out(&mut self, peer: PeerIndex, prefix: Prefix) -> bool {
        let family = prefix.family();
        let removed = match family {
            Family::Ipv4 => self.tables.ipv4.withdraw(prefix, peer, &mut self.attributes),
            Family::Ipv6 => self.tables.ipv6.withdraw(prefix, peer, &mut self.attributes),
        };
        if let Some(removed) = removed {
            self.sources.removed(&removed, family);
            self.attributes.release(removed.attrs);
        }
        removed.is_some()
    }

    /// Originates these prefixes and no others.
    pub(crate) fn originate(&mut self, prefixes: BTreeSet<Prefix>) {
        let gone: Vec<_> = self.originated.difference(&prefixes).copied().collect();
        let new: Vec<_> = prefixes.difference(&self.originated).copied().collect();
        self.withdraw(PeerIndex::LOCAL, gone);
        let own = RouteAttributes { path: crate::wire::PathAttributes::default(), next_hop: None };
        self.announce(PeerIndex::LOCAL, Source::Local, own, new);
        self.originated = prefixes;
    }

    /// The session of a peer is lost and its routes of the family are kept (RFC 4724 section 4.2); those that were kept
    /// already go.
    pub(crate) fn keep_stale(&mut self, peer: PeerIndex, family: Family) {
        if self.counts(peer, family).stale > 0 {
            self.doom(peer, family, Extent::Stale);
            self.sweep();
        }
        self.sources.begin_generation(peer, family);
    }

    /// Routes of a peer go with the next [`Rib::sweep`], which [`Rib::settle`] does at the latest.
    pub(crate) fn doom(&mut self, peer: PeerIndex, family: Family, extent: Extent) {
        let counts = self.counts(peer, family);
        let concerned = match extent {
            Extent::Stale => counts.stale,
            Extent::All => counts.received,
        };
        if concerned > 0 {
            let doomed = self.doomed.of_mut(family).entry(peer).or_insert(extent);
            *doomed = extent.max(*doomed);
        }
    }

    /// Takes out all doomed routes, in one pass however many peers they are of. To be called before a doomed peer may
    /// announce again.
    pub(crate) fn sweep(&mut self) {
        for family in Family::ALL {
            let doomed = std::mem::take(self.doomed.of_mut(family));
            if doomed.is_empty() {
                continue;
            }
            let mut removed = Vec::new();
            let sources = &self.sources;
            let goes = |path: &Path| match doomed.get(&path.peer) {
                Some(Extent::All) => true,
                Some(Extent::Stale) => path.generation() != sources.generation(path.peer, family),
                None => false,
            };
            with_table!(self.tables, family, table => {
                table.sweep(&mut self.attributes, goes, |path| removed.push(path));
            });
            for path in removed {
                self.sources.removed(&path, family);
                self.attributes.release(path.attrs);
            }
        }
    }

    /// Notes what peers that are told of other nodes' prefixes are told differently by the policy than by the one before.
    fn readmit(&mut self, before: &ImportPolicy) {
        let Self { attributes, tables, sources, groups, rules, .. } = self;
        let router_id = |peer| sources.router_id(peer);
        let before = View { attributes, import: before, router_id: &router_id };
        let after = View { attributes, import: &rules.import, router_id: &router_id };
        for group in groups.iter_mut().flatten().filter(|group| group.policy().depends_on_pools()) {
            match group.policy().family {
                Family::Ipv4 => {
                    tables.ipv4.each_published(|prefix, best| group.note_admission(prefix, best, &before, &after))
                }
                Family::Ipv6 => {
                    tables.ipv6.each_published(|prefix, best| group.note_admission(prefix, best, &before, &after))
                }
            }
        }
    }

    // --- next hops ---

    /// Takes in what the kernel says of a next hop.
    pub(crate) fn set_next_hop(&mut self, state: NextHopState) {
        self.attributes.set_next_hop(state);
    }

    /// The watches to begin and to end since the last call.
    pub(crate) fn watches(&mut self) -> Vec<NextHopWatch> {
        self.attributes.watches()
    }

    /// Whether it is known of every next hop if it can be reached.
    pub(crate) const fn knows_all_next_hops(&self) -> bool {
        self.attributes.knows_all_next_hops()
    }

    // --- routes out ---

    /// Decides what was touched. Tells `fib` what packets do from now on, and returns the groups whose peers have something
    /// to read.
    pub(crate) fn settle(&mut self, mut fib: impl FnMut(FibUpdate)) -> Vec<GroupId> {
        self.sweep();
        let changed = self.attributes.take_changed_next_hops();
        let Self { attributes, tables, sources, groups, rules, log_limit, .. } = self;
        let import = &rules.import;
        if !changed.is_empty() {
            tables.ipv4.touch_next_hops(&changed, attributes);
            tables.ipv6.touch_next_hops(&changed, attributes);
        }
        let router_id = |peer| sources.router_id(peer);
        for family in Family::ALL {
            let mut sink = |attributes: &AttributeSets, change: loc::Change| {
                let view = View { attributes, import, router_id: &router_id };
                for group in groups.iter_mut().flatten().filter(|group| group.policy().family == family) {
                    group.note(&change, &view);
                }
                match change.next_hops {
                    Some(next_hops) if next_hops.is_empty() => fib(FibUpdate::Withdraw { prefix: change.prefix }),
                    Some(next_hops) => fib(FibUpdate::Set { prefix: change.prefix, next_hops }),
                    None => {}
                }
            };
            with_table!(tables, family, table => table.settle(attributes, sources, &mut sink));
        }
        let view = View { attributes, import, router_id: &router_id };
        let grown = groups
            .iter_mut()
            .enumerate()
            .filter_map(|(place, group)| group.as_mut()?.close_round(&view, *log_limit).then_some(GroupId(place)));
        grown.collect()
    }

    /// Puts a peer into the group of its policy. It is sent the whole table, and End-of-RIB behind it if it is owed one.
    pub(crate) fn join(&mut self, peer: PeerIndex, policy: ExportPolicy, owes_end_of_rib: bool) -> GroupId {
        let same = |group: &Option<UpdateGroup>| group.as_ref().is_some_and(|group| *group.policy() == policy);
        let place = self.groups.iter().position(same).unwrap_or_else(|| {
            let free = self.groups.iter().position(Option::is_none).unwrap_or_else(|| {
                self.groups.push(None);
                self.groups.len() - 1
            });
            if let Some(group) = self.groups.get_mut(free) {
                *group = Some(UpdateGroup::new(policy));
            }
            free
        });
        if let Some(Some(group)) = self.groups.get_mut(place) {
            group.join(peer, owes_end_of_rib);
        }
        GroupId(place)
    }

    /// Takes a peer out of its group, which goes with its last peer.
    pub(crate) fn leave(&mut self, peer: PeerIndex, group: GroupId) {
        if let Some(place) = self.groups.get_mut(group.0) {
            if let Some(group) = place {
                group.leave(peer);
            }
            place.take_if(|group| group.is_empty());
        }
    }

    /// The prefixes of which a peer has not been told yet what the others of its group have.
    pub(crate) fn untold(&self, peer: PeerIndex, group: GroupId) -> Vec<Prefix> {
        self.group(group).map(|group| group.untold(peer)).unwrap_or_default()
    }

    /// A peer that has changed groups is told what holds for these prefixes, of which the former group had still to tell it.
    pub(crate) fn miss(&mut self, peer: PeerIndex, group: GroupId, prefixes: Vec<Prefix>) {
        if let Some(Some(group)) = self.groups.get_mut(group.0) {
            group.miss(peer, prefixes);
        }
    }

    /// A peer is sent the whole table again (RFC 2918 section 4).
    pub(crate) fn refresh(&mut self, peer: PeerIndex, group: GroupId) {
        if let Some(Some(group)) = self.groups.get_mut(group.0) {
            group.refresh(peer);
        }
    }

    /// The update group, while it has peers.
    pub(crate) fn group(&self, group: GroupId) -> Option<&UpdateGroup> {
        self.groups.get(group.0)?.as_ref()
    }

    /// What a peer is to be sent next, until `budget` octets are spent. Everything touched has been settled. Returns the
    /// number of messages.
    pub(crate) fn transmit(
        &mut self,
        peer: PeerIndex,
        group: GroupId,
        may_end: bool,
        out: &mut Vec<Bytes>,
        budget: &mut usize,
    ) -> u64 {
        let Self { attributes, tables, sources, groups, rules, .. } = self;
        let import = &rules.import;
        let Some(Some(group)) = groups.get_mut(group.0) else { return 0 };
        let router_id = |peer| sources.router_id(peer);
        let view = View { attributes, import, router_id: &router_id };
        match group.policy().family {
            Family::Ipv4 => group.transmit(peer, &tables.ipv4, &view, may_end, out, budget),
            Family::Ipv6 => group.transmit(peer, &tables.ipv6, &view, may_end, out, budget),
        }
    }

    /// Whether [`Rib::settle`] has nothing to do.
    pub(crate) fn is_settled(&self) -> bool {
        !self.tables.ipv4.is_touched()
            && !self.tables.ipv6.is_touched()
            && self.doomed.ipv4.is_empty()
            && self.doomed.ipv6.is_empty()
            && !self.attributes.has_changed_next_hops()
            && !self.groups.iter().flatten().any(UpdateGroup::has_notes)
    }

    /// The number of prefixes of a family.
    pub(crate) fn prefixes(&self, family: Family) -> usize {
        match family {
            Family::Ipv4 => self.tables.ipv4.len(),
            Family::Ipv6 => self.tables.ipv6.len(),
        }
    }

    /// The number of attribute sets.
    pub(crate) fn attribute_sets(&self) -> usize {
        self.attributes.len()
    }
}
