//! A SQLite file that one thread of one process owns.
//!
//! Write-ahead log with `synchronous=NORMAL`: a commit is a write(2) to the log without fsync(2), so it survives the death
//! of the process but not of the machine, and costs microseconds. The log is folded into the file when the owner is idle,
//! or when it has grown large (<https://sqlite.org/wal.html#performance_considerations>).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction};

use crate::state_dir::private_file;

/// After so long without a request, the log is folded in.
pub(crate) const FOLD_AFTER: Duration = Duration::from_secs(1);

/// A log of this size is folded in without waiting for an idle moment.
const LARGE_LOG: u64 = 8 << 20;

/// A local database failed. Clonable, so that all who shared a commit are told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// No space is left (SQLITE_FULL: ENOSPC or a quota). What was committed before is safe.
    #[error("{}: no space left", .path.display())]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The disk failed, or the file cannot be opened or written.
    #[error("{}: {what}", .path.display())]
    Io {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// The file is not what this crate writes, or is damaged.
    #[error("{}: damaged: {what}", .path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer Manx has written the file.
    #[error("{}: layout {found} is newer than {known}, which is what this build knows", .path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The layout found.
        found: i64,
        /// The newest layout known.
        known: i64,
    },
    /// The database was closed; only while the process ends.
    #[error("{}: closed", .path.display())]
    Closed {
        /// The database file.
        path: PathBuf,
    },
}

impl DatabaseError {
    /// Whether the disk is to blame (full, failing, read-only), so that what must succeed without it may go on.
    pub const fn is_disk(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. })
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
    /// The write-ahead log.
    log: PathBuf,
    /// The log holds commits that are not folded in.
    unfolded: bool,
}

impl Database {
    /// Opens the file (made with mode 0600 where it is missing), and creates `tables` in an empty one. `layout` is the
    /// number of this layout: a file of a greater one is refused.
    pub(crate) fn open(path: &Path, layout: i64, tables: &str) -> Result<Self, DatabaseError> {
        let unusable = |what: String| DatabaseError::Io { path: path.to_owned(), what };
        // SQLite gives the log and its index the permissions of the database file.
        private_file(path).map_err(|error| unusable(error.to_string()))?;
        let failed = |error| classify(path, &error);
        let connection = Connection::open(path).map_err(failed)?;
        // One process only: no shared memory file for the log's index. Before the first access, else it has no effect.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(unusable(format!("no write-ahead log possible here (journal mode {mode})")));
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > layout {
            return Err(DatabaseError::Newer { path: path.to_owned(), found, known: layout });
        }
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let mut database = Self { connection, path: path.to_owned(), log: PathBuf::from(log), unfolded: true };
        if found == 0 {
            database.transaction(|transaction| {
                transaction.execute_batch(tables)?;
                transaction.pragma_update(None, "user_version", layout)
            })?;
        }
        Ok(database)
    }

    /// Runs one transaction, all or nothing. Where the disk is full, the log is folded in, which makes its space usable
    /// again, and the transaction is tried once more.
    pub(crate) fn transaction<T>(
        &mut self,
        run: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let first = self.attempt(&run);
        if matches!(first, Err(DatabaseError::Full { .. })) && self.fold().is_ok() {
            return self.attempt(&run);
        }
        first
    }

    /// Reads.
    pub(crate) fn read<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        run(&self.connection).map_err(|error| classify(&self.path, &error))
    }

    /// How long the owner should wait for a request before it calls [`Database::fold`]; none: there is nothing to fold.
    pub(crate) const fn idle(&self) -> Option<Duration> {
        if self.unfolded { Some(FOLD_AFTER) } else { None }
    }

    /// To be called after commits: folds the log in when it is large. A failure is told to nobody here: the next commit
    /// meets the same disk, and its caller is told.
    pub(crate) fn fold_large(&mut self) {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LARGE_LOG) {
            let _ = self.fold();
        }
    }

    /// Folds the log into the file, with fsync(2), and empties it.
    pub(crate) fn fold(&mut self) -> Result<(), DatabaseError> {
        self.unfolded = false;
        self.read(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn attempt<T>(&mut self, run: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        self.unfolded = true;
        let run = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let result = run(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run(&mut self.connection).map_err(|error| classify(&self.path, &error))
    }
}

fn classify(path: &Path, error: &rusqlite::Error) -> DatabaseError {
    let (path, what) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => DatabaseError::Full { path },
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => DatabaseError::Io { path, what },
        _ => DatabaseError::Damaged { path, what },
    }
}
