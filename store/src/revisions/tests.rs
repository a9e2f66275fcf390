use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(state: &mut Revisions, text: &str) -> Version {
    let changes = state.plan(&[], &[Write::put(key(text), b"v".to_vec())]).unwrap();
    state.apply(changes)
}

#[test]
fn only_transactions_that_change_something_count() {
    let mut state = Revisions::new(Incarnation::new("a"));
    let first = put(&mut state, "a/1");
    let nothing = state.plan(&[], &[Write::delete(key("a/2"))]).unwrap();
    assert_eq!(state.apply(nothing), first);
    assert!(put(&mut state, "a/1") > first);
    assert_eq!(state.entry(&key("a/1")).unwrap().created, first);
}

#[test]
fn history_is_given_from_any_remembered_revision_and_refused_before_that() {
    let mut state = Revisions::new(Incarnation::new("a"));
    let first = put(&mut state, "a/1").count();
    put(&mut state, "b/1");
    let third = put(&mut state, "a/2").count();
    let keys = |revision| -> Vec<Key> {
        state.since(&key("a/"), revision).unwrap().into_iter().map(|change| change.key).collect()
    };
    assert_eq!(keys(first), [key("a/2")]);
    assert_eq!(keys(first - 1), [key("a/1"), key("a/2")]);
    assert_eq!(keys(third), []);
    assert_eq!(state.since(&key("a/"), third + 1), None, "a revision that has not been is of another history");
    state.compact();
    assert_eq!(state.since(&key("a/"), first), None);
    assert_eq!(state.since(&key("a/"), third), Some(vec![]));
}

#[test]
fn a_prefix_lists_what_is_under_it_and_no_neighbour() {
    let mut state = Revisions::new(Incarnation::new("a"));
    for text in ["a/1", "a0", "a/2", "a", "b/1"] {
        put(&mut state, text);
    }
    let keys: Vec<Key> = state.listing(&key("a/")).entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [key("a/1"), key("a/2")]);
}
