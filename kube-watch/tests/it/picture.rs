//! A reader of updates, which draws the picture that they give.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use kube_watch::{Resource, Status, WatchStatus};
use tokio::sync::{mpsc, watch};
use types::Update;

/// Long enough for anything that is going to happen.
pub(crate) const TEST_TIME_LIMIT: Duration = Duration::from_secs(60);

/// What a watch has said so far.
pub(crate) struct Picture<K, V> {
    updates: mpsc::Receiver<Update<K, V>>,
    /// What is there.
    pub(crate) now: BTreeMap<K, V>,
    /// What the listing under way has not named yet.
    unconfirmed: BTreeSet<K>,
    /// Everything it has said, in order.
    pub(crate) said: Vec<Said<K>>,
}

/// An update without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said<K> {
    Restart,
    Set(K),
    Delete(K),
    InSync,
}

impl<K: Ord + Clone + Debug, V> Picture<K, V> {
    pub(crate) const fn new(updates: mpsc::Receiver<Update<K, V>>) -> Self {
        Self { updates, now: BTreeMap::new(), unconfirmed: BTreeSet::new(), said: Vec::new() }
    }

    /// Reads until what was said fulfils a condition.
    pub(crate) async fn until(&mut self, what: &str, mut fulfilled: impl FnMut(&Self) -> bool) {
        let all = async {
            while !fulfilled(self) {
                self.next().await;
            }
        };
        let ended = tokio::time::timeout(TEST_TIME_LIMIT, all).await.is_ok();
        assert!(ended, "never {what}; it said {:?}", self.said);
    }

    /// Reads until everything was listed so many times.
    pub(crate) async fn in_sync(&mut self, times: usize) {
        self.until("in sync", |picture| picture.count(&Said::InSync) == times).await;
    }

    /// Reads what is said next.
    pub(crate) async fn next(&mut self) {
        match self.updates.recv().await.expect("the watch goes on") {
            Update::Restart => {
                self.unconfirmed = self.now.keys().cloned().collect();
                self.said.push(Said::Restart);
            }
            Update::Set(key, value) => {
                self.unconfirmed.remove(&key);
                self.now.insert(key.clone(), value);
                self.said.push(Said::Set(key));
            }
            Update::Delete(key) => {
                self.now.remove(&key);
                self.said.push(Said::Delete(key));
            }
            Update::InSync => {
                for key in std::mem::take(&mut self.unconfirmed) {
                    self.now.remove(&key);
                }
                self.said.push(Said::InSync);
            }
        }
    }

    /// Nothing more has been said.
    pub(crate) fn is_quiet(&self) -> bool {
        self.updates.is_empty()
    }

    pub(crate) fn count(&self, what: &Said<K>) -> usize {
        self.said.iter().filter(|said| *said == what).count()
    }
}

/// Waits until a watch fares as described.
pub(crate) async fn status_of(
    status: &mut watch::Receiver<Status>,
    resource: Resource,
    is_so: impl Fn(&WatchStatus) -> bool,
) -> WatchStatus {
    let waited = status.wait_for(|status| is_so(&status.watches[&resource]));
    let found =
        tokio::time::timeout(TEST_TIME_LIMIT, waited).await.map(|status| status.unwrap().watches[&resource].clone());
    found.unwrap_or_else(|_| panic!("{resource} never fared so"))
}
