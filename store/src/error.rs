//! What can go wrong with a store, split by who can mend it.

use mailbox::Ended;

use crate::{Key, SessionId};

/// A call on a store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer, or cannot work just now (the environment). Trying again later is right. A transaction may
    /// have been committed all the same.
    #[error("{endpoints} unavailable: {what}")]
    Unavailable {
        /// The endpoints, or the file, that were tried.
        endpoints: String,
        /// Why each failed.
        what: String,
    },
    /// The store knows us and says no: a wrong password, a missing permission (the configuration, here or there).
    #[error("{endpoints} refused {user}: {what}")]
    Refused {
        /// The endpoints.
        endpoints: String,
        /// Who asked.
        user: String,
        /// What the store said.
        what: String,
    },
    /// The settings cannot be used; found before anything was sent.
    #[error("{key}: {what}")]
    Config {
        /// The settings concerned, with the path where it is about a file.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// An entry is not as we write them: somebody else has put it there.
    #[error("{key}: malformed: {what}")]
    Malformed {
        /// The key as the store has it.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The session of a write is gone, so nothing was written. The owner makes a new one.
    #[error("session {session} is gone; nothing was written to {key}")]
    SessionLost {
        /// The session.
        session: SessionId,
        /// The first key that was to be written with it.
        key: Key,
    },
    /// The request itself is wrong (our bug): too many operations, a key written twice, a value too large.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The store was closed; only while the process ends.
    #[error("the store is closed")]
    Closed,
}

impl From<Ended> for StoreError {
    /// The thread that owns a store's file ends when the store is closed.
    fn from(Ended: Ended) -> Self {
        Self::Closed
    }
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
