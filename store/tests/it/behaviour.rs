//! What every store does, run against each of them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use store::{Check, Expect, Key, MAX_TRANSACTION_BYTES, Outcome, Store, StoreError, Version, Write};

use crate::watching::{Watching, delete, key, put, values};

/// Makes one test of each behaviour, for the store that `$open` gives (none: it cannot be had here).
macro_rules! behaves {
    ($open:expr; $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((store, _kept)) = $open.await else { return };
                crate::behaviour::$name(store).await;
            }
        )*
    };
}

macro_rules! behaves_as_a_store {
    ($open:expr) => {
        crate::behaviour::behaves!($open;
            an_entry_is_created_once_and_read_back,
            a_write_on_a_stale_version_conflicts_and_writes_nothing,
            a_creation_is_told_from_a_later_one_of_the_same_key,
            of_many_concurrent_increments_none_is_lost,
            a_transaction_that_is_too_large_or_writes_a_key_twice_is_refused,
            a_listing_larger_than_a_message_comes_whole_and_in_order,
            a_watch_lists_then_reports_changes_in_their_order,
            a_watch_reports_its_own_prefix_only,
            an_ended_session_takes_its_entries_with_it,
            what_is_written_with_an_ended_session_is_refused,
        );
    };
}

pub(crate) use {behaves, behaves_as_a_store};

pub(crate) async fn an_entry_is_created_once_and_read_back(store: Arc<dyn Store>) {
    let claim = |value: &str| {
        let key = key("blocks/10.0.0.0-26");
        store.transact(vec![Check::absent(key.clone())], vec![Write::put(key, value.as_bytes().to_vec())])
    };
    assert_eq!(store.get(&key("blocks/10.0.0.0-26")).await.unwrap(), None);
    let Outcome::Committed(version) = claim("first").await.unwrap() else { panic!("conflict on an absent key") };
    assert_eq!(claim("second").await.unwrap(), Outcome::Conflict);
    let entry = store.get(&key("blocks/10.0.0.0-26")).await.unwrap().unwrap();
    assert_eq!((entry.value.as_slice(), entry.version, entry.created), (&b"first"[..], version, version));
}

pub(crate) async fn a_write_on_a_stale_version_conflicts_and_writes_nothing(store: Arc<dyn Store>) {
    put(&*store, "a/1", "old").await;
    let stale = store.get(&key("a/1")).await.unwrap().unwrap();
    put(&*store, "a/1", "new").await;
    let writes = vec![Write::put(key("a/1"), b"mine".to_vec()), Write::put(key("a/2"), b"mine".to_vec())];
    let outcome = store.transact(vec![Check::unchanged(&stale)], writes.clone()).await.unwrap();
    assert_eq!(outcome, Outcome::Conflict);
    assert_eq!(store.get(&key("a/1")).await.unwrap().unwrap().value, b"new");
    assert_eq!(store.get(&key("a/2")).await.unwrap(), None);

    let fresh = store.get(&key("a/1")).await.unwrap().unwrap();
    assert!(fresh.version > stale.version);
    assert!(store.transact(vec![Check::unchanged(&fresh)], writes).await.unwrap().is_committed());
    assert_eq!(store.get(&key("a/2")).await.unwrap().unwrap().value, b"mine");
    let absent = Check { key: key("a/3"), expect: Expect::Present };
    assert_eq!(store.transact(vec![absent], vec![]).await.unwrap(), Outcome::Conflict);
}

pub(crate) async fn a_creation_is_told_from_a_later_one_of_the_same_key(store: Arc<dyn Store>) {
    put(&*store, "a/1", "1").await;
    let created = store.get(&key("a/1")).await.unwrap().unwrap().created;
    put(&*store, "a/1", "2").await;
    let same = || store.transact(vec![Check::created(key("a/1"), created)], vec![]);
    assert!(same().await.unwrap().is_committed(), "a rewritten entry is still the same creation");
    delete(&*store, "a/1").await;
    assert_eq!(same().await.unwrap(), Outcome::Conflict);
    put(&*store, "a/1", "3").await;
    assert_eq!(same().await.unwrap(), Outcome::Conflict);
    let never = Check::created(key("a/1"), Version::new(u64::MAX));
    assert_eq!(store.transact(vec![never], vec![]).await.unwrap(), Outcome::Conflict);
}

pub(crate) async fn of_many_concurrent_increments_none_is_lost(store: Arc<dyn Store>) {
    put(&*store, "counter", "0").await;
    let increment = || async {
        for _ in 0..5 {
            loop {
                let entry = store.get(&key("counter")).await.unwrap().unwrap();
                let count: u32 = String::from_utf8(entry.value.clone()).unwrap().parse().unwrap();
                let write = Write::put(key("counter"), (count + 1).to_string().into_bytes());
                if store.transact(vec![Check::unchanged(&entry)], vec![write]).await.unwrap().is_committed() {
                    break;
                }
            }
        }
    };
    join_all((0..8).map(|_| increment())).await;
    assert_eq!(store.get(&key("counter")).await.unwrap().unwrap().value, b"40");
}

pub(crate) async fn a_transaction_that_is_too_large_or_writes_a_key_twice_is_refused(store: Arc<dyn Store>) {
    let write = |number: usize| Write::put(key(&format!("a/{number}")), b"v".to_vec());
    assert!(store.transact(vec![], (0..128).map(write).collect()).await.unwrap().is_committed());
    let error = store.transact(vec![], (0..129).map(write).collect()).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid request: 129 operations in a transaction, at most 128");
    let sized = |bytes: usize| vec![Write::put(key("a/1"), vec![0; bytes - 3])];
    assert!(store.transact(vec![], sized(MAX_TRANSACTION_BYTES)).await.unwrap().is_committed());
    let error = store.transact(vec![], sized(MAX_TRANSACTION_BYTES + 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid request: 1400001 bytes in a transaction, at most 1400000");
    let error = store.transact(vec![], vec![write(1), Write::delete(key("a/1"))]).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid request: a/1 is written twice in a transaction");
}

pub(crate) async fn a_listing_larger_than_a_message_comes_whole_and_in_order(store: Arc<dyn Store>) {
    let large = vec![b'x'; 300 << 10];
    let mut expected: Vec<(Key, usize)> = Vec::new();
    // More than a page of small entries, then 6 MiB of large ones, then small ones again.
    for chunk in (0..640).collect::<Vec<_>>().chunks(128) {
        let keys = chunk.iter().flat_map(|number| [key(&format!("a/1-{number:04}")), key(&format!("a/3-{number:04}"))]);
        for half in keys.collect::<Vec<_>>().chunks(128) {
            let writes = half.iter().map(|key| Write::put(key.clone(), b"v".to_vec())).collect();
            assert!(store.transact(vec![], writes).await.unwrap().is_committed());
            expected.extend(half.iter().map(|key| (key.clone(), 1)));
        }
    }
    for number in 0..20 {
        let key = key(&format!("a/2-{number:02}"));
        assert!(store.transact(vec![], vec![Write::put(key.clone(), large.clone())]).await.unwrap().is_committed());
        expected.push((key, large.len()));
    }
    put(&*store, "a0", "a neighbour").await;
    expected.sort();

    let listing = store.list(&key("a/")).await.unwrap();
    let listed: Vec<(Key, usize)> =
        listing.entries.iter().map(|entry| (entry.key.clone(), entry.value.len())).collect();
    assert!(listed == expected, "{} entries of {}", listed.len(), expected.len());
    assert!(listing.entries.iter().all(|entry| entry.version <= listing.version));
    let again = store.list(&key("a/")).await.unwrap();
    assert_eq!(again.incarnation, listing.incarnation);

    let watching = Watching::in_sync(&*store, "a/").await;
    assert_eq!(watching.state.len(), expected.len());
}

pub(crate) async fn a_watch_lists_then_reports_changes_in_their_order(store: Arc<dyn Store>) {
    put(&*store, "a/1", "1").await;
    put(&*store, "a/2", "2").await;
    let mut watching = Watching::in_sync(&*store, "a/").await;
    assert_eq!(watching.said, ["restart", "a/1=1", "a/2=2", "in sync"]);

    put(&*store, "a/3", "3").await;
    delete(&*store, "a/1").await;
    put(&*store, "a/1", "again").await;
    let both = vec![Write::put(key("a/2"), b"both".to_vec()), Write::delete(key("a/3"))];
    assert!(store.transact(vec![], both).await.unwrap().is_committed());
    watching.until_state(&values(&[("a/1", "again"), ("a/2", "both")])).await;
    assert_eq!(watching.said[4..], ["a/3=3", "-a/1", "a/1=again", "a/2=both", "-a/3"]);
}

pub(crate) async fn a_watch_reports_its_own_prefix_only(store: Arc<dyn Store>) {
    let mut all = Watching::in_sync(&*store, "a/").await;
    let mut some = Watching::in_sync(&*store, "a/b/").await;
    for text in ["a/b/1", "a/c/1", "a/b0", "a0", "a/b/2"] {
        put(&*store, text, "v").await;
    }
    some.until_state(&values(&[("a/b/1", "v"), ("a/b/2", "v")])).await;
    assert_eq!(some.said, ["restart", "in sync", "a/b/1=v", "a/b/2=v"]);
    all.until_said("a/b/2=v").await;
    assert_eq!(all.state.len(), 4);
}

pub(crate) async fn an_ended_session_takes_its_entries_with_it(store: Arc<dyn Store>) {
    let session = store.session(Duration::from_secs(30)).await.unwrap();
    let bound = |text: &str| Write::Put { key: key(text), value: b"me".to_vec(), session: Some(session.id()) };
    let writes = vec![bound("nodes/a/alive"), Write::put(key("nodes/a/registration"), b"stays".to_vec())];
    assert!(store.transact(vec![], writes).await.unwrap().is_committed());
    let mut watching = Watching::in_sync(&*store, "nodes/").await;
    assert!(!session.is_lost());
    session.end().await.unwrap();
    watching.until_state(&values(&[("nodes/a/registration", "stays")])).await;
    assert_eq!(store.get(&key("nodes/a/alive")).await.unwrap(), None);
}

pub(crate) async fn what_is_written_with_an_ended_session_is_refused(store: Arc<dyn Store>) {
    let session = store.session(Duration::from_secs(30)).await.unwrap();
    let id = session.id();
    session.end().await.unwrap();
    let write = Write::Put { key: key("nodes/a/alive"), value: b"me".to_vec(), session: Some(id) };
    let error = store.transact(vec![], vec![write]).await.unwrap_err();
    assert_eq!(error, StoreError::SessionLost { session: id, key: key("nodes/a/alive") });
    assert_eq!(store.get(&key("nodes/a/alive")).await.unwrap(), None);
}
