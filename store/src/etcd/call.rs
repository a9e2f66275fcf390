//! The requests: turns what a store is asked into etcd's requests, and etcd's answers back.

use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp};

use super::endpoints::{CallError, Endpoints};
use crate::{Check, Entry, Expect, Incarnation, Key, Listing, Outcome, StoreError, Version, Write, keys};

/// What a page of a listing aims at. The client refuses messages over 4 MiB, as does etcd's own.
const PAGE_BYTES: usize = 1 << 20;

/// The first page holds so many entries; the next are as large as the entries seen allow.
const FIRST_PAGE: i64 = 256;

/// The most entries that one page may hold.
const LARGEST_PAGE: i64 = 4096;

/// Makes requests about the keys below one prefix.
#[derive(Debug)]
pub(super) struct Calls {
    /// The members to ask.
    pub(super) endpoints: Endpoints,
    /// The text before every key; it ends in `/`.
    prefix: String,
}

/// How far the cluster has come, as an answer says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClusterState {
    /// The id of the cluster.
    pub(super) cluster: u64,
    /// The revision of its last transaction.
    pub(super) revision: i64,
    /// The raft term.
    pub(super) term: u64,
}

impl ClusterState {
    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation::new(format!("{:x}", self.cluster))
    }
}

/// One page of a listing.
pub(super) struct Page {
    /// The entries of the page.
    pub(super) entries: Vec<Entry>,
    /// Where the next page begins; none: this was the last.
    pub(super) next: Option<PageStart>,
    /// The state that all pages of the listing show.
    pub(super) state: ClusterState,
}

/// The place where a page begins.
pub(super) struct PageStart {
    /// The first key, in full.
    from: Vec<u8>,
    /// The most entries that the page may have.
    limit: i64,
    /// The state of the first page, to which the others must belong.
    state: ClusterState,
}

impl Calls {
    pub(super) const fn new(endpoints: Endpoints, prefix: String) -> Self {
        Self { endpoints, prefix }
    }

    /// The state of the cluster, as its leader knows it.
    pub(super) async fn state(&self) -> Result<ClusterState, StoreError> {
        Ok(self.probe().await?)
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let full = self.full(key);
        let mut response = self.endpoints.repeatable(|client| range(client, full.clone(), GetOptions::new())).await?;
        response.take_kvs().first().map(|found| self.entry(found)).transpose()
    }

    pub(super) async fn list(&self, prefix: &Key) -> Result<Listing, StoreError> {
        loop {
            match self.list_once(prefix).await {
                // Compaction overtook the listing: begin again with the present.
                Err(CallError::Compacted) => {}
                other => return Ok(other?),
            }
        }
    }

    /// A page of the listing of `prefix`: the first, or the one that a page before has named.
    pub(super) async fn page(&self, prefix: &Key, start: Option<PageStart>) -> Result<Page, CallError> {
        let first = self.full(prefix);
        let end = end_of(&first);
        let (from, mut limit, state) = match start {
            Some(start) => (start.from, start.limit, Some(start.state)),
            None => (first, FIRST_PAGE, None),
        };
        let mut response = loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(limit);
            let options = state.map_or_else(|| options.clone(), |state| options.clone().with_revision(state.revision));
            match self.endpoints.repeatable(|client| range(client, from.clone(), options.clone())).await {
                Err(CallError::TooLarge(_)) if limit > 1 => limit = (limit / 8).max(1),
                other => break other?,
            }
        };
        let seen = self.header(response.header())?;
        let state = state.unwrap_or(seen);
        if state.cluster != seen.cluster {
            // Another cluster answers: what was read so far is not of its history.
            return Err(CallError::Compacted);
        }
        let more = response.more();
        let found = response.take_kvs();
        let next = found.last().filter(|_| more).map(|last| {
            let mut from = last.key().to_vec();
            from.push(0);
            let bytes: usize = found.iter().map(|found| found.key().len() + found.value().len() + 64).sum();
            let fitting = PAGE_BYTES / (bytes / found.len()).max(1);
            PageStart { from, limit: i64::try_from(fitting).unwrap_or(1).clamp(1, LARGEST_PAGE), state }
        });
        let entries = found.iter().filter_map(|found| self.entry_or_skip(found)).collect();
        Ok(Page { entries, next, state })
    }

    pub(super) async fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Outcome, StoreError> {
        let session = writes.iter().find_map(|write| match write {
            Write::Put { key, session: Some(session), .. } => Some((*session, key.clone())),
            _ => None,
        });
        let compares: Vec<Compare> = checks.iter().map(|check| self.compare(check)).collect();
        let operations: Vec<TxnOp> = writes.into_iter().map(|write| self.operation(write)).collect();
        let transaction = Txn::new().when(compares).and_then(operations);
        let probe = async { self.probe().await.map(drop) };
        let request = |client: etcd_client::Client| {
            let transaction = transaction.clone();
            async move { client.kv_client().txn(transaction).await }
        };
        let response = match (self.endpoints.once(probe, request).await, session) {
            (Err(CallError::NotFound), Some((session, key))) => return Err(StoreError::SessionLost { session, key }),
            (response, _) => response?,
        };
        if !response.succeeded() {
            return Ok(Outcome::Conflict);
        }
        Ok(Outcome::Committed(version(self.header(response.header())?.revision)))
    }

    /// The key as etcd has it.
    pub(super) fn full(&self, key: &Key) -> Vec<u8> {
        format!("{}{key}", self.prefix).into_bytes()
    }

    /// The range of keys under a prefix, as etcd has them.
    pub(super) fn range(&self, prefix: &Key) -> (Vec<u8>, Vec<u8>) {
        self.range_below(prefix.as_str())
    }

    /// The range of keys under a path that ends in `/`, or of all keys of ours, as etcd has them.
    pub(super) fn range_below(&self, path: &str) -> (Vec<u8>, Vec<u8>) {
        let first = format!("{}{path}", self.prefix).into_bytes();
        let end = end_of(&first);
        (first, end)
    }

    /// The key as we have it; one that somebody else has put under our prefix and that is no key of ours is skipped.
    pub(super) fn key_or_skip(&self, full: &[u8]) -> Option<Key> {
        match self.key(full) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::warn!(%error, "etcd has a key under Manx's prefix that Manx does not write; the key is ignored");
                None
            }
        }
    }

    /// See [`Calls::key_or_skip`].
    pub(super) fn entry_or_skip(&self, found: &KeyValue) -> Option<Entry> {
        let key = self.key_or_skip(found.key())?;
        Some(entry(key, found))
    }

    /// Where the cluster is, by the header of an answer.
    pub(super) fn header(&self, header: Option<&ResponseHeader>) -> Result<ClusterState, StoreError> {
        let header = header.ok_or_else(|| self.endpoints.broken("an answer without a header"))?;
        Ok(ClusterState { cluster: header.cluster_id(), revision: header.revision(), term: header.raft_term() })
    }

    async fn list_once(&self, prefix: &Key) -> Result<Listing, CallError> {
        let mut entries = Vec::new();
        let mut start = None;
        loop {
            let page = self.page(prefix, start).await?;
            entries.extend(page.entries);
            start = page.next;
            if start.is_none() {
                let incarnation = page.state.incarnation();
                return Ok(Listing { entries, version: version(page.state.revision), incarnation });
            }
        }
    }

    async fn probe(&self) -> Result<ClusterState, CallError> {
        let key = self.full(&keys::schema_version());
        let options = GetOptions::new().with_keys_only();
        let response = self.endpoints.repeatable(|client| range(client, key.clone(), options.clone())).await?;
        Ok(self.header(response.header())?)
    }

    fn compare(&self, check: &Check) -> Compare {
        let key = self.full(&check.key);
        match check.expect {
            Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            Expect::Present => Compare::create_revision(key, CompareOp::Greater, 0),
            Expect::Version(version) => Compare::mod_revision(key, CompareOp::Equal, revision(version)),
            Expect::Created(version) => Compare::create_revision(key, CompareOp::Equal, revision(version)),
        }
    }

    fn operation(&self, write: Write) -> TxnOp {
        match write {
            Write::Put { key, value, session } => {
                let options = session.map(|session| PutOptions::new().with_lease(session.id()));
                TxnOp::put(self.full(&key), value, options)
            }
            Write::Delete { key } => TxnOp::delete(self.full(&key), None),
        }
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, StoreError> {
        self.key(found.key()).map(|key| entry(key, found))
    }

    fn key(&self, full: &[u8]) -> Result<Key, StoreError> {
        let relative =
            full.strip_prefix(self.prefix.as_bytes()).and_then(|relative| std::str::from_utf8(relative).ok());
        relative.and_then(|relative| Key::new(relative).ok()).ok_or_else(|| StoreError::Malformed {
            key: String::from_utf8_lossy(full).into_owned(),
            what: "not a key of ours".to_owned(),
        })
    }
}

async fn range(
    client: etcd_client::Client,
    key: Vec<u8>,
    options: GetOptions,
) -> Result<GetResponse, etcd_client::Error> {
    client.kv_client().get(key, Some(options)).await
}

fn entry(key: Key, found: &KeyValue) -> Entry {
    Entry {
        key,
        value: found.value().to_vec(),
        version: version(found.mod_revision()),
        created: version(found.create_revision()),
    }
}

/// The first key behind all that begin with `prefix`, which ends in an ASCII character.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// etcd counts from 1; a negative revision does not exist.
fn version(revision: i64) -> Version {
    Version::new(u64::try_from(revision).unwrap_or(0))
}

/// A version of another store, too large for etcd, matches nothing.
fn revision(version: Version) -> i64 {
    i64::try_from(version.count()).unwrap_or(i64::MAX)
}
