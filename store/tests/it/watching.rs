//! What tests look at of a watch.

use std::collections::BTreeMap;
use std::time::Duration;

use store::{Entry, Key, Store, Write};
use tokio::sync::mpsc;
use types::Update;

/// Longer than anything takes that works.
pub(crate) const TEST_TIME_LIMIT: Duration = Duration::from_secs(30);

pub(crate) type Values = BTreeMap<String, String>;

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) async fn put(store: &dyn Store, text: &str, value: &str) {
    let write = Write::put(key(text), value.as_bytes().to_vec());
    assert!(store.transact(vec![], vec![write]).await.unwrap().is_committed());
}

pub(crate) async fn delete(store: &dyn Store, text: &str) {
    assert!(store.transact(vec![], vec![Write::delete(key(text))]).await.unwrap().is_committed());
}

/// A watch, and what it has said so far.
pub(crate) struct Watching {
    updates: mpsc::Receiver<Update<Key, Entry>>,
    /// As a receiver would hold it.
    pub(crate) state: Values,
    /// Each update in short: `restart`, `a/1=x`, `-a/1`, `in sync`.
    pub(crate) said: Vec<String>,
    /// What was set since the last restart, until in sync.
    listing: Option<Values>,
}

impl Watching {
    pub(crate) fn new(store: &dyn Store, prefix: &str) -> Self {
        let updates = store.watch(key(prefix));
        Self { updates, state: Values::new(), said: Vec::new(), listing: None }
    }

    /// A watch that has listed.
    pub(crate) async fn in_sync(store: &dyn Store, prefix: &str) -> Self {
        let mut watching = Self::new(store, prefix);
        watching.until("in sync", |watching| watching.said.last().is_some_and(|said| said == "in sync")).await;
        watching
    }

    pub(crate) async fn until_state(&mut self, expected: &Values) {
        self.until(&format!("the state {expected:?}"), |watching| {
            watching.listing.is_none() && watching.state == *expected
        })
        .await;
    }

    pub(crate) async fn until_said(&mut self, expected: &str) {
        self.until(expected, |watching| watching.said.iter().any(|said| said == expected)).await;
    }

    pub(crate) fn restarts(&self) -> usize {
        self.said.iter().filter(|said| *said == "restart").count()
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !reached(self) {
                let update = self.updates.recv().await.expect("the watch ended");
                self.take(update);
            }
        };
        if tokio::time::timeout(TEST_TIME_LIMIT, waiting).await.is_err() {
            panic!("the watch never came to {what}; state {:?}, it said {:?}", self.state, self.said);
        }
    }

    fn take(&mut self, update: Update<Key, Entry>) {
        match update {
            Update::Restart => {
                self.listing = Some(Values::new());
                self.said.push("restart".to_owned());
            }
            Update::Set(key, entry) => {
                assert_eq!(key, entry.key);
                let value = String::from_utf8(entry.value).unwrap();
                self.said.push(format!("{key}={value}"));
                self.listing.as_mut().unwrap_or(&mut self.state).insert(key.to_string(), value);
            }
            Update::Delete(key) => {
                self.said.push(format!("-{key}"));
                self.listing.as_mut().unwrap_or(&mut self.state).remove(key.as_str());
            }
            Update::InSync => {
                self.state = self.listing.take().expect("in sync without a restart");
                self.said.push("in sync".to_owned());
            }
        }
    }
}
