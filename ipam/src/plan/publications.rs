//! What of this node's endpoints the shared store has still to be told.
//!
//! The store's copy under `nodes/NAME/endpoints/` follows the allocator: a change marks an endpoint, a transaction writes
//! what all marked ones are by then, so that the latest value wins and a key is written once. One transaction is in flight
//! at a time, hence two never arrive in the wrong order. What the store holds is listed at first, and after it has lost
//! its history; differences count as changes.
//!
//! A transaction is made only where the claims stand that its addresses rest on: whoever publishes finds out at once that a
//! block is another's, also where the watch of claims has fallen silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use store::{Check, Entry, Key, MAX_TRANSACTION, MAX_TRANSACTION_BYTES, Version, Write, keys};
use types::{EndpointId, NodeName, Prefix};

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
    /// The request to the store that is under way.
    in_flight: Option<InFlight>,
    /// The pause after a failure.
    retry: Retry,
}

#[derive(Debug)]
enum InFlight {
    /// The list of the published endpoints.
    List,
    Batch(Batch),
}

/// A transaction.
#[derive(Debug, Default)]
struct Batch {
    /// The addresses that it publishes for each endpoint (none: the endpoint is gone).
    endpoints: BTreeMap<EndpointId, Vec<IpAddr>>,
    /// The blocks that they are of, and when their claims were made.
    claims: BTreeMap<Prefix, Version>,
}

/// A request to the store about the published copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// List what lies under the prefix.
    List(Key),
    /// Make these writes at once, if the checks hold.
    Write(Vec<Check>, Vec<Write>),
}

impl Publications {
    /// Publications of a node that does not know yet what the store shows.
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
            Some(InFlight::Batch(batch)) => self.changed.len() + batch.endpoints.len(),
            _ => self.changed.len(),
        }
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        // While something is in flight, its end is what counts.
        if self.in_flight.is_some() { None } else { self.retry.deadline() }
    }

    /// What to ask now, if anything; it counts as asked. `claim`: the block of this node that an address is of, and when it
    /// was claimed, as far as that is beyond doubt.
    pub(crate) fn begin(
        &mut self,
        allocator: &Allocator,
        claim: impl Fn(&IpAddr) -> Option<(Prefix, Version)>,
        now: Instant,
    ) -> Option<Ask> {
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
        let (batch, writes) = self.take_batch(allocator, claim);
        let checks = batch.claims.iter().map(|(block, created)| Check::created(keys::block(block), *created)).collect();
        self.in_flight = Some(InFlight::Batch(batch));
        Some(Ask::Write(checks, writes))
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
            Some(InFlight::Batch(batch)) => batch.endpoints,
            _ => BTreeMap::new(),
        }
    }

    /// A check did not hold: nothing was written. Gives the blocks that the writes rest on.
    pub(crate) fn refuted(&mut self, now: Instant) -> Vec<Prefix> {
        let blocks = match &self.in_flight {
            Some(InFlight::Batch(batch)) => batch.claims.keys().copied().collect(),
            _ => Vec::new(),
        };
        self.failed(now);
        blocks
    }

    /// The store has not answered, or refuses: what was to be written is still to be written.
    pub(crate) fn failed(&mut self, now: Instant) {
        match self.in_flight.take() {
            Some(InFlight::Batch(batch)) => self.changed.extend(batch.endpoints.into_keys()),
            Some(InFlight::List) => self.unlisted = true,
            None => {}
        }
        self.retry.failed(now);
    }

    /// As many of the changed endpoints as one transaction takes.
    fn take_batch(
        &mut self,
        allocator: &Allocator,
        claim: impl Fn(&IpAddr) -> Option<(Prefix, Version)>,
    ) -> (Batch, Vec<Write>) {
        let (mut batch, mut writes, mut bytes) = (Batch::default(), Vec::new(), 0);
        while let Some(id) = self.changed.first() {
            let key = keys::endpoint(&self.node, id);
            let endpoint = allocator.committed(id);
            let write = endpoint.map_or_else(
                || Write::delete(key.clone()),
                |endpoint| Write::put(key.clone(), store::encode(endpoint)),
            );
            bytes += size(&write);
            let addresses = endpoint.map(|endpoint| endpoint.addresses.clone()).unwrap_or_default();
            let claims: Vec<_> = addresses.iter().filter_map(&claim).collect();
            let full = writes.len() == MAX_TRANSACTION || batch.claims.len() + claims.len() > MAX_TRANSACTION;
            if full || (bytes > MAX_TRANSACTION_BYTES && !writes.is_empty()) {
                break;
            }
            writes.push(write);
            batch.claims.extend(claims);
            batch.endpoints.extend(self.changed.pop_first().map(|id| (id, addresses)));
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
