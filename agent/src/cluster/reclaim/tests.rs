use super::*;

const GRACE: Duration = Duration::from_secs(3_600);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn is_waited_for(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Wait(_))
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
    assert!(is_waited_for(&judge(&alive, GRACE, at(1_000))));
    let noted = Gone { since: 1_000, waited: Duration::ZERO, reclaimed: false };
    assert_eq!(
        judge(&candidate(None), GRACE, at(1_000)),
        Verdict::Act(ReclaimAction::Note(node.clone(), noted.clone()))
    );
    let waiting = Candidate { watched: Duration::from_secs(35), ..candidate(Some(3_560)) };
    assert_eq!(judge(&waiting, GRACE, at(1_000)), Verdict::Wait(Duration::from_secs(1)));
    let over = Candidate { watched: Duration::from_secs(35), ..candidate(Some(3_565)) };
    let reclaimed = Gone { waited: Duration::from_secs(3_565), reclaimed: true, ..noted };
    assert_eq!(judge(&over, GRACE, at(1_000)), Verdict::Act(ReclaimAction::Reclaim(node, reclaimed)));
}

#[test]
fn who_is_heard_or_back_keeps_what_it_has() {
    let heard = Candidate { is_heard: true, ..candidate(Some(3_600)) };
    assert!(is_waited_for(&judge(&heard, GRACE, at(1_000))));
    let back = Candidate { is_alive: true, ..candidate(Some(3_600)) };
    assert_eq!(judge(&back, GRACE, at(1_000)), Verdict::Act(ReclaimAction::Forget("n".parse().unwrap())));
}

#[test]
fn no_wall_clock_makes_the_grace_shorter_or_endless() {
    let year = 365 * 24 * 3_600;
    for now in [at(0), at(5), at(1_000), at(year), at(100 * year)] {
        assert!(is_waited_for(&judge(&candidate(Some(0)), GRACE, now)), "{now:?}");
        let over = judge(&candidate(Some(3_600)), GRACE, now);
        assert!(matches!(over, Verdict::Act(ReclaimAction::Reclaim(..))), "{now:?}: {over:?}");
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
            match judge(&candidate, GRACE, at(term * 31_536_000)) {
                Verdict::Act(ReclaimAction::Note(_, gone)) => (noted, watched) = (gone, 0),
                Verdict::Act(ReclaimAction::Reclaim(..)) => is_over = true,
                other => assert!(is_waited_for(&other), "{other:?}"),
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
    assert_eq!(judge(&left(None), GRACE, at(1_000)), Verdict::NothingLeft);
    assert_eq!(judge(&left(Some(1_000)), GRACE, at(1_001)), Verdict::Act(ReclaimAction::Forget("n".parse().unwrap())));
}

#[test]
fn only_registered_nodes_without_a_node_object_are_looked_at_and_those_that_have_one_again_are_forgotten() {
    let gone = Some(Gone { since: 1, waited: Duration::ZERO, reclaimed: false });
    let registered = [("a", None), ("b", gone.clone()), ("c", gone)];
    let registered = registered.into_iter().map(|(name, gone)| (name.parse().unwrap(), gone)).collect();
    let kubernetes = ["a", "b", "elsewhere"].map(str::to_owned).into();
    let names: Vec<_> = candidates(&registered, &kubernetes).into_iter().map(|(node, _)| node.to_string()).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(returned(&registered, &kubernetes), [ReclaimAction::Forget("b".parse().unwrap())]);
}
