//! The store of a node without etcd: a file of its own, with the semantics of the shared one.
//!
//! One thread owns the file and is the only writer of the shared state: it commits to the file first, then changes the
//! state and wakes the watches. Reads and watches take the state from memory. Watches reach as far as this process; a
//! session cannot outlive it, so what sessions of an earlier process wrote goes when the file is opened.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mailbox::{Inbox, Mailbox, Next, queue};
use rusqlite::types::Type;
use rusqlite::{Transaction, params};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use types::Update;

use crate::data::validate;
use crate::database::{Database, DatabaseError};
use crate::history::History;
use crate::revisions::{Change, Held, Revisions};
use crate::session::Keeper;
use crate::tasks::{self, Tasks};
use crate::{Check, Entry, Incarnation, Key, Listing, Outcome, Session, SessionId, Store, StoreError, Version, Write};

/// The number of the file's layout.
const LAYOUT: i64 = 1;

/// `session` is null for entries that stay.
const TABLES: &str = "CREATE TABLE entry (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, \
                      version INTEGER NOT NULL, created INTEGER NOT NULL, session INTEGER) WITHOUT ROWID, STRICT; \
                      CREATE TABLE life (one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), \
                      incarnation TEXT NOT NULL, revision INTEGER NOT NULL) STRICT";

/// So many requests wait at most; the next waits for a place.
const WAITING_REQUESTS: usize = 256;

/// The store.
#[derive(Debug)]
pub struct Local {
    /// The entries; shared with the watches and with the thread, which alone changes them.
    history: Arc<History>,
    /// To the thread.
    requests: Mailbox<Request>,
    /// Watches and sessions.
    tasks: Tasks,
}

#[derive(Debug)]
enum Request {
    Transact { checks: Vec<Check>, writes: Vec<Write>, reply: oneshot::Sender<Result<Outcome, StoreError>> },
    OpenSession { reply: oneshot::Sender<(Session, Keeper)> },
    EndSession { session: SessionId, reply: oneshot::Sender<Result<(), StoreError>> },
    Close { reply: oneshot::Sender<()> },
}

impl Local {
    /// Opens the file, made where it is missing, and starts its thread. Blocks for the file's sake.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatabaseError> {
        let path = path.as_ref().to_owned();
        let mut database = Database::open(&path, LAYOUT, TABLES)?;
        let history = Arc::new(History::new(load(&mut database)?));
        let (requests, inbox) = queue(WAITING_REQUESTS);
        let file = File {
            database,
            history: Arc::clone(&history),
            sessions: BTreeMap::new(),
            last_session: SessionId::new(0),
        };
        tasks::database_thread("local-store", move || file.serve(&inbox))
            .map_err(|error| DatabaseError::Io { path: path.clone(), what: error.to_string() })?;
        Ok(Self { history, requests, tasks: Tasks::new() })
    }

    /// Ends watches and sessions, folds the log into the file and ends the thread; later transactions fail with
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        self.tasks.close().await;
        // The thread has ended already, which is what was wanted.
        let _ = self.requests.ask(|reply| Request::Close { reply }).await;
    }
}

impl Store for Local {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let entry = self.history.read(|revisions| revisions.entry(key));
        async move { Ok(entry) }.boxed()
    }

    fn list(&self, prefix: &Key) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let listing = self.history.read(|revisions| revisions.listing(prefix));
        async move { Ok(listing) }.boxed()
    }

    fn watch(&self, prefix: Key) -> mpsc::Receiver<Update<Key, Entry>> {
        let history = Arc::clone(&self.history);
        self.tasks.watch(|to, closed| async move { history.follow(prefix, to, closed).await })
    }

    fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            validate(&checks, &writes)?;
            self.requests.ask(|reply| Request::Transact { checks, writes, reply }).await?
        }
        .boxed()
    }

    fn session(&self, ttl: Duration) -> BoxFuture<'_, Result<Session, StoreError>> {
        async move {
            let (session, keeper) = self.requests.ask(|reply| Request::OpenSession { reply }).await?;
            self.tasks.session(keep(self.requests.clone(), keeper, ttl));
            Ok(session)
        }
        .boxed()
    }
}

/// In the process that a session cannot outlive there is nothing to keep alive: ends it when told to, or `ttl` after it
/// was dropped.
async fn keep(requests: Mailbox<Request>, keeper: Keeper, ttl: Duration) {
    let session = keeper.id;
    match keeper.end.await {
        Ok(reply) => {
            let ended = requests
                .ask(|reply| Request::EndSession { session, reply })
                .await
                .unwrap_or_else(|ended| Err(ended.into()));
            // Nobody takes the answer where the caller has stopped waiting.
            let _ = reply.send(ended);
        }
        Err(_) => {
            tokio::time::sleep(ttl).await;
            // Where the store is closed already, the next process removes the entries.
            let _ = requests.ask(|reply| Request::EndSession { session, reply }).await;
        }
    }
}

/// What the thread owns.
struct File {
    database: Database,
    /// Shared with readers; changed by this thread only.
    history: Arc<History>,
    /// The sessions that are alive.
    sessions: BTreeMap<SessionId, CancellationToken>,
    /// Names the next one.
    last_session: SessionId,
}

impl File {
    /// The thread. Nobody takes the replies where the askers have stopped waiting.
    fn serve(mut self, inbox: &Inbox<Request>) {
        loop {
            match inbox.next(self.database.idle()) {
                Next::Command(Request::Transact { checks, writes, reply }) => {
                    let _ = reply.send(self.transact(&checks, &writes));
                    self.database.fold_large();
                }
                Next::Command(Request::OpenSession { reply }) => {
                    self.last_session = SessionId::new(self.last_session.id() + 1);
                    let (session, keeper) = Session::new(self.last_session);
                    self.sessions.insert(keeper.id, keeper.lost.clone());
                    let _ = reply.send((session, keeper));
                }
                Next::Command(Request::EndSession { session, reply }) => {
                    let _ = reply.send(self.end_session(session));
                }
                Next::Command(Request::Close { reply }) => {
                    let _ = self.database.fold();
                    drop(self.database);
                    let _ = reply.send(());
                    return;
                }
                Next::Idle => {
                    let _ = self.database.fold();
                }
                Next::Closed => {
                    let _ = self.database.fold();
                    return;
                }
            }
        }
    }

    fn transact(&mut self, checks: &[Check], writes: &[Write]) -> Result<Outcome, StoreError> {
        for write in writes {
            if let Write::Put { key, session: Some(session), .. } = write
                && !self.sessions.contains_key(session)
            {
                return Err(StoreError::SessionLost { session: *session, key: key.clone() });
            }
        }
        match self.history.read(|revisions| revisions.plan(checks, writes)) {
            Some(changes) => self.commit(changes).map(Outcome::Committed),
            None => Ok(Outcome::Conflict),
        }
    }

    fn end_session(&mut self, session: SessionId) -> Result<(), StoreError> {
        let Some(lost) = self.sessions.remove(&session) else { return Ok(()) };
        lost.cancel();
        let changes = self.history.read(|revisions| revisions.plan_end(session));
        self.commit(changes).map(drop)
    }

    /// To the file, then to memory.
    fn commit(&mut self, changes: Vec<Change>) -> Result<Version, StoreError> {
        self.database.transaction(|transaction| write(transaction, &changes)).map_err(|error| {
            StoreError::Unavailable { endpoints: self.database.path().display().to_string(), what: error.to_string() }
        })?;
        Ok(self.history.write(|revisions| revisions.apply(changes)))
    }
}

/// Reads the file, and removes what the sessions of an earlier process left.
fn load(database: &mut Database) -> Result<Revisions, DatabaseError> {
    let random = || RandomState::new().build_hasher().finish();
    let fresh = format!("{:016x}{:016x}", random(), random());
    let (incarnation, revision) = database.transaction(|transaction| {
        transaction.execute(
            "INSERT INTO life (one, incarnation, revision) VALUES (1, ?1, 1) ON CONFLICT DO NOTHING",
            [&fresh],
        )?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        transaction.query_row("SELECT incarnation, revision FROM life", [], read)
    })?;
    let held = database.read(|connection| {
        let mut select = connection.prepare("SELECT key, value, version, created, session FROM entry")?;
        let rows = select.query_map([], |row| {
            let key = Key::new(row.get::<_, String>(0)?)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
            let (version, created) = (count(row.get(2)?), count(row.get(3)?));
            let entry = Entry { key, value: row.get(1)?, version, created };
            Ok(Held { entry, session: row.get::<_, Option<i64>>(4)?.map(SessionId::new) })
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let left: Vec<Key> = held.iter().filter(|held| held.session.is_some()).map(|held| held.entry.key.clone()).collect();
    let mut revisions = Revisions::resume(Incarnation::new(incarnation), revision.cast_unsigned(), held);
    let removals: Vec<Write> = left.into_iter().map(Write::delete).collect();
    let changes = revisions.plan(&[], &removals).unwrap_or_default();
    database.transaction(|transaction| write(transaction, &changes))?;
    revisions.apply(changes);
    Ok(revisions)
}

fn write(transaction: &Transaction<'_>, changes: &[Change]) -> rusqlite::Result<()> {
    for change in changes {
        match &change.held {
            Some(Held { entry, session }) => transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO entry (key, value, version, created, session) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    entry.key.as_str(),
                    entry.value,
                    entry.version.count().cast_signed(),
                    entry.created.count().cast_signed(),
                    session.map(SessionId::id),
                ])?,
            None => transaction.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([change.key.as_str()])?,
        };
    }
    if let Some(change) = changes.last() {
        transaction.prepare_cached("UPDATE life SET revision = ?1")?.execute([change.revision.cast_signed()])?;
    }
    Ok(())
}

fn count(stored: i64) -> Version {
    Version::new(stored.cast_unsigned())
}
