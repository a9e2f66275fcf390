//! The node's journal: what this node has given out, in a file whose commits survive the process being killed.
//!
//! Rows are opaque here; ipam says what they mean.

use std::path::{Path, PathBuf};

use mailbox::{Ended, Inbox, Mailbox, Next, queue};
use rusqlite::{Transaction, params};
use tokio::sync::oneshot;

use crate::database::{Database, DatabaseError};
use crate::tasks;

/// The journal failed.
pub type JournalError = DatabaseError;

/// The number of the file's layout.
const LAYOUT: i64 = 1;

const TABLES: &str = "CREATE TABLE row (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, \
                      PRIMARY KEY (kind, key)) WITHOUT ROWID, STRICT";

/// So many commits wait at most; the next waits for a place.
const WAITING_REQUESTS: usize = 1024;

/// The most commits that share one transaction.
const COMMITS_PER_TRANSACTION: usize = 64;

/// A handle on the journal; clones share it. A thread of its own owns the file.
#[derive(Debug, Clone)]
pub struct Journal {
    /// The way to the thread.
    requests: Mailbox<Request>,
    /// The path of the file, for errors.
    path: PathBuf,
}

/// The kind of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// Single facts: boot id, instance id, last confirmation.
    Meta,
    /// Workload endpoints, by their id.
    Endpoint,
    /// Released addresses that may not be given out yet.
    CoolDown,
    /// Blocks that this node owns.
    Block,
}

impl RowKind {
    const ALL: [Self; 4] = [Self::Meta, Self::Endpoint, Self::CoolDown, Self::Block];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Endpoint => "endpoint",
            Self::CoolDown => "cool_down",
            Self::Block => "block",
        }
    }
}

/// A row of the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The kind of the row.
    pub kind: RowKind,
    /// The key, unique among the rows of its kind.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
}

/// A change of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalWrite {
    /// Writes a row, over an older one of the same key.
    Put(Row),
    /// Removes a row; an absent one is no error.
    Delete {
        /// The kind of the row.
        kind: RowKind,
        /// The key.
        key: String,
    },
    /// Removes all rows of a kind.
    Clear(RowKind),
}

impl JournalWrite {
    /// Writes a row.
    pub fn put(kind: RowKind, key: impl Into<String>, value: Vec<u8>) -> Self {
        Self::Put(Row { kind, key: key.into(), value })
    }

    /// Removes a row.
    pub fn delete(kind: RowKind, key: impl Into<String>) -> Self {
        Self::Delete { kind, key: key.into() }
    }
}

#[derive(Debug)]
enum Request {
    Commit(Commit),
    Load(oneshot::Sender<Result<Vec<Row>, JournalError>>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Commit {
    writes: Vec<JournalWrite>,
    reply: oneshot::Sender<Result<(), JournalError>>,
}

impl Journal {
    /// Opens the file, made where it is missing, and starts its thread. Blocks for the file's sake: a log that a killed
    /// process left behind is read here.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref().to_owned();
        let database = Database::open(&path, LAYOUT, TABLES)?;
        let (requests, inbox) = queue(WAITING_REQUESTS);
        tasks::database_thread("journal", move || serve(database, &inbox))
            .map_err(|error| JournalError::Io { path: path.clone(), what: error.to_string() })?;
        Ok(Self { requests, path })
    }

    /// Makes all writes, in their order, or none. Returns when they are committed: they are there after this process is
    /// killed. Commits of several callers that come together share one transaction. A commit whose future is dropped is
    /// carried out all the same once it is queued.
    pub async fn commit(&self, writes: Vec<JournalWrite>) -> Result<(), JournalError> {
        self.ask(|reply| Request::Commit(Commit { writes, reply })).await?
    }

    /// All rows, in the order of their kinds (by their names in the file) and keys, with every commit that returned before.
    pub async fn load(&self) -> Result<Vec<Row>, JournalError> {
        self.ask(Request::Load).await?
    }

    /// The value of one row, if it is there.
    pub async fn value(&self, kind: RowKind, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let rows = self.load().await?;
        Ok(rows.into_iter().find(|row| row.kind == kind && row.key == key).map(|row| row.value))
    }

    /// Folds the log into the file and ends the thread; later calls fail with [`DatabaseError::Closed`]. Not needed for
    /// safety: it only spares the next start some reading.
    pub async fn close(&self) {
        // The thread has ended already, which is what was wanted.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, JournalError> {
        self.requests.ask(request).await.map_err(|Ended| JournalError::Closed { path: self.path.clone() })
    }
}

/// The thread: one round per request, or per group of commits.
fn serve(mut database: Database, inbox: &Inbox<Request>) {
    let mut left_over = None;
    loop {
        let next = left_over.take().map_or_else(|| inbox.next(database.idle()), Next::Command);
        match next {
            Next::Command(Request::Commit(first)) => {
                left_over = commit_group(&mut database, first, inbox);
                database.fold_large();
            }
            Next::Command(Request::Load(reply)) => {
                // Nobody takes the answer where the caller has stopped waiting; the same holds for the answers below.
                let _ = reply.send(load(&database));
            }
            Next::Command(Request::Close(reply)) => {
                let _ = database.fold();
                drop(database);
                let _ = reply.send(());
                return;
            }
            Next::Idle => {
                let _ = database.fold();
            }
            Next::Closed => {
                let _ = database.fold();
                return;
            }
        }
    }
}

/// Commits `first` and what waits behind it; gives back a request that is no commit. If the group fails, each is tried
/// alone, so that one caller's writes do not fail another's.
fn commit_group(database: &mut Database, first: Commit, inbox: &Inbox<Request>) -> Option<Request> {
    let mut group = vec![first];
    let mut left_over = None;
    while group.len() < COMMITS_PER_TRANSACTION && left_over.is_none() {
        match inbox.waiting() {
            Some(Request::Commit(commit)) => group.push(commit),
            other => {
                left_over = other;
                break;
            }
        }
    }
    let together = database.transaction(|transaction| group.iter().try_for_each(|one| write(transaction, &one.writes)));
    let alone = group.len() == 1;
    for commit in group {
        let result = match &together {
            Err(_) if !alone => database.transaction(|transaction| write(transaction, &commit.writes)),
            result => result.clone(),
        };
        let _ = commit.reply.send(result);
    }
    left_over
}

fn write(transaction: &Transaction<'_>, writes: &[JournalWrite]) -> rusqlite::Result<()> {
    for write in writes {
        match write {
            JournalWrite::Put(row) => transaction
                .prepare_cached("INSERT OR REPLACE INTO row (kind, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![row.kind.as_str(), row.key, row.value])?,
            JournalWrite::Delete { kind, key } => transaction
                .prepare_cached("DELETE FROM row WHERE kind = ?1 AND key = ?2")?
                .execute(params![kind.as_str(), key])?,
            JournalWrite::Clear(kind) => {
                transaction.prepare_cached("DELETE FROM row WHERE kind = ?1")?.execute([kind.as_str()])?
            }
        };
    }
    Ok(())
}

fn load(database: &Database) -> Result<Vec<Row>, JournalError> {
    let rows: Vec<(String, String, Vec<u8>)> = database.read(|connection| {
        let mut select = connection.prepare_cached("SELECT kind, key, value FROM row ORDER BY kind, key")?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    })?;
    let read = |(kind, key, value): (String, String, Vec<u8>)| {
        let known = RowKind::ALL.into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| JournalError::Damaged {
            path: database.path().to_owned(),
            what: format!("a row of the unknown kind {kind:?}"),
        })?;
        Ok(Row { kind, key, value })
    };
    rows.into_iter().map(read).collect()
}
