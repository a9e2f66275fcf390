//! What Manx remembers: resources, block claims, registrations and endpoints in a store that the nodes share, and a
//! node's own journal and cache on its disk.
//!
//! [`Store`] is the one face of the shared store; behind it stand [`etcd`], [`local`] (one node without etcd) and
//! [`memory`] (tests). Correctness above this crate needs no more than compare-and-swap on one key: several keys in a
//! transaction are a saving of round trips, never an invariant. [`journal`] and [`cache`] are this node's alone.
//!
//! This crate gives no meaning to values beyond their [envelope](encode). It does not know what a block or a pod is.

mod cached;
mod data;
mod database;
mod envelope;
mod error;
mod history;
mod revisions;
mod schema;
mod session;
mod state_dir;
mod tasks;

pub mod cache;
pub mod etcd;
pub mod journal;
pub mod keys;
pub mod local;
pub mod memory;

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use types::Update;

pub use cache::Cache;
pub use cached::{CacheForm, Cached, remembered_as};
pub use data::{
    Check, Entry, Expect, Incarnation, Key, KeyError, Listing, MAX_TRANSACTION, MAX_TRANSACTION_BYTES, Outcome,
    SessionId, Version, Write,
};
pub use database::DatabaseError;
pub use envelope::{DecodeError, VALUE_VERSION, decode, encode};
pub use error::StoreError;
pub use etcd::{Etcd, EtcdConfig};
pub use journal::{Journal, JournalError, JournalWrite, Row, RowKind};
pub use local::Local;
pub use memory::Memory;
pub use schema::{SCHEMA_VERSION, SchemaError, check_schema};
pub use session::Session;
pub use state_dir::{StateDir, StateDirError};

/// A store that several nodes may share. Reads and transactions are linearizable: what one has committed, the next reads.
///
/// Every call returns within a few seconds, with [`StoreError::Unavailable`] where the store did not answer. Dropping a
/// call's future is allowed at any time; a transaction may then have been committed or not.
pub trait Store: Send + Sync + 'static {
    /// The entry under `key`, if there is one.
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// All entries whose key begins with `prefix`, in the order of their keys, as they were at one [`Version`].
    fn list(&self, prefix: &Key) -> BoxFuture<'_, Result<Listing, StoreError>>;

    /// Lists the entries under `prefix`, then follows them for as long as the receiver and the store are there: `Restart`,
    /// `Set`.., `InSync`, then `Set` and `Delete` as they happen, those of one key in their order.
    ///
    /// While the store is away the watch says nothing and keeps trying; it then resumes where it was. It says `Restart`
    /// again only when history was lost, by compaction or because the store is another [`Incarnation`]. A change may be
    /// reported before the transaction that made it has returned, and more than once.
    ///
    /// To be called inside a tokio runtime. A receiver that is not read stops its own watch only.
    fn watch(&self, prefix: Key) -> mpsc::Receiver<Update<Key, Entry>>;

    /// Makes all `writes` at once if all `checks` hold, else none.
    ///
    /// At most [`MAX_TRANSACTION`] checks and as many writes of [`MAX_TRANSACTION_BYTES`] together, no key written twice
    /// ([`StoreError::Invalid`]). After
    /// [`StoreError::Unavailable`] the writes may have been made or not: whoever needs to know reads again.
    fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// Opens a session that is kept alive in the background. Entries written with it vanish when it ends, or `ttl` after
    /// its process was last heard of. Stores may round `ttl` up to whole seconds.
    fn session(&self, ttl: Duration) -> BoxFuture<'_, Result<Session, StoreError>>;
}
