//! What is taken back of nodes that have gone from the cluster. Pure; time is an argument.
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

/// How often a node that is gone is looked at at most and at least, while something has to pass.
const RECHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often it is noted how much of the grace period has passed: so often within it, but within these limits.
const SHARE: u32 = 100;
const NOTES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// How often a node is looked at while an agent holds its name.
const RECHECK_ALIVE: Duration = Duration::from_secs(5);

/// A node that may be gone: registered or noted as gone, and without a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The node.
    pub(crate) node: NodeName,
    /// What has been noted of it.
    pub(crate) gone: Option<Gone>,
    /// How long this agent has known just that of it.
    pub(crate) watched: Duration,
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
    /// It has gone just now, or has been gone for longer.
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
/// `now` is for people to read.
pub(crate) fn step(candidate: &Candidate, grace: Duration, now: SystemTime) -> Result<Option<Step>, Duration> {
    let Candidate { node, gone, watched, is_registered, is_alive, is_heard } = candidate;
    let again = |left: Duration| Err(left.clamp(RECHECK.0, RECHECK.1));
    match gone {
        Some(_) if *is_alive || !is_registered => Ok(Some(Step::Forget(node.clone()))),
        None if !is_registered => Ok(None),
        // Nobody tells when a lease ends.
        None if *is_alive => again(RECHECK_ALIVE),
        None => {
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            Ok(Some(Step::Note(node.clone(), Gone { since, waited: Duration::ZERO, reclaimed: false })))
        }
        Some(gone) if gone.reclaimed => again(RECHECK.1),
        Some(gone) => {
            let waited = gone.waited + *watched;
            let note = (grace / SHARE).clamp(NOTES.0, NOTES.1);
            match grace.checked_sub(waited).filter(|left| !left.is_zero()) {
                Some(_) if *watched >= note => {
                    // As it will be read back.
                    let waited = Duration::from_secs(waited.as_secs());
                    Ok(Some(Step::Note(node.clone(), Gone { waited, ..gone.clone() })))
                }
                Some(left) => again(left.min(note - *watched)),
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

    /// Noted as gone with so much of the grace waited for.
    fn candidate(gone: Option<u64>) -> Candidate {
        let gone = gone.map(|waited| Gone { since: 1_000, waited: Duration::from_secs(waited), reclaimed: false });
        let watched = Duration::ZERO;
        Candidate { node: "n".parse().unwrap(), gone, watched, is_registered: true, is_alive: false, is_heard: false }
    }

    #[test]
    fn a_node_is_noted_when_its_agent_has_gone_and_its_things_are_free_after_the_grace() {
        let node: NodeName = "n".parse().unwrap();
        let alive = Candidate { is_alive: true, ..candidate(None) };
        assert!(step(&alive, GRACE, at(1_000)).is_err());
        let noted = Gone { since: 1_000, waited: Duration::ZERO, reclaimed: false };
        assert_eq!(step(&candidate(None), GRACE, at(1_000)), Ok(Some(Step::Note(node.clone(), noted.clone()))));
        let waiting = Candidate { watched: Duration::from_secs(35), ..candidate(Some(3_560)) };
        assert_eq!(step(&waiting, GRACE, at(1_000)), Err(Duration::from_secs(1)));
        let over = Candidate { watched: Duration::from_secs(35), ..candidate(Some(3_565)) };
        let reclaimed = Gone { waited: Duration::from_secs(3_565), reclaimed: true, ..noted };
        assert_eq!(step(&over, GRACE, at(1_000)), Ok(Some(Step::Reclaim(node, reclaimed))));
    }

    #[test]
    fn who_is_heard_or_back_keeps_what_it_has() {
        let heard = Candidate { is_heard: true, ..candidate(Some(3_600)) };
        assert!(step(&heard, GRACE, at(1_000)).is_err());
        let back = Candidate { is_alive: true, ..candidate(Some(3_600)) };
        assert_eq!(step(&back, GRACE, at(1_000)), Ok(Some(Step::Forget("n".parse().unwrap()))));
    }

    #[test]
    fn no_wall_clock_makes_the_grace_shorter_or_endless() {
        let year = 365 * 24 * 3_600;
        for now in [at(0), at(5), at(1_000), at(year), at(100 * year)] {
            assert!(step(&candidate(Some(0)), GRACE, now).is_err(), "{now:?}");
            let over = step(&candidate(Some(3_600)), GRACE, now);
            assert!(matches!(over, Ok(Some(Step::Reclaim(..)))), "{now:?}: {over:?}");
        }
    }

    #[test]
    fn agents_that_are_elected_one_after_the_other_wait_for_the_grace_together() {
        let (mut noted, mut passed) = (Gone { since: 1_000, waited: Duration::ZERO, reclaimed: false }, 0);
        // Each is elected for 100 s, and notes what it has waited for each 36 s; its clock shows another year.
        for term in 0_u64.. {
            let (mut watched, mut is_over) = (0, false);
            for _ in 0..100 {
                (watched, passed) = (watched + 1, passed + 1);
                let seen = Duration::from_secs(watched);
                let candidate = Candidate { gone: Some(noted.clone()), watched: seen, ..candidate(None) };
                match step(&candidate, GRACE, at(term * 31_536_000)) {
                    Ok(Some(Step::Note(_, gone))) => (noted, watched) = (gone, 0),
                    Ok(Some(Step::Reclaim(..))) => is_over = true,
                    other => assert!(other.is_err(), "{other:?}"),
                }
                if is_over {
                    break;
                }
            }
            if is_over {
                break;
            }
        }
        assert!((3_600..3_600 * 100 / 72 + 100).contains(&passed), "{passed}");
    }

    #[test]
    fn of_a_node_that_is_not_registered_any_more_nothing_is_noted_and_nothing_stays_noted() {
        let left = |gone| Candidate { is_registered: false, ..candidate(gone) };
        assert_eq!(step(&left(None), GRACE, at(1_000)), Ok(None));
        assert_eq!(step(&left(Some(1_000)), GRACE, at(1_001)), Ok(Some(Step::Forget("n".parse().unwrap()))));
    }

    #[test]
    fn only_registered_nodes_without_a_node_object_are_looked_at_and_those_that_have_one_again_are_forgotten() {
        let gone = Some(Gone { since: 1, waited: Duration::ZERO, reclaimed: false });
        let registered = [("a", None), ("b", gone.clone()), ("c", gone)];
        let registered = registered.into_iter().map(|(name, gone)| (name.parse().unwrap(), gone)).collect();
        let kubernetes = ["a", "b", "elsewhere"].map(str::to_owned).into();
        let names: Vec<_> =
            candidates(&registered, &kubernetes).into_iter().map(|(node, _)| node.to_string()).collect();
        assert_eq!(names, ["c"]);
        assert_eq!(returned(&registered, &kubernetes), [Step::Forget("b".parse().unwrap())]);
    }
}
