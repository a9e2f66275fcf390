use super::*;

#[test]
fn a_list_older_than_what_was_seen_is_refused_until_it_is_clear_that_history_went_back() {
    let mut history = History::default();
    assert_eq!(history.judge("100"), Judgement::Newer, "nothing was seen before");
    history.saw("120");
    history.saw("110");
    assert_eq!(history.judge("119"), Judgement::Older);
    assert_eq!(history.judge("120"), Judgement::Newer, "the server has caught up");
    for _ in 0..REFUSALS {
        assert_eq!(history.judge("7"), Judgement::Older);
    }
    assert_eq!(history.judge("7"), Judgement::WentBack);
    assert_eq!(history.judge("8"), Judgement::Newer, "the restored history is the one that counts");
}

#[test]
fn a_watch_resumes_only_at_a_server_that_has_all_that_was_seen() {
    let mut history = History::default();
    assert!(history.continues_at("1"));
    history.saw("50");
    assert!(history.continues_at("50") && history.continues_at("51"));
    assert!(!history.continues_at("49"));
    assert!(history.continues_at("opaque"), "what cannot be compared is not held against the server");
}
