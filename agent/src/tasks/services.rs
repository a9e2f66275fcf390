//! The tasks of Services, of the diagram above: what this node announces of their addresses, and, in the elected agent, the
//! addresses of those of type LoadBalancer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ::watch::{Node, WriteError, Writer};
use felix::acl::Acl;
use store::{Cache, Entry, Version, keys};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use types::backoff::Backoff;
use types::{EndpointSlice, NamespacedName, NodeName, Prefix, Service, ServiceRanges, Update};

use super::tell;
use crate::load_balancer::{self, Change, Pool};
use crate::services::{Announcements, EXCLUDED, remembered};

/// Updates that are taken before what follows is told.
const ROUND: usize = 1_024;

/// So long the API server may be silent at the start before what was announced before counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Delays between attempts to write what the API server did not take.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The API server, for what is asked of it now and then.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    pub(crate) tasks: Arc<::watch::Tasks>,
    /// This node's Node, empty where there is none; nothing before that is known.
    pub(crate) node: watch::Receiver<Option<Node>>,
}

/// Keeps this node's Node for those who need it.
pub(crate) async fn follow_node(mut updates: mpsc::Receiver<Update<String, Node>>, to: watch::Sender<Option<Node>>) {
    let mut listed = None;
    while let Some(update) = updates.recv().await {
        match update {
            Update::Restart => listed = Some(Node::default()),
            Update::Set(_, node) => match &mut listed {
                Some(listed) => *listed = node,
                None => drop(to.send_replace(Some(node))),
            },
            Update::Delete(_) => drop(to.send_replace(Some(Node::default()))),
            Update::InSync => {
                if let Some(node) = listed.take() {
                    to.send_replace(Some(node));
                }
            }
        }
    }
}

/// What the tasks of Services are made of.
pub(crate) struct ServiceWiring {
    task: ServiceTask,
    api: Option<ApiServer>,
    /// What is to be announced.
    pub(super) ranges: watch::Sender<Option<ServiceRanges>>,
    /// Where addresses are given out from.
    pub(super) pools: watch::Sender<Vec<Pool>>,
    problems: watch::Sender<BTreeSet<String>>,
}

/// What is to be seen of Services.
#[derive(Debug, Clone)]
pub(crate) struct ServiceView {
    /// What is announced of them; nothing before that is known.
    pub(crate) announced: watch::Receiver<Option<BTreeSet<Prefix>>>,
    /// What is wrong with which of them, in the elected agent.
    pub(crate) problems: watch::Receiver<BTreeSet<String>>,
}

impl ServiceWiring {
    pub(crate) fn new(node: NodeName, api: Option<ApiServer>, cache: Cache, acl: Acl) -> Self {
        let (ranges, known) = watch::channel(None);
        let task = ServiceTask::new(node, known, api.clone(), cache, acl);
        Self { task, api, ranges, pools: watch::Sender::default(), problems: watch::Sender::default() }
    }

    /// The API server, where there is one.
    pub(super) fn api(&self) -> Option<ApiServer> {
        self.api.clone()
    }

    pub(crate) fn view(&self) -> ServiceView {
        ServiceView { announced: self.task.announced.subscribe(), problems: self.problems.subscribe() }
    }

    pub(super) fn start(self, elected: watch::Receiver<bool>, tracker: &TaskTracker) {
        if let Some(api) = self.api {
            let pools = self.pools.subscribe();
            tracker.spawn(LoadBalancerTask { api, pools, elected, problems: self.problems }.run());
        }
        tracker.spawn(self.task.run());
    }
}

/// What this node announces of Services.
struct ServiceTask {
    announcements: Announcements,
    /// What is to be announced; nothing before that is known.
    ranges: watch::Receiver<Option<ServiceRanges>>,
    api: Option<ApiServer>,
    /// What was announced is remembered here.
    cache: Cache,
    /// What is announced; nothing before that is known.
    announced: watch::Sender<Option<BTreeSet<Prefix>>>,
    acl: Acl,
    /// Everything has been known once.
    was_known: bool,
    services: Option<mpsc::Receiver<Update<NamespacedName, Service>>>,
    slices: Option<mpsc::Receiver<Update<NamespacedName, EndpointSlice>>>,
}

impl ServiceTask {
    fn new(
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

    async fn run(mut self) {
        // Until then nothing is known of what is wanted.
        let Ok(ranges) = self.ranges.wait_for(Option::is_some).await.map(|ranges| ranges.clone().unwrap_or_default())
        else {
            return;
        };
        self.take_ranges(ranges).await;
        let mut node = self.api.as_ref().map(|api| api.node.clone());
        self.take_node(node.as_mut());
        let before = last_announced(&self.cache).await;
        let give_up = tokio::time::sleep(PATIENCE);
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
                () = changed(&mut node) => self.take_node(node.as_mut()),
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

/// A change of what may not be there; never, where it is not.
async fn changed<T>(of: &mut Option<watch::Receiver<T>>) {
    let changed = match of {
        Some(of) => of.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        // The source ends with the agent.
        std::future::pending().await
    }
}

/// Takes what has come of a watch that may not be there.
async fn receive<T>(from: &mut Option<mpsc::Receiver<T>>, into: &mut Vec<T>) {
    let count = match from {
        Some(from) => from.recv_many(into, ROUND).await,
        None => 0,
    };
    if count == 0 {
        std::future::pending().await
    }
}

async fn last_announced(cache: &Cache) -> Option<BTreeSet<Prefix>> {
    let entries =
        cache.load(&keys::announced()).await.inspect_err(|error| warn!(%error, "nothing is remembered")).ok()?;
    entries.iter().find_map(crate::sources::decode)
}

fn remember(cache: &Cache, announced: Option<&BTreeSet<Prefix>>) {
    let (key, version) = (keys::announced(), Version::new(0));
    let Some(announced) = announced else { return };
    let entry = Entry { key: key.clone(), value: store::encode(announced), version, created: version };
    cache.put(&key.clone(), &Update::Set(key, entry));
}

/// Gives Services of type LoadBalancer their addresses while this agent is elected.
struct LoadBalancerTask {
    api: ApiServer,
    pools: watch::Receiver<Vec<Pool>>,
    elected: watch::Receiver<bool>,
    /// What is wrong with which Services.
    problems: watch::Sender<BTreeSet<String>>,
}

impl LoadBalancerTask {
    async fn run(mut self) {
        loop {
            let wanted = async {
                self.elected.wait_for(|is_elected| *is_elected).await.map(drop)?;
                self.pools.wait_for(|pools| !pools.is_empty()).await.map(drop)
            };
            if wanted.await.is_err() {
                return;
            }
            let mut elected = self.elected.clone();
            tokio::select! {
                // At once, in the middle of whatever is being done.
                biased;
                _ = elected.wait_for(|is_elected| !*is_elected) => {}
                () = self.serve() => {}
            }
            self.problems.send_replace(BTreeSet::new());
        }
    }

    /// One term. Pools may all go meanwhile: what was given out of them is then taken back.
    async fn serve(&mut self) {
        info!("giving Services of type LoadBalancer their addresses");
        let mut updates = self.api.tasks.services();
        let mut term = Term::new(self.api.tasks.writer());
        let mut batch = Vec::new();
        loop {
            let retry = async {
                match term.retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = updates.recv_many(&mut batch, ROUND) => {
                    if count == 0 {
                        return;
                    }
                }
                changed = self.pools.changed() => if changed.is_err() {
                    return;
                },
                () = retry => {}
            }
            batch.drain(..).for_each(|update| term.take(update));
            if term.is_known {
                let pools = self.pools.borrow_and_update().clone();
                term.write(&pools).await;
                tell(&self.problems, load_balancer::problems(&term.services));
            }
        }
    }
}

/// What is known while this agent is elected.
struct Term {
    writer: Writer,
    services: BTreeMap<NamespacedName, Service>,
    unconfirmed: BTreeSet<NamespacedName>,
    is_known: bool,
    /// What may have been written though the API server did not say so.
    held: BTreeMap<NamespacedName, Vec<std::net::IpAddr>>,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl Term {
    fn new(writer: Writer) -> Self {
        Self {
            writer,
            services: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            is_known: false,
            held: BTreeMap::new(),
            backoff: Backoff::new(RETRY.0, RETRY.1, u64::from(std::process::id())),
            retry_at: None,
        }
    }

    fn take(&mut self, update: Update<NamespacedName, Service>) {
        match update {
            Update::Restart => self.unconfirmed = self.services.keys().cloned().collect(),
            Update::Set(name, service) => {
                self.unconfirmed.remove(&name);
                // The watch may be behind what we have written ourselves.
                let is_behind =
                    |known: &Service| is_older(&service.version, &known.version) && known.uid == service.uid;
                if self.services.get(&name).is_some_and(is_behind) {
                    return;
                }
                if load_balancer::concerns(&service) {
                    self.services.insert(name, service);
                } else {
                    self.forget(&name);
                }
            }
            Update::Delete(name) => self.forget(&name),
            Update::InSync => {
                for name in std::mem::take(&mut self.unconfirmed) {
                    self.forget(&name);
                }
                self.is_known = true;
            }
        }
    }

    fn forget(&mut self, name: &NamespacedName) {
        self.services.remove(name);
        self.held.remove(name);
    }

    /// Writes what differs, one Service after the other: of the next one it is known what the ones before have got.
    async fn write(&mut self, pools: &[Pool]) {
        self.retry_at = None;
        let mut has_failed = false;
        for change in load_balancer::changes(pools, &self.services, &self.held) {
            let Change { service, version, addresses, condition } = change;
            match self.writer.put_addresses(&service, &version, &addresses, condition.as_ref()).await {
                Ok(version) => {
                    self.held.remove(&service);
                    let reason = condition.as_ref().map_or("released", |condition| condition.message.as_str());
                    info!(%service, reason, "addresses of a Service");
                    if let Some(known) = self.services.get_mut(&service) {
                        (known.version, known.ingress, known.said) = (version, addresses, condition);
                    }
                }
                // The watch says what it is now.
                Err(WriteError::Outdated { .. }) => {}
                Err(WriteError::Failed(error)) => {
                    warn!(%service, %error, "its addresses are not written; trying again");
                    self.held.insert(service, addresses);
                    has_failed = true;
                }
            }
        }
        if has_failed {
            self.retry_at = Some(Instant::now() + self.backoff.delay());
        } else {
            self.backoff.reset();
        }
    }
}

/// Whether one version of an object is older than another: both are numbers (KEP-5504).
fn is_older(one: &str, other: &str) -> bool {
    matches!((one.parse::<u64>(), other.parse::<u64>()), (Ok(one), Ok(other)) if one < other)
}
