//! The node's cache: the last that was seen of the shared store, so that a restarted agent can work while the store is
//! away. It is written behind the agent's back and never waited for; where it is lost, only that ability is.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailbox::{Ended, Mailbox};
use rusqlite::types::Type;
use rusqlite::{Transaction, params};
use tokio::sync::{mpsc, oneshot};
use types::Update;
use types::update::Repeated;

use crate::database::{Database, DatabaseError, FOLD_AFTER};
use crate::{Entry, Key, Version, tasks};

/// The number of the file's layout.
const LAYOUT: i64 = 1;

const TABLES: &str = "CREATE TABLE entry (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, \
                      version INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID, STRICT; \
                      CREATE TABLE listed (prefix TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID, STRICT";

/// So many questions wait for the thread; the next waits for a place.
const QUESTIONS: usize = 64;

/// A handle on the cache; clones share it. A thread of its own owns the file.
#[derive(Debug, Clone)]
pub struct Cache {
    /// What is not written yet; shared with the thread.
    pending: Arc<Mutex<Pending>>,
    /// The way to the thread for questions; each rings the bell.
    questions: Mailbox<Question>,
    /// Wakes the thread. Holds one ring: more would say nothing new.
    bell: SyncSender<()>,
    /// The path of the file, for errors.
    path: PathBuf,
}

/// What the thread will do next. Bounded by the number of keys, because a key's later change replaces its earlier one.
#[derive(Debug, Default)]
struct Pending {
    /// What the sources of the prefixes have repeated since they began to list anew.
    listing: BTreeMap<Key, Repeated<Key>>,
    /// Prefixes that were listed anew: keys that were not seen go. To be done before `changes`.
    listed: BTreeMap<Key, BTreeSet<Key>>,
    /// The latest state of each key; none if it was deleted.
    changes: BTreeMap<Key, Option<Entry>>,
}

/// A question to the thread. It is answered when what was put before it has been written, or could not be.
#[derive(Debug)]
enum Question {
    Load { prefix: Key, reply: oneshot::Sender<Result<Vec<Entry>, DatabaseError>> },
    IsComplete { prefix: Key, reply: oneshot::Sender<Result<bool, DatabaseError>> },
    Flush(oneshot::Sender<Result<(), DatabaseError>>),
}

impl Cache {
    /// Opens the file, made where it is missing, and starts its thread. A damaged cache, or one of a newer layout, is thrown
    /// away and made anew, which is logged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatabaseError> {
        let path = path.as_ref().to_owned();
        let database = match Database::open(&path, LAYOUT, TABLES) {
            Err(error @ (DatabaseError::Damaged { .. } | DatabaseError::Newer { .. })) => {
                tracing::warn!(%error, "the cache of the shared store cannot be used; it is thrown away and made anew");
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    // A file that is not there is removed already; one that cannot be removed makes the next open fail.
                    let _ = std::fs::remove_file(file);
                }
                Database::open(&path, LAYOUT, TABLES)?
            }
            opened => opened?,
        };
        let pending = Arc::new(Mutex::new(Pending::default()));
        let (bell, rings) = sync_channel(1);
        let (to_thread, questions) = mpsc::channel(QUESTIONS);
        let shared = Arc::clone(&pending);
        tasks::database_thread("cache", move || serve(database, &shared, questions, &rings))
            .map_err(|error| DatabaseError::Io { path: path.clone(), what: error.to_string() })?;
        let rung = bell.clone();
        let questions = Mailbox::waking(to_thread, move || ring(&rung));
        Ok(Self { pending, questions, bell, path })
    }

    /// Takes note of an update of the watch on `prefix`; returns at once. After `Restart` and `InSync`, what was not set
    /// in between is forgotten.
    pub fn put(&self, prefix: &Key, update: &Update<Key, Entry>) {
        self.take(prefix, update.clone());
    }

    /// As [`Cache::put`], of an update that nobody else needs.
    pub(crate) fn take(&self, prefix: &Key, update: Update<Key, Entry>) {
        lock(&self.pending).put(prefix, update);
        ring(&self.bell);
    }

    /// The last seen entries under `prefix`, in the order of their keys.
    pub async fn load(&self, prefix: &Key) -> Result<Vec<Entry>, DatabaseError> {
        let prefix = prefix.clone();
        self.ask(|reply| Question::Load { prefix, reply }).await
    }

    /// The same; none if a watch on just this prefix has never been in sync, so that nothing is known of what there is.
    pub async fn load_complete(&self, prefix: &Key) -> Result<Option<Vec<Entry>>, DatabaseError> {
        let complete = prefix.clone();
        let complete = self.ask(|reply| Question::IsComplete { prefix: complete, reply }).await?;
        if complete { self.load(prefix).await.map(Some) } else { Ok(None) }
    }

    /// Returns when all that was put before is in the file.
    pub async fn flush(&self) -> Result<(), DatabaseError> {
        self.ask(Question::Flush).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, DatabaseError>>) -> Question,
    ) -> Result<T, DatabaseError> {
        self.questions.ask(question).await.map_err(|Ended| DatabaseError::Closed { path: self.path.clone() })?
    }
}

/// Wakes the thread. A bell that holds a ring already says that the thread will look anyway; a thread that has ended has
/// nothing to look at.
fn ring(bell: &SyncSender<()>) {
    let _ = bell.try_send(());
}

impl Pending {
    fn put(&mut self, prefix: &Key, update: Update<Key, Entry>) {
        if let Some(named) = self.listing.entry(prefix.clone()).or_default().follow(&update) {
            let stale = |key: &Key| key.is_under(prefix) && !named.contains(key);
            self.changes.retain(|key, _| !stale(key));
            self.listed.insert(prefix.clone(), named);
        }
        match update {
            Update::Set(key, entry) => drop(self.changes.insert(key, Some(entry))),
            Update::Delete(key) => drop(self.changes.insert(key, None)),
            Update::Restart | Update::InSync => {}
        }
    }

    /// Takes what is to be written; what is being listed stays.
    fn take(&mut self) -> Batch {
        Batch { listed: mem::take(&mut self.listed), changes: mem::take(&mut self.changes) }
    }

    /// Puts back what could not be written, under what has come since.
    fn put_back(&mut self, batch: Batch) {
        let overtaken = |key: &Key| self.listed.keys().any(|prefix| key.is_under(prefix));
        for (key, change) in batch.changes.into_iter().filter(|(key, _)| !overtaken(key)).collect::<Vec<_>>() {
            self.changes.entry(key).or_insert(change);
        }
        for (prefix, seen) in batch.listed {
            self.listed.entry(prefix).or_insert(seen);
        }
    }
}

/// The changes that one transaction writes.
struct Batch {
    listed: BTreeMap<Key, BTreeSet<Key>>,
    changes: BTreeMap<Key, Option<Entry>>,
}

/// The thread. Ends when the last handle is gone and all is written.
fn serve(
    mut database: Database,
    pending: &Mutex<Pending>,
    mut questions: mpsc::Receiver<Question>,
    rings: &Receiver<()>,
) {
    let mut failing = false;
    loop {
        let idle = if failing { Some(FOLD_AFTER) } else { database.idle() };
        let rung = match idle {
            Some(idle) => rings.recv_timeout(idle),
            None => rings.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if rung == Err(RecvTimeoutError::Timeout) && !failing {
            // A failure is told to nobody here: the next write meets the same disk and tells it.
            let _ = database.fold();
            continue;
        }
        // Taken before the changes: whatever was put before a question was asked is written before it is answered.
        let asked: Vec<Question> = iter::from_fn(|| questions.try_recv().ok()).collect();
        let batch = lock(pending).take();
        let written = database.transaction(|transaction| write(transaction, &batch));
        if let Err(error) = &written {
            if !failing {
                tracing::warn!(%error, "the cache of the shared store cannot be written; a restart while the store is away would see older data");
            }
            lock(pending).put_back(batch);
        }
        failing = written.is_err();
        for question in asked {
            answer(&database, question, &written);
        }
        database.fold_large();
        if rung == Err(RecvTimeoutError::Disconnected) {
            let _ = database.fold();
            return;
        }
    }
}

/// Answers a question; nobody hears it where the asker has stopped waiting.
fn answer(database: &Database, question: Question, written: &Result<(), DatabaseError>) {
    match question {
        Question::Load { prefix, reply } => {
            let _ = reply.send(load(database, &prefix));
        }
        Question::IsComplete { prefix, reply } => {
            let _ = reply.send(is_complete(database, &prefix));
        }
        Question::Flush(reply) => {
            let _ = reply.send(written.clone());
        }
    }
}

fn write(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    for (prefix, seen) in &batch.listed {
        let stale: Vec<String> = {
            let mut select = transaction.prepare_cached("SELECT key FROM entry WHERE key >= ?1 AND key < ?2")?;
            let keys = select.query_map([prefix.as_str(), &end(prefix)], |row| row.get::<_, String>(0))?;
            keys.filter(|key| key.as_ref().is_ok_and(|key| Key::new(key).map_or(true, |key| !seen.contains(&key))))
                .collect::<rusqlite::Result<_>>()?
        };
        transaction.prepare_cached("INSERT OR IGNORE INTO listed (prefix) VALUES (?1)")?.execute([prefix.as_str()])?;
        for key in stale {
            transaction.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([key])?;
        }
    }
    for (key, change) in &batch.changes {
        match change {
            Some(entry) => transaction
                .prepare_cached("INSERT OR REPLACE INTO entry (key, value, version, created) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![
                    key.as_str(),
                    entry.value,
                    entry.version.count().cast_signed(),
                    entry.created.count().cast_signed()
                ])?,
            None => transaction.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([key.as_str()])?,
        };
    }
    Ok(())
}

fn load(database: &Database, prefix: &Key) -> Result<Vec<Entry>, DatabaseError> {
    database.read(|connection| {
        let mut select = connection.prepare_cached(
            "SELECT key, value, version, created FROM entry WHERE key >= ?1 AND key < ?2 ORDER BY key",
        )?;
        let rows = select.query_map([prefix.as_str(), &end(prefix)], |row| {
            let key = Key::new(row.get::<_, String>(0)?)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
            let count = |stored: i64| Version::new(stored.cast_unsigned());
            Ok(Entry { key, value: row.get(1)?, version: count(row.get(2)?), created: count(row.get(3)?) })
        })?;
        rows.collect()
    })
}

fn is_complete(database: &Database, prefix: &Key) -> Result<bool, DatabaseError> {
    database.read(|connection| {
        connection.prepare_cached("SELECT 1 FROM listed WHERE prefix = ?1")?.exists([prefix.as_str()])
    })
}

/// The first text behind all that begin with `prefix`. Keys are ASCII, so the last byte has a successor.
fn end(prefix: &Key) -> String {
    let mut bytes = prefix.as_str().as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
