//! Keys, entries and transactions: the data that a [`Store`](crate::Store) speaks.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::StoreError;

/// The most checks, and the most writes, of one transaction: etcd's default `--max-txn-ops`.
pub const MAX_TRANSACTION: usize = 128;

/// The most bytes that keys and values of one transaction have together: below etcd's default `--max-request-bytes`, with
/// room for what frames them.
pub const MAX_TRANSACTION_BYTES: usize = 1_400_000;

/// A key relative to the configured prefix (`/manx/v1/` by default), or, with a `/` at its end, the prefix of a whole
/// folder of keys. Made by [`crate::keys`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// A text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key: parts of printable ASCII, joined by single '/', not beginning with '/'")]
pub struct KeyError(pub(crate) String);

impl Key {
    /// Checks and wraps a text.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let parts = !text.is_empty() && !text.starts_with('/') && !text.contains("//");
        if printable && parts { Ok(Self(text)) } else { Err(KeyError(text)) }
    }

    /// For texts that are built of parts which are keys by their types.
    pub(crate) const fn from_parts(text: String) -> Self {
        Self(text)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this key lies under `prefix`.
    pub fn is_under(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// When an entry was last written, in the store's own count. Later writes in one [`Incarnation`] have greater versions.
/// Only a store has a use for the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// A version as a store counts it (for stores, and for tests of what is built on them).
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The store's count.
    pub const fn count(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of the store this is. Versions of two incarnations have nothing to do with each other: the data was wiped
/// or restored from a backup, or the endpoints now lead to another cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(String);

impl Incarnation {
    /// An incarnation as a store names it (for stores, and for tests of what is built on them).
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The bytes, see [`crate::decode`].
    pub value: Vec<u8>,
    /// When it was last written.
    pub version: Version,
    /// When it was created; a key that was deleted and written again is another creation.
    pub created: Version,
}

/// What [`Store::list`](crate::Store::list) gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// The version of the store as a whole at which they were read.
    pub version: Version,
    /// The store's incarnation.
    pub incarnation: Incarnation,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The key.
    pub key: Key,
    /// What must hold of it.
    pub expect: Expect,
}

/// What must hold of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no entry.
    Absent,
    /// There is an entry.
    Present,
    /// The entry was last written at this version.
    Version(Version),
    /// The entry is still the one that was created at this version, however often it was written since.
    Created(Version),
}

impl Check {
    /// The key has no entry.
    pub const fn absent(key: Key) -> Self {
        Self { key, expect: Expect::Absent }
    }

    /// The key has an entry.
    pub const fn present(key: Key) -> Self {
        Self { key, expect: Expect::Present }
    }

    /// The entry has not been written since.
    pub fn unchanged(entry: &Entry) -> Self {
        Self { key: entry.key.clone(), expect: Expect::Version(entry.version) }
    }

    /// The entry is still the one that was created at this version.
    pub const fn created(key: Key, created: Version) -> Self {
        Self { key, expect: Expect::Created(created) }
    }
}

/// A change that a transaction makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or overwrites.
    Put {
        /// The key.
        key: Key,
        /// The bytes, see [`crate::encode`].
        value: Vec<u8>,
        /// The entry vanishes with this session; none: it stays.
        session: Option<SessionId>,
    },
    /// Removes; an absent key is no error.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Write {
    /// Creates or overwrites an entry that stays.
    pub const fn put(key: Key, value: Vec<u8>) -> Self {
        Self::Put { key, value, session: None }
    }

    /// Removes an entry.
    pub const fn delete(key: Key) -> Self {
        Self::Delete { key }
    }

    /// The key written.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// How a transaction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All writes were made, at this version.
    Committed(Version),
    /// A check did not hold; nothing was written.
    Conflict,
}

impl Outcome {
    /// Whether the writes were made.
    pub const fn is_committed(self) -> bool {
        matches!(self, Self::Committed(_))
    }
}

/// Names a [`Session`](crate::Session) in a [`Write::Put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(i64);

impl SessionId {
    pub(crate) const fn new(id: i64) -> Self {
        Self(id)
    }

    pub(crate) const fn id(self) -> i64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Refuses what every store refuses, so that a fake does not accept more than etcd.
pub(crate) fn validate(checks: &[Check], writes: &[Write]) -> Result<(), StoreError> {
    let most = checks.len().max(writes.len());
    if most > MAX_TRANSACTION {
        return Err(StoreError::Invalid(format!("{most} operations in a transaction, at most {MAX_TRANSACTION}")));
    }
    let size = |write: &Write| match write {
        Write::Put { key, value, .. } => key.as_str().len() + value.len(),
        Write::Delete { key } => key.as_str().len(),
    };
    let bytes: usize = writes.iter().map(size).sum();
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(StoreError::Invalid(format!("{bytes} bytes in a transaction, at most {MAX_TRANSACTION_BYTES}")));
    }
    let mut seen = BTreeSet::new();
    match writes.iter().map(Write::key).find(|key| !seen.insert(*key)) {
        Some(key) => Err(StoreError::Invalid(format!("{key} is written twice in a transaction"))),
        None => Ok(()),
    }
}
