//! The task that says which addresses of Services this node announces.

use std::collections::BTreeSet;

use felix::acl::Acl;
use kube_watch::Node;
use store::{Cache, Entry, Version, keys};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use types::{EndpointSlice, NamespacedName, NodeName, Prefix, Service, ServiceRanges, Update};

use super::announcements::{Announcements, EXCLUDED, remembered};
use crate::cluster::sources::decode;
use crate::node::kubernetes::{API_SERVER_WAIT, ApiServer};
use crate::node::latest::{self, tell};

/// How many updates are taken at most before what follows from them is told.
const UPDATES_PER_ROUND: usize = 1_024;

/// What this node announces of Services.
pub(super) struct AnnouncementTask {
    /// The objects that are known, and the prefixes that follow from them.
    announcements: Announcements,
    /// What is to be announced; nothing before that is known.
    ranges: watch::Receiver<Option<ServiceRanges>>,
    /// The API server, where there is one.
    api: Option<ApiServer>,
    /// The cache, which remembers what was announced.
    cache: Cache,
    /// What is announced; nothing before that is known.
    announced: watch::Sender<Option<BTreeSet<Prefix>>>,
    /// Policy: what comes in for a range of Services is not sent back.
    acl: Acl,
    /// Whether everything has been known once.
    was_known: bool,
    /// The watch of Services, while they are needed.
    services: Option<mpsc::Receiver<Update<NamespacedName, Service>>>,
    /// The watch of EndpointSlices, while they are needed.
    slices: Option<mpsc::Receiver<Update<NamespacedName, EndpointSlice>>>,
}

impl AnnouncementTask {
    pub(super) fn new(
        node: NodeName,
        ranges: watch::Receiver<Option<ServiceRanges>>,
        api: Option<ApiServer>,
        cache: Cache,
        acl: Acl,
    ) -> Self {
        Self {
            announcements: Announcements::new(node),
            ranges,
            api,
            cache,
            announced: watch::Sender::new(None),
            acl,
            was_known: false,
            services: None,
            slices: None,
        }
    }

    /// What is announced, for those who follow it.
    pub(super) fn announced(&self) -> watch::Receiver<Option<BTreeSet<Prefix>>> {
        self.announced.subscribe()
    }

    /// Follows what announcements follow from for as long as the agent runs.
    pub(super) async fn run(mut self) {
        // Until the ranges are known, nothing is known of what is wanted.
        let Ok(ranges) = self.ranges.wait_for(Option::is_some).await.map(|ranges| ranges.clone().unwrap_or_default())
        else {
            return;
        };
        self.take_ranges(ranges).await;
        let mut node = self.api.as_ref().map(|api| api.node.clone());
        self.take_node(node.as_mut());
        let before = last_announced(&self.cache).await;
        let give_up = tokio::time::sleep(API_SERVER_WAIT);
        tokio::pin!(give_up);
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        loop {
            self.follow_what_is_needed();
            self.tell();
            tokio::select! {
                changed = self.ranges.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let ranges = self.ranges.borrow_and_update().clone().unwrap_or_default();
                    self.take_ranges(ranges).await;
                }
                Ok(()) = latest::changed(&mut node) => self.take_node(node.as_mut()),
                () = receive(&mut self.services, &mut services) => {
                    services.drain(..).for_each(|update| self.announcements.service(update));
                }
                () = receive(&mut self.slices, &mut slices) => {
                    slices.drain(..).for_each(|update| self.announcements.slice(update));
                }
                () = &mut give_up, if self.announced.borrow().is_none() => {
                    let ranges = self.ranges.borrow().clone().unwrap_or_default();
                    let announced = remembered(&ranges, before.as_ref());
                    warn!(count = announced.len(), "the API server does not answer; announcing what was announced of Services");
                    self.announced.send_replace(Some(announced));
                }
            }
        }
    }

    async fn take_ranges(&mut self, ranges: ServiceRanges) {
        // First what comes in is not sent back, then it is invited.
        self.acl.service_ranges(ranges.all().copied().collect()).await;
        self.announcements.set_ranges(ranges);
    }

    fn take_node(&mut self, node: Option<&mut watch::Receiver<Option<Node>>>) {
        match node {
            // Without Kubernetes nobody says so of a node.
            None => self.announcements.set_excluded(false),
            Some(node) => {
                if let Some(node) = node.borrow_and_update().as_ref() {
                    self.announcements.set_excluded(node.labels.contains_key(EXCLUDED));
                }
            }
        }
    }

    /// Begins and ends watches. What is not needed costs nothing.
    fn follow_what_is_needed(&mut self) {
        let Some(api) = &self.api else { return };
        if !self.announcements.needs_services() {
            if self.services.take().is_some() {
                self.announcements.forget_services();
            }
        } else if self.services.is_none() {
            self.services = Some(api.tasks.services());
        }
        if !self.announcements.needs_slices() {
            if self.slices.take().is_some() {
                self.announcements.forget_slices();
            }
        } else if self.slices.is_none() {
            self.slices = Some(api.tasks.endpoint_slices());
        }
    }

    fn tell(&mut self) {
        // Later a Service that comes to need its endpoints to be known is no reason to say nothing of the others.
        self.was_known |= self.api.is_none() || self.announcements.are_known();
        if !self.was_known {
            return;
        }
        if tell(&self.announced, Some(self.announcements.announced())) {
            remember(&self.cache, self.announced.borrow().as_ref());
        }
    }
}

/// Takes what has come of a watch that may not be there.
async fn receive<T>(from: &mut Option<mpsc::Receiver<T>>, into: &mut Vec<T>) {
    let count = match from {
        Some(from) => from.recv_many(into, UPDATES_PER_ROUND).await,
        None => 0,
    };
    if count == 0 {
        std::future::pending().await
    }
}

async fn last_announced(cache: &Cache) -> Option<BTreeSet<Prefix>> {
    let entries = cache
        .load(&keys::announced())
        .await
        .inspect_err(|error| warn!(%error, "the cache does not say what was announced of Services before this start"))
        .ok()?;
    entries.iter().find_map(decode)
}

fn remember(cache: &Cache, announced: Option<&BTreeSet<Prefix>>) {
    let (key, version) = (keys::announced(), Version::new(0));
    let Some(announced) = announced else { return };
    let entry = Entry { key: key.clone(), value: store::encode(announced), version, created: version };
    cache.put(&key.clone(), &Update::Set(key, entry));
}
