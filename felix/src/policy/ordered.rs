//! How a direction is written in which order matters: rules that deny or pass, and tiers that pass what they do not decide.

use std::collections::BTreeSet;

use types::policy::{Action, Direction, TierEnd};

use super::classes::Identity;
use super::encoding::matches;
use super::policies::Compiled;
use super::program::{ClassRule, PeerMatch, PortClause, Verdict};
use super::sets::{Shared, View};

/// The policies of one tier, in the order in which they are judged.
pub(crate) struct TierPolicies<'a> {
    pub(crate) end: TierEnd,
    pub(crate) policies: Vec<&'a Compiled>,
}

/// The rules of tiers in order, and the shared sets that they speak of. What the last tier passes is allowed.
pub(crate) fn rules(
    tiers: &[TierPolicies<'_>],
    direction: Direction,
    identity: &Identity,
    view: View<'_>,
) -> (Vec<ClassRule>, BTreeSet<Shared>) {
    let everything = |verdict| ClassRule { peer: PeerMatch::Any, port: PortClause::Any, verdict };
    let (mut rules, mut shared) = (Vec::new(), BTreeSet::new());
    let mut passes_out = false;
    for (index, tier) in tiers.iter().enumerate() {
        let is_last = index + 1 == tiers.len();
        let first = rules.len();
        for compiled in tier.policies.iter().flat_map(|policy| policy.rules(direction)) {
            let verdict = match compiled.action {
                Action::Allow => Verdict::Allow,
                Action::Deny => Verdict::Deny,
                Action::Pass => Verdict::Pass(0),
            };
            passes_out |= is_last && compiled.action == Action::Pass;
            for (peer, ports) in &compiled.parts {
                let ports = ports.iter().flat_map(|port| identity.resolve(*port, direction));
                for (peer, port, set) in matches(*peer, ports, view) {
                    rules.push(ClassRule { peer, port, verdict });
                    shared.extend(set);
                }
            }
        }
        match tier.end {
            TierEnd::Deny => rules.push(everything(Verdict::Deny)),
            TierEnd::Pass => passes_out |= is_last,
        }
        let next = rules.len();
        for rule in rules.iter_mut().skip(first) {
            if let Verdict::Pass(to) = &mut rule.verdict {
                *to = next;
            }
        }
    }
    if passes_out {
        rules.push(everything(Verdict::Allow));
    }
    (rules, shared)
}
