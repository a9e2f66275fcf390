use super::*;

const LISTED: ClusterState = ClusterState { cluster: 7, revision: 10, term: 3 };

#[test]
fn a_watch_resumes_behind_what_was_listed_reported_or_notified() {
    let mut position = Position::listed(LISTED);
    assert_eq!((position.resume_at(), position.skip()), (11, 0));
    position.event(14);
    assert_eq!((position.resume_at(), position.skip()), (14, 1), "revision 14 may have more events");
    position.event(14);
    assert_eq!((position.resume_at(), position.skip()), (14, 2));
    position.event(15);
    assert_eq!((position.resume_at(), position.skip()), (15, 1));
    position.progress(20);
    assert_eq!((position.resume_at(), position.skip()), (21, 0));
    position.progress(19);
    assert_eq!((position.resume_at(), position.skip()), (21, 0), "progress of a lagging member is no news");
}

#[test]
fn another_cluster_or_one_that_went_back_is_another_history() {
    let mut position = Position::listed(LISTED);
    assert!(position.continues_in(LISTED));
    assert!(!position.continues_in(ClusterState { cluster: 8, ..LISTED }));
    assert!(!position.continues_in(ClusterState { revision: 9, ..LISTED }));
    assert!(!position.continues_in(ClusterState { term: 2, ..LISTED }));
    assert!(position.continues_in(ClusterState { revision: 12, term: 4, ..LISTED }));
    assert!(
        position.is_of(ClusterState { cluster: 0, ..LISTED }) && !position.is_of(ClusterState { cluster: 8, ..LISTED })
    );
    assert!(!position.continues_in(LISTED), "what was seen once may not go back");
}
