//! What is taken back of nodes that have gone from the cluster. Pure; time is an argument.
//!
//! A node has gone when Kubernetes has no Node of its name and no agent holds its name. That is noted with the time, so that
//! it outlives a term of the elected agent. What the node had stays its own for the grace period, in which it may come back,
//! and for as long as somebody still peers with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use types::{Gone, NodeName};

/// How often a node that is gone is looked at at most and at least, while something has to pass.
const RECHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The same while an agent holds its name.
const RECHECK_ALIVE: Duration = Duration::from_secs(5);

/// A node that may be gone: registered or noted as gone, and without a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The node.
    pub(crate) node: NodeName,
    /// What has been noted of it.
    pub(crate) gone: Option<Gone>,
    /// It is registered now: the store has the last word, as reports of what goes together may come one by one.
    pub(crate) is_registered: bool,
    /// An agent holds its name.
    pub(crate) is_alive: bool,
    /// This agent has a session with it.
    pub(crate) is_heard: bool,
}

/// What is to be done about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has gone just now.
    Note(NodeName, Gone),
    /// It is back, or nothing is left of it: no word of it any more.
    Forget(NodeName),
    /// What it had is free.
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
pub(crate) fn returned(registered: &BTreeMap<NodeName, Option<Gone>>, kubernetes: &BTreeSet<String>) -> Vec<Step> {
    let noted = registered.iter().filter(|(_, gone)| gone.is_some());
    noted.filter(|(node, _)| kubernetes.contains(node.as_str())).map(|(node, _)| Step::Forget(node.clone())).collect()
}

/// What is to be done about a candidate now, or when it is to be looked at again; neither where there is nothing left of it.
pub(crate) fn step(candidate: &Candidate, grace: Duration, now: SystemTime) -> Result<Option<Step>, Duration> {
    let Candidate { node, gone, is_registered, is_alive, is_heard } = candidate;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let again = |left: Duration| Err(left.clamp(RECHECK.0, RECHECK.1));
    match gone {
        Some(_) if *is_alive || !is_registered => Ok(Some(Step::Forget(node.clone()))),
        None if !is_registered => Ok(None),
        // Nobody tells when a lease ends.
        None if *is_alive => again(RECHECK_ALIVE),
        None => Ok(Some(Step::Note(node.clone(), Gone { since: now.as_secs(), reclaimed: false }))),
        Some(gone) if gone.reclaimed => again(RECHECK.1),
        Some(gone) => {
            // A clock that went back makes the wait longer, never shorter.
            let passed = now.saturating_sub(Duration::from_secs(gone.since));
            match grace.checked_sub(passed).filter(|left| !left.is_zero()) {
                Some(left) => again(left),
                None if *is_heard => again(RECHECK.1),
                None => Ok(Some(Step::Reclaim(node.clone(), Gone { reclaimed: true, ..gone.clone() }))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3_600);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn candidate(gone: Option<u64>) -> Candidate {
        let gone = gone.map(|since| Gone { since, reclaimed: false });
        Candidate { node: "n".parse().unwrap(), gone, is_registered: true, is_alive: false, is_heard: false }
    }

    #[test]
    fn a_node_is_noted_when_its_agent_has_gone_and_its_things_are_free_after_the_grace() {
        let node: NodeName = "n".parse().unwrap();
        let alive = Candidate { is_alive: true, ..candidate(None) };
        assert!(step(&alive, GRACE, at(1_000)).is_err());
        let noted = Gone { since: 1_000, reclaimed: false };
        assert_eq!(step(&candidate(None), GRACE, at(1_000)), Ok(Some(Step::Note(node.clone(), noted.clone()))));
        assert!(step(&candidate(Some(1_000)), GRACE, at(1_000 + 3_599)).is_err());
        let reclaimed = Gone { reclaimed: true, ..noted };
        assert_eq!(step(&candidate(Some(1_000)), GRACE, at(1_000 + 3_600)), Ok(Some(Step::Reclaim(node, reclaimed))));
    }

    #[test]
    fn who_is_heard_or_back_keeps_what_it_has_and_a_clock_that_went_back_takes_nothing() {
        let late = at(1_000 + 2 * 3_600);
        let heard = Candidate { is_heard: true, ..candidate(Some(1_000)) };
        assert!(step(&heard, GRACE, late).is_err());
        let back = Candidate { is_alive: true, ..candidate(Some(1_000)) };
        assert_eq!(step(&back, GRACE, late), Ok(Some(Step::Forget("n".parse().unwrap()))));
        assert!(step(&candidate(Some(1_000)), GRACE, at(5)).is_err());
    }

    #[test]
    fn of_a_node_that_is_not_registered_any_more_nothing_is_noted_and_nothing_stays_noted() {
        let left = |gone| Candidate { is_registered: false, ..candidate(gone) };
        assert_eq!(step(&left(None), GRACE, at(1_000)), Ok(None));
        assert_eq!(step(&left(Some(1_000)), GRACE, at(1_001)), Ok(Some(Step::Forget("n".parse().unwrap()))));
    }

    #[test]
    fn only_registered_nodes_without_a_node_object_are_looked_at_and_those_that_have_one_again_are_forgotten() {
        let gone = Some(Gone { since: 1, reclaimed: false });
        let registered = [("a", None), ("b", gone.clone()), ("c", gone)];
        let registered = registered.into_iter().map(|(name, gone)| (name.parse().unwrap(), gone)).collect();
        let kubernetes = ["a", "b", "elsewhere"].map(str::to_owned).into();
        let names: Vec<_> =
            candidates(&registered, &kubernetes).into_iter().map(|(node, _)| node.to_string()).collect();
        assert_eq!(names, ["c"]);
        assert_eq!(returned(&registered, &kubernetes), [Step::Forget("b".parse().unwrap())]);
    }
}
