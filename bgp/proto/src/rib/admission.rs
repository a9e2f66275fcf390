//! Which learned routes get in: import policy, the origin, and the peer's limit, when a route comes and when what it is judged
//! by changes.

use std::net::IpAddr;

use types::{Family, Prefix};

use super::adj_in::{Admission, Path, PeerIndex};
use super::attrs::RouteAttributes;
use super::decision::Source;
use super::intake::{Intake, LimitAction, RefusedSample};
use super::loc::{Network, PrefixTable};
use super::sources::Sources;
use super::{AttributeSets, Rib, Tables};
use crate::origin::{OriginChange, OriginValidation, Origins, PeerRole, Refusal, Stirred, Validity, Voice};
use crate::policy::ImportPolicy;

/// What learned routes are judged by.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Which prefixes may be used.
    pub(super) import: ImportPolicy,
    /// Who may announce which.
    pub(super) origins: Origins,
}

/// What is thought of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judgement {
    /// What becomes of it.
    admission: Admission,
    /// What validation would refuse it for, if it did more than warn.
    warned: Option<Refusal>,
}

impl Judgement {
    const fn refused(refusal: Refusal) -> Self {
        Self { admission: Admission { refusal: Some(refusal), doubted: false }, warned: None }
    }
}

impl Rules {
    fn judge(&self, prefix: &Prefix, voice: &Voice<'_>) -> Judgement {
        if !self.import.accepts(prefix) {
            return Judgement::refused(Refusal::Import);
        }
        if voice.import.role == PeerRole::Pod {
            // The default route is imported from the fabric; from a pod it would be the way of all of the node's pods.
            if prefix.len() == 0 {
                return Judgement::refused(Refusal::Import);
            }
            if voice.attributes.next_hop != Some(voice.peer) {
                return Judgement::refused(Refusal::NextHop);
            }
        }
        let validation = voice.import.validation;
        // It would lead packets to pods of this node away from it: no setting lets it in.
        if validation != OriginValidation::Enforce && self.origins.is_part_of_own_block(prefix) {
            return Judgement::refused(Refusal::PartOfBlock);
        }
        let (doubted, warned) = match (validation, self.validity(prefix, voice)) {
            (OriginValidation::Enforce, Validity::Invalid(refusal)) => return Judgement::refused(refusal),
            (OriginValidation::Enforce, Validity::Unknown) => (true, None),
            (OriginValidation::Warn, Validity::Invalid(refusal)) => (false, Some(refusal)),
            _ => (false, None),
        };
        Judgement { admission: Admission { refusal: None, doubted }, warned }
    }

    fn validity(&self, prefix: &Prefix, voice: &Voice<'_>) -> Validity {
        if voice.import.validation == OriginValidation::Off {
            return Validity::NotCovered;
        }
        self.origins.judge(prefix, voice)
    }
}

/// Routes of one UPDATE, while they are taken in.
pub(super) struct Arrival<'a> {
    /// The peer's address.
    pub(super) address: IpAddr,
    /// Their attributes and next hop.
    pub(super) attributes: &'a RouteAttributes,
}

impl Rules {
    /// What becomes of a route that has come; nothing where it is refused and not kept. `former`: the peer's route to the prefix
    /// that this one replaces, if there is one.
    pub(super) fn admit(
        &self,
        intake: &mut Intake,
        arrival: &Arrival<'_>,
        prefix: &Prefix,
        accepted: u32,
        former: impl Fn() -> Option<Admission>,
    ) -> Option<Admission> {
        let family = prefix.family();
        let voice = Voice { import: &intake.import, peer: arrival.address, attributes: arrival.attributes };
        let Judgement { mut admission, warned } = self.judge(prefix, &voice);
        if admission.refusal.is_none()
            && intake.action == LimitAction::Refuse
            && accepted >= intake.limit(self.origins.holders())
            && former().is_none_or(|former| former.refusal.is_some())
        {
            admission = Admission { refusal: Some(Refusal::OverLimit), doubted: false };
        }
        let next_hop = arrival.attributes.next_hop;
        match (admission.refusal, warned) {
            (None, None) => intake.forget(prefix),
            (None, Some(refusal)) => intake.note(*prefix, RefusedSample { refusal, next_hop, used: true }),
            (Some(refusal), _) => {
                intake.note(*prefix, RefusedSample { refusal, next_hop, used: false });
                let hopeful = self.origins.may_become_valid(prefix);
                let has_room = || intake.has_room(family, refusal, hopeful) || hopeful && former().is_some();
                if !has_room() {
                    intake.miss(family, refusal, hopeful);
                    return None;
                }
            }
        }
        Some(admission)
    }
}

impl Rib {
    /// Judges all routes by another import policy.
    pub(crate) fn set_import(&mut self, import: ImportPolicy) {
        let before = std::mem::replace(&mut self.rules.import, import);
        if before == self.rules.import {
            return;
        }
        self.revise(&Stirred::All);
        self.ask_again(|missed| missed.by_policy > 0);
        self.readmit(&before);
    }

    /// Judges routes by what has changed of their origins.
    pub(crate) fn set_origins(&mut self, changes: impl IntoIterator<Item = OriginChange>) {
        let mut stirred = Vec::new();
        let mut all = false;
        for change in changes {
            match self.rules.origins.apply(change) {
                Stirred::Nothing => {}
                Stirred::All => all = true,
                within @ Stirred::Within(_) => stirred.push(within),
            }
        }
        // One pass over the tables is cheaper than many look-ups.
        if all || stirred.len() > self.tables.ipv4.len() + self.tables.ipv6.len() {
            self.revise(&Stirred::All);
        } else {
            stirred.iter().for_each(|within| self.revise(within));
        }
        if all || !stirred.is_empty() {
            self.ask_again(|missed| missed.by_origin > 0);
        }
    }

    /// A peer's terms have changed: its routes are judged by them.
    pub(crate) fn set_intake(&mut self, peer: PeerIndex, set: impl FnOnce(&mut Intake)) {
        let Some(intake) = self.sources.intake_mut(peer) else { return };
        let (import, limit) = (intake.import.clone(), (intake.limit, intake.action));
        set(intake);
        let (judges_anew, limits_anew) = (intake.import != import, (intake.limit, intake.action) != limit);
        if judges_anew {
            intake.forget_used();
            self.revise(&Stirred::All);
        }
        let Some(intake) = self.sources.intake(peer) else { return };
        // How many routes are not kept is an estimate, so that a peer that had any refused is asked.
        let had_refused = intake.totals().next().is_some();
        let asks = |family: &Family| judges_anew && had_refused || limits_anew && intake.missed(*family).by_limit > 0;
        self.requests.extend(Family::ALL.into_iter().filter(asks).map(|family| (peer, family)));
    }

    /// Peers that are to be asked for all their routes again, as some that were refused and not kept may be good now (RFC 2918).
    pub(crate) fn take_requests(&mut self) -> Vec<(PeerIndex, Family)> {
        std::mem::take(&mut self.requests).into_iter().collect()
    }

    /// The peer will send all its routes again, or has none any more.
    pub(crate) fn begin_anew(&mut self, peer: PeerIndex, family: Family) {
        if let Some(intake) = self.sources.intake_mut(peer) {
            intake.begin_anew(family);
        }
    }

    /// How many prefixes of a family a peer may have in use.
    pub(crate) fn limit(&self, peer: PeerIndex) -> u32 {
        self.sources.intake(peer).map_or(u32::MAX, |intake| intake.limit(self.rules.origins.holders()))
    }

    /// What of a peer's routes is refused.
    pub(crate) fn intake(&self, peer: PeerIndex) -> Option<&Intake> {
        self.sources.intake(peer)
    }

    /// How often routes of a peer were refused for another reason than import policy, which refuses what it is told to.
    pub(crate) fn refused_by_origin(&self, peer: PeerIndex) -> u64 {
        let totals = self.sources.intake(peer).into_iter().flat_map(Intake::totals);
        totals.filter(|(refusal, _)| *refusal != Refusal::Import).map(|(_, total)| total).sum()
    }

    /// One of the peer's routes that are refused for another reason than import policy, and why, in words.
    pub(crate) fn refused_example(&self, peer: PeerIndex) -> Option<(Prefix, String)> {
        let mut samples = self.sources.intake(peer)?.samples().iter();
        let (prefix, sample) = samples.find(|(_, sample)| sample.refusal != Refusal::Import)?;
        Some((*prefix, self.explain(prefix, sample.refusal)))
    }

    /// Why a route is refused, in words.
    pub(crate) fn explain(&self, prefix: &Prefix, refusal: Refusal) -> String {
        self.rules.origins.explain(prefix, refusal)
    }

    /// There is room for routes that were beyond the peer's limit, if there were any.
    pub(crate) fn ask_for_the_rest(&mut self, peer: PeerIndex, family: Family) {
        if self.sources.intake(peer).is_some_and(|intake| intake.missed(family).by_limit > 0) {
            self.requests.insert((peer, family));
        }
    }

    fn ask_again(&mut self, concerned: impl Fn(&super::intake::Missed) -> bool) {
        let Self { sources, requests, .. } = self;
        for (peer, intake) in sources.intakes() {
            requests.extend(
                Family::ALL
                    .into_iter()
                    .filter(|family| concerned(&intake.missed(*family)))
                    .map(|family| (peer, family)),
            );
        }
    }

    /// Judges routes that are here already.
    fn revise(&mut self, stirred: &Stirred) {
        let Self { attributes, tables, sources, rules, .. } = self;
        let Tables { ipv4, ipv6 } = tables;
        match stirred {
            Stirred::Nothing => {}
            Stirred::All => {
                revise(ipv4, ipv4.ids().collect(), attributes, sources, rules);
                revise(ipv6, ipv6.ids().collect(), attributes, sources, rules);
            }
            Stirred::Within(prefix) => match prefix.family() {
                Family::Ipv4 => revise(ipv4, ipv4.ids_within(*prefix), attributes, sources, rules),
                Family::Ipv6 => revise(ipv6, ipv6.ids_within(*prefix), attributes, sources, rules),
            },
        }
    }
}

fn revise<N: Network>(
    table: &mut PrefixTable<N>,
    ids: Vec<u32>,
    attributes: &mut AttributeSets,
    sources: &mut Sources,
    rules: &Rules,
) {
    let mut noted: Vec<(Prefix, Path, Admission)> = Vec::new();
    let mut warned: Vec<(PeerIndex, Prefix, RefusedSample)> = Vec::new();
    for id in ids {
        let judge = |prefix: &Prefix, path: &Path, attributes: &AttributeSets| {
            if path.source == Source::Local {
                return path.admission();
            }
            let (Some(address), Some(intake), Some(route)) =
                (sources.address(path.peer), sources.intake(path.peer), attributes.value(path.attrs))
            else {
                return path.admission();
            };
            let voice = Voice { import: &intake.import, peer: address, attributes: route };
            let judgement = rules.judge(prefix, &voice);
            if let Some(refusal) = judgement.warned {
                warned.push((path.peer, *prefix, RefusedSample { refusal, next_hop: route.next_hop, used: true }));
            }
            judgement.admission
        };
        table.revise(id, attributes, judge, |prefix, path, before| noted.push((prefix, *path, before)));
    }
    for (prefix, path, before) in noted {
        sources.judged(&prefix, &path, before, attributes.next_hop(path.attrs));
    }
    for (peer, prefix, sample) in warned {
        if let Some(intake) = sources.intake_mut(peer) {
            intake.show(prefix, sample);
        }
    }
}
