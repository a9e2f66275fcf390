//! What is taken in of one peer's routes: which are refused, how many, and which of those are worth keeping.
//!
//! A refused route costs a counter, and a place among a few samples. It is kept like any other route only where something
//! that is heard later can make it good, and only so many of a peer are.

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use types::resource::LimitAction;
use types::{Family, Prefix};

use super::by_family::ByFamily;
use crate::origin::{PeerImport, PeerRole, Refusal};

/// How many refused routes of a peer and family are kept that a later claim can make good, and as many that another import
/// policy can.
pub(crate) const KEPT: u32 = 1_024;

/// How many samples of each reason there are of a peer.
const SAMPLES_PER_REASON: u8 = 16;

/// How many routes a peer may have in use without a limit of its own: more than a node's blocks and Services, and more than
/// a router's own routes.
const BASE_LIMIT: u32 = 16_384;

/// A refused route, as an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedSample {
    /// Why.
    pub refusal: Refusal,
    /// Where packets would go.
    pub next_hop: Option<IpAddr>,
    /// It is used all the same, as validation only warns.
    pub used: bool,
}

/// A peer's refused routes.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// What holds for its routes.
    pub(crate) import: PeerImport,
    /// How many of each family may be in use, where that is configured.
    pub(crate) limit: Option<u32>,
    /// What becomes of more.
    pub(crate) action: LimitAction,
    /// How often a route was refused for each reason, by [`Refusal::place`]; those that are only warned of count as well.
    totals: [u64; Refusal::ALL.len()],
    /// Examples, by prefix.
    samples: BTreeMap<Prefix, RefusedSample>,
    /// How many examples there are of each reason.
    sampled: [u8; Refusal::ALL.len()],
    /// How many refused routes are among the others.
    kept: ByFamily<Kept>,
    /// How many are not, though they may become good.
    missed: ByFamily<Missed>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    /// Import policy refuses them.
    by_policy: u32,
    /// They are no owner's.
    by_origin: u32,
}

/// Routes that were refused and are not kept: as often as they were announced since the peer was last asked for all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Missed {
    /// They become good with another import policy.
    pub(crate) by_policy: u64,
    /// They may become good with a claim.
    pub(crate) by_origin: u64,
    /// They become good with room.
    pub(crate) by_limit: u64,
    /// They never do.
    pub(crate) hopeless: u64,
}

impl Missed {
    /// All of them.
    pub(crate) const fn all(&self) -> u64 {
        self.by_policy + self.by_origin + self.by_limit + self.hopeless
    }
}

impl Intake {
    /// How many routes of a family may be in use: as configured, else by what the peer is and how many blocks there are.
    pub(crate) fn limit(&self, holders: usize) -> u32 {
        let blocks = u32::try_from(holders).unwrap_or(u32::MAX);
        self.limit.unwrap_or_else(|| match self.import.role {
            PeerRole::Node | PeerRole::Pod => BASE_LIMIT,
            PeerRole::Relay | PeerRole::Reflector | PeerRole::Fabric => {
                BASE_LIMIT.saturating_add(blocks.saturating_mul(2))
            }
        })
    }

    /// Whether there is room for a refused route among the others. `hopeful`: a claim can make it good.
    pub(crate) fn has_room(&self, family: Family, refusal: Refusal, hopeful: bool) -> bool {
        let kept = self.kept.of(family);
        match refusal {
            Refusal::Import => kept.by_policy < KEPT,
            Refusal::OverLimit => false,
            _ => hopeful && kept.by_origin < KEPT,
        }
    }

    /// A route that is refused for this is among the others now.
    pub(crate) fn keep(&mut self, family: Family, refusal: Refusal) {
        *self.kept_of(family, refusal) += 1;
    }

    /// A route that was refused for this is no longer among the others, or no longer refused.
    pub(crate) fn let_go(&mut self, family: Family, refusal: Refusal) {
        let kept = self.kept_of(family, refusal);
        *kept = kept.saturating_sub(1);
    }

    /// A route is refused, or would be.
    pub(crate) fn note(&mut self, prefix: Prefix, sample: RefusedSample) {
        if let Some(total) = self.totals.get_mut(sample.refusal.place()) {
            *total += 1;
        }
        self.forget(&prefix);
        if let Some(count) = self.sampled.get_mut(sample.refusal.place())
            && *count < SAMPLES_PER_REASON
        {
            *count += 1;
            self.samples.insert(prefix, sample);
        }
    }

    /// A route that is there would be refused if validation did more than warn: it becomes an example while there are few. Routes
    /// are judged again and again, so nothing more is counted for one that is an example already.
    pub(crate) fn show(&mut self, prefix: Prefix, sample: RefusedSample) {
        let is_new = self.samples.get(&prefix) != Some(&sample);
        let sampled = self.sampled.get(sample.refusal.place()).copied().unwrap_or(SAMPLES_PER_REASON);
        if is_new && (sampled < SAMPLES_PER_REASON || self.samples.contains_key(&prefix)) {
            self.note(prefix, sample);
        }
    }

    /// The peer's route to this prefix is gone, or good.
    pub(crate) fn forget(&mut self, prefix: &Prefix) {
        if self.samples.is_empty() {
            return;
        }
        if let Some(sample) = self.samples.remove(prefix)
            && let Some(count) = self.sampled.get_mut(sample.refusal.place())
        {
            *count = count.saturating_sub(1);
        }
    }

    /// A refused route is not kept.
    pub(crate) fn miss(&mut self, family: Family, refusal: Refusal, hopeful: bool) {
        let missed = self.missed.of_mut(family);
        *match refusal {
            Refusal::Import => &mut missed.by_policy,
            Refusal::OverLimit => &mut missed.by_limit,
            _ if hopeful => &mut missed.by_origin,
            _ => &mut missed.hopeless,
        } += 1;
    }

    /// A route that is not kept is withdrawn: of which kind it was is not known any more.
    pub(crate) fn unmiss(&mut self, family: Family) {
        let missed = self.missed.of_mut(family);
        for count in [&mut missed.hopeless, &mut missed.by_policy, &mut missed.by_limit, &mut missed.by_origin] {
            if *count > 0 {
                *count -= 1;
                return;
            }
        }
    }

    /// What is not kept.
    pub(crate) fn missed(&self, family: Family) -> Missed {
        *self.missed.of(family)
    }

    /// The peer sends all its routes again, or has none any more.
    pub(crate) fn begin_anew(&mut self, family: Family) {
        *self.missed.of_mut(family) = Missed::default();
        self.retain_samples(|prefix, _| prefix.family() != family);
    }

    /// The peer's terms are others: what is used all the same under them is found out anew.
    pub(crate) fn forget_used(&mut self) {
        self.retain_samples(|_, sample| !sample.used);
    }

    fn retain_samples(&mut self, is_kept: impl Fn(&Prefix, &RefusedSample) -> bool) {
        self.samples.retain(|prefix, sample| is_kept(prefix, sample));
        self.sampled = [0; Refusal::ALL.len()];
        for sample in self.samples.values() {
            if let Some(count) = self.sampled.get_mut(sample.refusal.place()) {
                *count += 1;
            }
        }
    }

    /// How often a route was refused for each reason.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (Refusal, u64)> + use<'_> {
        Refusal::ALL.into_iter().zip(self.totals).filter(|(_, total)| *total > 0)
    }

    /// Examples of refused routes, by prefix.
    pub(crate) const fn samples(&self) -> &BTreeMap<Prefix, RefusedSample> {
        &self.samples
    }

    fn kept_of(&mut self, family: Family, refusal: Refusal) -> &mut u32 {
        let kept = self.kept.of_mut(family);
        if refusal == Refusal::Import { &mut kept.by_policy } else { &mut kept.by_origin }
    }
}
