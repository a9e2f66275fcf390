//! The store in memory: the common behaviour, and the failures that it feigns.

use std::sync::Arc;
use std::time::Duration;

use store::{Check, Memory, Outcome, Store, StoreError, Write};

use crate::behaviour::behaves_as_a_store;
use crate::watching::{Watching, key, put, values};

async fn open() -> Option<(Arc<dyn Store>, ())> {
    Some((Arc::new(Memory::new()), ()))
}

behaves_as_a_store!(open());

#[tokio::test]
async fn while_it_is_unavailable_calls_fail_and_watches_resume_without_a_restart() {
    let store = Memory::new();
    let mut watching = Watching::in_sync(&store, "a/").await;
    put(&store, "a/1", "1").await;
    watching.until_said("a/1=1").await;
    store.set_available(false);
    assert!(matches!(store.get(&key("a/1")).await, Err(StoreError::Unavailable { .. })));
    assert!(store.transact(vec![], vec![]).await.unwrap_err().is_transient());
    store.set_available(true);
    put(&store, "a/2", "2").await;
    watching.until_state(&values(&[("a/1", "1"), ("a/2", "2")])).await;
    assert_eq!(watching.restarts(), 1);
}

#[tokio::test]
async fn conflicts_and_lost_replies_come_as_often_as_asked_for() {
    let store = Memory::new();
    let write = || vec![Write::put(key("a/1"), b"v".to_vec())];
    store.conflict_next(1);
    assert_eq!(store.transact(vec![], write()).await.unwrap(), Outcome::Conflict);
    store.lose_next_replies(1);
    assert!(store.transact(vec![Check::absent(key("a/1"))], write()).await.unwrap_err().is_transient());
    assert!(store.get(&key("a/1")).await.unwrap().is_some(), "the lost reply was that of a commit");
    assert!(store.transact(vec![], write()).await.unwrap().is_committed());
    assert_eq!(store.transactions(), 3);
}

#[tokio::test]
async fn a_watch_that_missed_a_compaction_or_a_change_of_incarnation_lists_anew() {
    let store = Memory::new();
    put(&store, "a/1", "1").await;
    let mut watching = Watching::in_sync(&store, "a/").await;
    store.set_available(false);
    store.compact();
    store.set_available(true);
    put(&store, "a/2", "2").await;
    watching.until_state(&values(&[("a/1", "1"), ("a/2", "2")])).await;
    assert_eq!(watching.restarts(), 1, "nothing was missed yet");

    store.change_incarnation();
    watching.until_said("restart").await;
    store.wipe();
    watching.until_state(&values(&[])).await;
    assert!(watching.restarts() > 1);
}

#[tokio::test]
async fn an_expired_session_is_lost_with_its_entries() {
    let store = Memory::new();
    let session = store.session(Duration::from_secs(30)).await.unwrap();
    let write = Write::Put { key: key("a/1"), value: vec![], session: Some(session.id()) };
    store.transact(vec![], vec![write]).await.unwrap();
    store.expire(session.id());
    session.lost().await;
    assert_eq!(store.get(&key("a/1")).await.unwrap(), None);
    session.end().await.unwrap();
}

#[tokio::test]
async fn a_closed_store_ends_its_watches() {
    let store = Memory::new();
    let mut updates = store.watch(key("a/"));
    store.close().await;
    while updates.recv().await.is_some() {}
}
