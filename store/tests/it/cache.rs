//! The cache: the last that was seen is there at the next start, and stands in for a store that is away.

use std::path::Path;
use std::time::Duration;

use store::{Cache, CacheForm, Cached, Entry, Key, Memory, Version};
use tokio::sync::mpsc;
use types::Update;

use crate::watching::{Watching, key, put, values};

/// What a watch on `a/` says that lists these keys.
fn list(cache: &Cache, keys: &[&str]) {
    cache.put(&key("a/"), &Update::Restart);
    keys.iter().for_each(|text| set(cache, text, 1));
    cache.put(&key("a/"), &Update::InSync);
}

fn set(cache: &Cache, text: &str, version: u64) {
    cache.put(&key("a/"), &Update::Set(key(text), entry(text, version)));
}

fn entry(text: &str, version: u64) -> Entry {
    Entry { key: key(text), value: b"v".to_vec(), version: Version::new(version), created: Version::new(1) }
}

async fn keys(cache: &Cache, prefix: &str) -> Option<Vec<String>> {
    let entries = cache.load_complete(&key(prefix)).await.unwrap()?;
    Some(entries.into_iter().map(|entry| entry.key.to_string()).collect())
}

fn some(keys: &[&str]) -> Option<Vec<String>> {
    Some(keys.iter().map(|key| (*key).to_owned()).collect())
}

/// The thread of a dropped handle may hold the file a moment longer.
async fn reopened(file: &Path) -> Cache {
    loop {
        match Cache::open(file) {
            Ok(cache) => return cache,
            Err(error) => assert!(error.is_disk(), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_seen_is_there_after_a_restart_in_order() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("cache.db");
    let cache = Cache::open(&file).unwrap();
    list(&cache, &["a/2", "a/1"]);
    cache.put(&key("a/"), &Update::Delete(key("a/2")));
    set(&cache, "a/1", 9);
    cache.flush().await.unwrap();
    drop(cache);

    let cache = reopened(&file).await;
    assert_eq!(cache.load(&key("a/")).await.unwrap(), [entry("a/1", 9)]);
}

#[tokio::test]
async fn a_prefix_that_was_never_in_sync_is_unknown_and_not_empty() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(scratch.path().join("cache.db")).unwrap();
    cache.put(&key("a/"), &Update::Restart);
    set(&cache, "a/1", 1);
    assert_eq!(keys(&cache, "a/").await, None);
    cache.put(&key("a/"), &Update::InSync);
    assert_eq!(keys(&cache, "a/").await, some(&["a/1"]));
    list(&cache, &[]);
    assert_eq!(keys(&cache, "a/").await, some(&[]));
}

#[tokio::test]
async fn what_is_not_set_between_restart_and_in_sync_is_forgotten_and_not_before() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(scratch.path().join("cache.db")).unwrap();
    list(&cache, &["a/1", "a/2"]);
    cache.put(&key("b/"), &Update::Restart);
    cache.put(&key("b/"), &Update::Set(key("b/1"), entry("b/1", 1)));
    cache.put(&key("b/"), &Update::InSync);
    cache.flush().await.unwrap();
    cache.put(&key("a/"), &Update::Restart);
    set(&cache, "a/3", 2);
    assert_eq!(keys(&cache, "a/").await, some(&["a/1", "a/2", "a/3"]));
    set(&cache, "a/2", 2);
    cache.put(&key("a/"), &Update::InSync);
    set(&cache, "a/4", 3);
    assert_eq!(keys(&cache, "a/").await, some(&["a/2", "a/3", "a/4"]));
    assert_eq!(keys(&cache, "b/").await, some(&["b/1"]));
}

#[tokio::test]
async fn a_damaged_cache_or_a_newer_one_is_made_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let (damaged, newer) = (scratch.path().join("damaged.db"), scratch.path().join("newer.db"));
    std::fs::write(&damaged, vec![b'x'; 8192]).unwrap();
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 7).unwrap();
    for file in [damaged, newer] {
        let cache = Cache::open(&file).unwrap();
        assert_eq!(keys(&cache, "a/").await, None);
        list(&cache, &["a/1"]);
        assert_eq!(keys(&cache, "a/").await, some(&["a/1"]));
    }
}

#[tokio::test]
async fn a_watch_begins_with_what_was_last_seen_where_the_store_is_away_and_is_corrected_when_it_comes() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("cache.db");
    let memory = Memory::new();
    put(&memory, "a/1", "1").await;
    put(&memory, "a/2", "2").await;
    let store_wait = Duration::from_millis(50);
    let cached = Cached::new(memory.clone(), Cache::open(&file).unwrap(), store_wait);
    Watching::in_sync(&cached, "a/").await;
    cached.close().await;
    drop(cached);

    memory.set_available(false);
    let cached = Cached::new(memory.clone(), reopened(&file).await, store_wait);
    let mut watching = Watching::in_sync(&cached, "a/").await;
    assert_eq!(watching.state, values(&[("a/1", "1"), ("a/2", "2")]));
    let mut unknown = Watching::new(&cached, "b/");
    memory.set_available(true);
    crate::watching::delete(&memory, "a/1").await;
    put(&memory, "b/1", "1").await;
    watching.until_state(&values(&[("a/2", "2")])).await;
    unknown.until_state(&values(&[("b/1", "1")])).await;
    assert_eq!(unknown.restarts(), 1, "nothing was said of a prefix of which nothing was known");
}

/// Numbers by name, as `{"version":1,"spec":NUMBER}` under `n/NAME`.
enum Numbers {}

impl CacheForm for Numbers {
    type Key = String;
    type Value = u32;

    fn key(name: &String) -> Option<Key> {
        Key::new(format!("n/{name}")).ok()
    }

    fn entry(_: &String, key: Key, number: &u32) -> Entry {
        Entry { key, value: store::encode(number), version: Version::new(0), created: Version::new(0) }
    }

    fn object(entry: Entry) -> Option<(String, u32)> {
        let number = store::decode(&entry.key, &entry.value).ok()?;
        Some((entry.key.as_str().strip_prefix("n/")?.to_owned(), number))
    }
}

/// What a receiver hears of a source of numbers that says this and then nothing.
async fn heard(cache: &Cache, says: &[Update<String, u32>]) -> Vec<Update<String, u32>> {
    let (source, from) = mpsc::channel(8);
    let (to, mut heard) = mpsc::channel(8);
    for update in says {
        source.send(update.clone()).await.unwrap();
    }
    let store_wait = Duration::from_millis(50);
    let hearing = async {
        let mut updates = Vec::new();
        while updates.last() != Some(&Update::InSync) {
            updates.push(heard.recv().await.unwrap());
        }
        updates
    };
    tokio::select! {
        () = store::remembered_as::<Numbers>(key("n/"), from, cache.clone(), store_wait, to) => panic!("it ends"),
        heard = hearing => heard,
    }
}

#[tokio::test]
async fn objects_pass_as_their_source_gives_them_and_are_read_from_the_cache_only_while_it_is_silent() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("cache.db");
    let cache = Cache::open(&file).unwrap();
    let named = |name: &str, number| Update::Set(name.to_owned(), number);
    let no_key = named("no key: \u{fc}", 3);
    let says = [Update::Restart, named("a", 1), no_key, named("b", 2), Update::InSync];
    let passed = [Update::Restart, named("a", 1), named("b", 2), Update::InSync];
    assert_eq!(heard(&cache, &says).await, passed);
    let kept = cache.load(&key("n/")).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice())).collect();
    assert_eq!(kept, [("n/a", &br#"{"version":1,"spec":1}"#[..]), ("n/b", br#"{"version":1,"spec":2}"#)]);

    let unreadable = Entry { value: br#"{"version":2,"spec":2}"#.to_vec(), ..entry("n/b", 0) };
    cache.put(&key("n/"), &Update::Set(key("n/b"), unreadable));
    cache.flush().await.unwrap();
    drop(cache);
    let silent = heard(&reopened(&file).await, &[Update::Restart]).await;
    assert_eq!(silent, [Update::Restart, named("a", 1), Update::InSync]);
}
