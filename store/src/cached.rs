//! A store whose watches begin with what was last seen, where the store itself is away.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::Update;

use crate::tasks::Tasks;
use crate::{Cache, Check, Entry, Key, Listing, Outcome, Session, Store, StoreError, Write};

/// Every watch is written behind to the [`Cache`]. Where the store says nothing for a while after a watch was opened, and
/// the cache knows its prefix, the watch reports the cached entries as `Restart`, `Set`.., `InSync`; when the store comes,
/// its own `Restart` replaces them. All other calls go to the store alone and fail while it is away.
#[derive(Debug)]
pub struct Cached<S> {
    /// The store that the cache stands before.
    store: S,
    /// The cache, which remembers what was last seen of the store.
    cache: Cache,
    /// So long a watch waits for the store before it turns to the cache.
    store_wait: Duration,
    /// The tasks of the watches.
    tasks: Tasks,
}

impl<S: Store> Cached<S> {
    /// Puts the cache before the store.
    pub fn new(store: S, cache: Cache, store_wait: Duration) -> Self {
        Self { store, cache, store_wait, tasks: Tasks::new() }
    }

    /// The store itself.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Ends the watches and waits until what they have seen is in the cache. The store is left open.
    pub async fn close(&self) {
        self.tasks.close().await;
        // The cache has logged what is wrong with it.
        let _ = self.cache.flush().await;
    }
}

impl<S: Store> Store for Cached<S> {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.store.get(key)
    }

    fn list(&self, prefix: &Key) -> BoxFuture<'_, Result<Listing, StoreError>> {
        self.store.list(prefix)
    }

    fn watch(&self, prefix: Key) -> mpsc::Receiver<Update<Key, Entry>> {
        let from = self.store.watch(prefix.clone());
        let (cache, store_wait) = (self.cache.clone(), self.store_wait);
        self.tasks.watch(|to, closed| follow(prefix, from, cache, store_wait, to, closed))
    }

    fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.store.transact(checks, writes)
    }

    fn session(&self, ttl: Duration) -> BoxFuture<'_, Result<Session, StoreError>> {
        self.store.session(ttl)
    }
}

impl<T: Store + ?Sized> Store for Arc<T> {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        (**self).get(key)
    }

    fn list(&self, prefix: &Key) -> BoxFuture<'_, Result<Listing, StoreError>> {
        (**self).list(prefix)
    }

    fn watch(&self, prefix: Key) -> mpsc::Receiver<Update<Key, Entry>> {
        (**self).watch(prefix)
    }

    fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        (**self).transact(checks, writes)
    }

    fn session(&self, ttl: Duration) -> BoxFuture<'_, Result<Session, StoreError>> {
        (**self).session(ttl)
    }
}

/// One watch, until the receiver is gone or the store is closed.
async fn follow(
    prefix: Key,
    from: mpsc::Receiver<Update<Key, Entry>>,
    cache: Cache,
    store_wait: Duration,
    to: mpsc::Sender<Update<Key, Entry>>,
    closed: CancellationToken,
) {
    tokio::select! {
        () = remembered_as::<AsStored>(prefix, from, cache, store_wait, to.clone()) => {}
        () = to.closed() => {}
        () = closed.cancelled() => {}
    }
}

/// How a source's objects are kept in the cache. They travel as the source gives them and are decoded from the cache only
/// where the source is away.
pub trait CacheForm: 'static {
    /// What the source calls an object.
    type Key: Send;
    /// What it says of one.
    type Value: Send;

    /// Where the cache keeps an object of this name. An object that has no place there is nobody's: it is not passed on
    /// either, so that what a restart brings back is what was there before.
    fn key(name: &Self::Key) -> Option<Key>;

    /// What the cache keeps of an object of this name, under this key.
    fn entry(name: &Self::Key, key: Key, value: &Self::Value) -> Entry;

    /// The object of an entry; none where it cannot be read and is as good as absent.
    fn object(entry: Entry) -> Option<(Self::Key, Self::Value)>;
}

/// Objects that are entries of the shared store.
enum AsStored {}

impl CacheForm for AsStored {
    type Key = Key;
    type Value = Entry;

    fn key(key: &Key) -> Option<Key> {
        Some(key.clone())
    }

    fn entry(_: &Key, _: Key, value: &Entry) -> Entry {
        value.clone()
    }

    fn object(entry: Entry) -> Option<(Key, Entry)> {
        Some((entry.key.clone(), entry))
    }
}

/// Passes on what a source says, and writes it behind to the cache, under keys that begin with `prefix`. Where the source
/// says nothing for as long as `store_wait`, what the cache knows comes first, as [`Cached`] has it. Ends with the source, or
/// when nobody listens any more.
pub async fn remembered_as<F: CacheForm>(
    prefix: Key,
    mut from: mpsc::Receiver<Update<F::Key, F::Value>>,
    cache: Cache,
    store_wait: Duration,
    to: mpsc::Sender<Update<F::Key, F::Value>>,
) {
    let mut next = match tokio::time::timeout(store_wait, answer(&mut from)).await {
        Ok(answer) => answer,
        Err(_) => {
            if let Some(entries) = last_seen(&cache, &prefix).await {
                for update in Update::listing(entries.into_iter().filter_map(F::object)) {
                    if to.send(update).await.is_err() {
                        return;
                    }
                }
            }
            answer(&mut from).await
        }
    };
    if next.is_some() {
        cache.take(&prefix, Update::Restart);
        if to.send(Update::Restart).await.is_err() {
            return;
        }
    }
    while let Some(update) = next {
        if let Some(entry) = written::<F>(&update) {
            cache.take(&prefix, entry);
            if to.send(update).await.is_err() {
                return;
            }
        }
        next = from.recv().await;
    }
}

/// An update as the cache takes it; none where it is about an object that has no place there.
fn written<F: CacheForm>(update: &Update<F::Key, F::Value>) -> Option<Update<Key, Entry>> {
    let keyed = update.as_ref().filter_map(|name| Some((name, F::key(name)?)))?;
    let kept = keyed.map(|keyed| keyed, |(name, key), value| F::entry(name, key.clone(), value));
    Some(kept.map(|(_, key)| key, |_, entry| entry))
}

/// The first that the store says of its state. A watch says `Restart` when it begins to list, before the store has
/// answered: what follows shows that it is there.
async fn answer<K, V>(from: &mut mpsc::Receiver<Update<K, V>>) -> Option<Update<K, V>> {
    loop {
        match from.recv().await {
            Some(Update::Restart) => {}
            update => return update,
        }
    }
}

/// The cached entries; none where it is not known what there is, or the cache cannot be read.
async fn last_seen(cache: &Cache, prefix: &Key) -> Option<Vec<Entry>> {
    match cache.load_complete(prefix).await {
        Ok(Some(entries)) => {
            tracing::warn!(%prefix, entries = entries.len(), "the store does not answer; these entries are used as they were last seen");
            Some(entries)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%prefix, %error, "the store does not answer, and what was last seen of it cannot be read from the cache");
            None
        }
    }
}
