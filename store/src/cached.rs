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
    /// The store.
    store: S,
    /// What was last seen of it.
    cache: Cache,
    /// So long a watch waits for the store before it turns to the cache.
    patience: Duration,
    /// The watches.
    tasks: Tasks,
}

impl<S: Store> Cached<S> {
    /// Puts the cache before the store.
    pub fn new(store: S, cache: Cache, patience: Duration) -> Self {
        Self { store, cache, patience, tasks: Tasks::new() }
    }

    /// The store itself.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Ends the watches and waits until what they have seen is in the cache. The store is left open.
    pub async fn close(&self) {
        self.tasks.close().await;
        // The cache has said what is wrong with it.
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
        let (cache, patience) = (self.cache.clone(), self.patience);
        self.tasks.watch(|to, closed| follow(prefix, from, cache, patience, to, closed))
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
    patience: Duration,
    to: mpsc::Sender<Update<Key, Entry>>,
    closed: CancellationToken,
) {
    tokio::select! {
        () = remembered(prefix, from, cache, patience, to.clone()) => {}
        () = to.closed() => {}
        () = closed.cancelled() => {}
    }
}

/// Passes on what a source says of the keys under `prefix`, and writes it behind to the cache. Where the source says
/// nothing for as long as `patience`, what the cache knows comes first, as [`Cached`] has it. Ends with the source, or when
/// nobody listens any more.
pub async fn remembered(
    prefix: Key,
    mut from: mpsc::Receiver<Update<Key, Entry>>,
    cache: Cache,
    patience: Duration,
    to: mpsc::Sender<Update<Key, Entry>>,
) {
    let mut next = match tokio::time::timeout(patience, answer(&mut from)).await {
        Ok(answer) => answer,
        Err(_) => {
            for update in last_seen(&cache, &prefix).await {
                if to.send(update).await.is_err() {
                    return;
                }
            }
            answer(&mut from).await
        }
    };
    if next.is_some() {
        cache.put(&prefix, &Update::Restart);
        if to.send(Update::Restart).await.is_err() {
            return;
        }
    }
    while let Some(update) = next {
        cache.put(&prefix, &update);
        if to.send(update).await.is_err() {
            return;
        }
        next = from.recv().await;
    }
}

/// The first that the store says of its state. A watch says `Restart` when it begins to list, before the store has
/// answered: what follows shows that it is there.
async fn answer(from: &mut mpsc::Receiver<Update<Key, Entry>>) -> Option<Update<Key, Entry>> {
    loop {
        match from.recv().await {
            Some(Update::Restart) => {}
            update => return update,
        }
    }
}

/// The cached listing as a watch reports it; nothing, where nothing is known or the cache cannot be read.
async fn last_seen(cache: &Cache, prefix: &Key) -> Vec<Update<Key, Entry>> {
    match cache.load_complete(prefix).await {
        Ok(Some(entries)) => {
            tracing::warn!(%prefix, entries = entries.len(), "the store does not answer; going on with what was last seen");
            let sets = entries.into_iter().map(|entry| Update::Set(entry.key.clone(), entry));
            std::iter::once(Update::Restart).chain(sets).chain([Update::InSync]).collect()
        }
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::warn!(%prefix, %error, "the store does not answer, and the cache cannot be read");
            Vec::new()
        }
    }
}
