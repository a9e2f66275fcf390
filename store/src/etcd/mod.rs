//! The store in etcd (API version 3, etcd 3.4 and newer).
//!
//! `config` checks the settings, `endpoints` finds a member that answers and says why none does, `call` makes the
//! requests, `roles` says who may do what, `watch` follows a prefix across failures, `session` keeps a lease alive. [`Version`](crate::Version) is
//! etcd's mod_revision, [`Incarnation`] its cluster id.

mod call;
mod config;
mod endpoints;
mod position;
mod roles;
mod session;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use types::Update;

use crate::data::validate;
use crate::tasks::Tasks;
use crate::{Check, Entry, Incarnation, Key, Listing, Outcome, Session, Store, StoreError, Write};

use call::Calls;
pub use config::EtcdConfig;
use endpoints::Endpoints;

/// The store.
#[derive(Debug)]
pub struct Etcd {
    /// The requests; shared with the tasks.
    calls: Arc<Calls>,
    /// Watches and sessions.
    tasks: Tasks,
}

impl Etcd {
    /// Reads the certificates and prepares the connections. Nothing is sent: etcd may come later, and
    /// each call says so until it does. [`Etcd::probe`] asks whether it is there. To be called inside a tokio runtime.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let prefix = config.settings.prefix.to_string();
        let endpoints = Endpoints::new(&config).await?;
        Ok(Self { calls: Arc::new(Calls::new(endpoints, prefix)), tasks: Tasks::new() })
    }

    /// Asks etcd, with a leader, whether it is there and lets us in; reads the key `version`, which every role needs.
    pub async fn probe(&self) -> Result<Incarnation, StoreError> {
        self.calls.state().await.map(|state| state.incarnation())
    }

    /// Ends all watches and the keeping alive of sessions, and waits for their tasks.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Store for Etcd {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.clone();
        async move { self.calls.get(&key).await }.boxed()
    }

    fn list(&self, prefix: &Key) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let prefix = prefix.clone();
        async move { self.calls.list(&prefix).await }.boxed()
    }

    fn watch(&self, prefix: Key) -> mpsc::Receiver<Update<Key, Entry>> {
        let calls = Arc::clone(&self.calls);
        self.tasks.watch(|to, closed| watch::follow(calls, prefix, to, closed))
    }

    fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            validate(&checks, &writes)?;
            self.calls.transact(checks, writes).await
        }
        .boxed()
    }

    fn session(&self, ttl: Duration) -> BoxFuture<'_, Result<Session, StoreError>> {
        async move {
            let (session, keeping) = session::open(Arc::clone(&self.calls), ttl).await?;
            self.tasks.session(keeping);
            Ok(session)
        }
        .boxed()
    }
}
