//! What of this node's endpoints the shared store has still to be told.
//!
//! The store's copy under `nodes/NAME/endpoints/` follows the allocator: a change marks an endpoint, a transaction writes
//! what all marked ones are by then, so that the latest value wins and a key is written once. One transaction is in flight
//! at a time, hence two never arrive in the wrong order. What the store holds is listed at first, and after it has lost
//! its history; differences count as changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use store::{Entry, Key, MAX_TRANSACTION, MAX_TRANSACTION_BYTES, Write, keys};
use types::{EndpointId, NodeName};

use crate::allocator::Allocator;
use crate::plan::Retry;
use crate::pool::seed;

/// The state of the published copy.
#[derive(Debug)]
pub(crate) struct Publications {
    /// This node.
    node: NodeName,
    /// Endpoints of which the store may show something else than what is.
    changed: BTreeSet<EndpointId>,
    /// What the store holds has to be read (again).
    unlisted: bool,
    /// What the store has been asked.
    in_flight: Option<InFlight>,
    /// After a failure.
    retry: Retry,
}

#[derive(Debug)]
enum InFlight {
    /// The list of the published endpoints.
    List,
    /// A transaction, and the addresses that it publishes for each endpoint (none: the endpoint is gone).
    Batch(BTreeMap<EndpointId, Vec<IpAddr>>),
}

/// What to ask of the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// List what lies under the prefix.
    List(Key),
    /// Make these writes at once.
    Write(Vec<Write>),
}

impl Publications {
    /// Nothing is known of what the store shows.
    pub(crate) fn new(node: NodeName) -> Self {
        let retry = Retry::new(seed(&node));
        Self { node, changed: BTreeSet::new(), unlisted: true, in_flight: None, retry }
    }

    /// An endpoint was committed, or a committed one released.
    pub(crate) fn change(&mut self, id: EndpointId) {
        self.changed.insert(id);
    }

    /// The store may have forgotten or restored entries.
    pub(crate) const fn doubt(&mut self) {
        self.unlisted = true;
    }

    /// How many endpoints the store may show wrongly.
    pub(crate) fn behind(&self) -> usize {
        match &self.in_flight {
            Some(InFlight::Batch(batch)) => self.changed.len() + batch.len(),
            _ => self.changed.len(),
        }
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        // While something is in flight, its end is what counts.
        if self.in_flight.is_some() { None } else { self.retry.deadline() }
    }

    /// What to ask now, if anything; it counts as asked.
    pub(crate) fn begin(&mut self, allocator: &Allocator, now: Instant) -> Option<Ask> {
        if self.in_flight.is_some() || !self.retry.is_due(now) {
            return None;
        }
        if self.unlisted {
            // A doubt that comes while the list is under way asks for another list.
            self.unlisted = false;
            self.in_flight = Some(InFlight::List);
            return Some(Ask::List(keys::endpoints(&self.node)));
        }
        if self.changed.is_empty() {
            return None;
        }
        let (batch, writes) = self.take_batch(allocator);
        self.in_flight = Some(InFlight::Batch(batch));
        Some(Ask::Write(writes))
    }

    /// The store has listed the published endpoints.
    pub(crate) fn listed(&mut self, entries: &[Entry], allocator: &Allocator) {
        self.in_flight = None;
        self.retry.succeeded();
        let mut missing: BTreeSet<EndpointId> = allocator.all_committed().map(|endpoint| endpoint.id.clone()).collect();
        for entry in entries {
            // A key that this layout does not have is a newer Manx's.
            let Ok(keys::Subject::Endpoint(_, id)) = keys::subject(&entry.key) else { continue };
            let published = allocator.committed(&id).is_some_and(|endpoint| store::encode(endpoint) == entry.value);
            if published {
                missing.remove(&id);
            } else {
                self.changed.insert(id);
            }
        }
        self.changed.extend(missing);
        // They may have been published at a time that this process does not know of; a write settles it.
        self.changed.extend(allocator.releasing().cloned());
    }

    /// The store has made the writes. Gives the addresses that it now shows for each endpoint concerned.
    pub(crate) fn acknowledged(&mut self) -> BTreeMap<EndpointId, Vec<IpAddr>> {
        self.retry.succeeded();
        match self.in_flight.take() {
            Some(InFlight::Batch(batch)) => batch,
            _ => BTreeMap::new(),
        }
    }

    /// The store has not answered, or refuses: what was to be written is still to be written.
    pub(crate) fn failed(&mut self, now: Instant) {
        match self.in_flight.take() {
            Some(InFlight::Batch(batch)) => self.changed.extend(batch.into_keys()),
            Some(InFlight::List) => self.unlisted = true,
            None => {}
        }
        self.retry.failed(now);
    }

    /// As many of the changed endpoints as one transaction takes.
    fn take_batch(&mut self, allocator: &Allocator) -> (BTreeMap<EndpointId, Vec<IpAddr>>, Vec<Write>) {
        let (mut batch, mut writes, mut bytes) = (BTreeMap::new(), Vec::new(), 0);
        while let Some(id) = self.changed.first() {
            let key = keys::endpoint(&self.node, id);
            let endpoint = allocator.committed(id);
            let write = endpoint.map_or_else(
                || Write::delete(key.clone()),
                |endpoint| Write::put(key.clone(), store::encode(endpoint)),
            );
            bytes += size(&write);
            if writes.len() == MAX_TRANSACTION || (bytes > MAX_TRANSACTION_BYTES && !writes.is_empty()) {
                break;
            }
            let addresses = endpoint.map(|endpoint| endpoint.addresses.clone()).unwrap_or_default();
            writes.push(write);
            batch.extend(self.changed.pop_first().map(|id| (id, addresses)));
        }
        (batch, writes)
    }
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.as_str().len() + value.len(),
        Write::Delete { key } => key.as_str().len(),
    }
}
