//! What is taken back of nodes that have gone from the cluster (pure; time is an argument). The task around it is in
//! `reclaim_task`.
//!
//! A node has gone when Kubernetes has no Node of its name and no agent holds its name. That is noted, so that it outlives a
//! term of the elected agent. What the node had stays its own for the grace period, in which it may come back, and for as
//! long as somebody still peers with it.
//!
//! Of the grace period only that time counts in which an elected agent has seen the node gone, each by its own clock that
//! nobody sets; how much it was is noted now and then. So no wall clock, however wrong, makes it shorter or endless, and a
//! change of the elected agent makes it a little longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use types::{Gone, NodeName};

/// The shortest and the longest time until a node that is gone is looked at again, while something has to pass.
const RECHECK_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often within the grace period it is noted how much of it has passed.
const NOTES_PER_GRACE: u32 = 100;

/// The shortest and the longest time between two such notes, whatever the grace period is.
const NOTE_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// How often a node is looked at while an agent holds its name.
const RECHECK_ALIVE: Duration = Duration::from_secs(5);

/// A node that may be gone: registered or noted as gone, and without a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The node's name.
    pub(crate) node: NodeName,
    /// The note that the node is gone, if there is one.
    pub(crate) gone: Option<Gone>,
    /// How long this agent has known just that of it.
    pub(crate) watched: Duration,
    /// It is registered now: the store has the last word, as reports of what goes together may come one by one.
    pub(crate) is_registered: bool,
    /// Whether an agent holds the node's name.
    pub(crate) is_alive: bool,
    /// Whether this agent has a session with the node.
    pub(crate) is_heard: bool,
}

/// What is to be done about a node now, or when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This action is to be taken.
    Act(ReclaimAction),
    /// Nothing is to be done before this long; then it is to be looked at again.
    Wait(Duration),
    /// Nothing is to be done, as there is nothing of it.
    NothingLeft,
}

/// An action about a node that may have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReclaimAction {
    /// It has gone just now, or has been gone for longer.
    Note(NodeName, Gone),
    /// It is back, or nothing is left of it: no word of it any more.
    Forget(NodeName),
    /// Frees everything that the node had.
    Reclaim(NodeName, Gone),
}

/// Registered nodes without a Node in Kubernetes.
pub(crate) fn candidates(
    registered: &BTreeMap<NodeName, Option<Gone>>,
    kubernetes: &BTreeSet<String>,
) -> Vec<(NodeName, Option<Gone>)> {
    let missing = registered.iter().filter(|(node, _)| !kubernetes.contains(node.as_str()));
    missing.map(|(node, gone)| (node.clone(), gone.clone())).collect()
}

/// Nodes that were noted and are there again.
pub(crate) fn returned(
    registered: &BTreeMap<NodeName, Option<Gone>>,
    kubernetes: &BTreeSet<String>,
) -> Vec<ReclaimAction> {
    let noted = registered.iter().filter(|(_, gone)| gone.is_some());
    noted
        .filter(|(node, _)| kubernetes.contains(node.as_str()))
        .map(|(node, _)| ReclaimAction::Forget(node.clone()))
        .collect()
}

/// What follows for a candidate. `now` is for people to read.
pub(crate) fn judge(candidate: &Candidate, grace: Duration, now: SystemTime) -> Verdict {
    let Candidate { node, gone, watched, is_registered, is_alive, is_heard } = candidate;
    let again = |left: Duration| Verdict::Wait(left.clamp(RECHECK_DELAYS.0, RECHECK_DELAYS.1));
    let note = |gone: Gone| Verdict::Act(ReclaimAction::Note(node.clone(), gone));
    match gone {
        Some(_) if *is_alive || !is_registered => Verdict::Act(ReclaimAction::Forget(node.clone())),
        None if !is_registered => Verdict::NothingLeft,
        // Nothing tells when a lease ends, so it is looked at again.
        None if *is_alive => again(RECHECK_ALIVE),
        None => {
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            note(Gone { since, waited: Duration::ZERO, reclaimed: false })
        }
        Some(gone) if gone.reclaimed => again(RECHECK_DELAYS.1),
        Some(gone) => {
            let waited = gone.waited + *watched;
            let interval = (grace / NOTES_PER_GRACE).clamp(NOTE_INTERVALS.0, NOTE_INTERVALS.1);
            match grace.checked_sub(waited).filter(|left| !left.is_zero()) {
                // In whole seconds, as it will be read back.
                Some(_) if *watched >= interval => {
                    note(Gone { waited: Duration::from_secs(waited.as_secs()), ..gone.clone() })
                }
                Some(left) => again(left.min(interval - *watched)),
                None if *is_heard => again(RECHECK_DELAYS.1),
                None => Verdict::Act(ReclaimAction::Reclaim(node.clone(), Gone { reclaimed: true, ..gone.clone() })),
            }
        }
    }
}

#[cfg(test)]
mod tests;
