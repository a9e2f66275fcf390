//! A node with ipam running on a journal of its own and, where given, a store that it shares.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipam::{Ipam, IpamConfig, Pool, Request, ReserveError};
use store::{Journal, Memory, Store, keys};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{ContainerId, EndpointId, NodeName, PodRef, Prefix, Update, WorkloadEndpoint};

/// Long enough to never be the reason, short enough to end a broken test.
const TEST_TIME_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct TestNode {
    pub(crate) ipam: Ipam,
    pub(crate) journal: Journal,
    pools: mpsc::Sender<Update<types::ResourceName, Pool>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl TestNode {
    pub(crate) async fn start(config: IpamConfig, store: Option<&Memory>, journal: &Path, pools: &[Pool]) -> Self {
        let journal = Journal::open(journal).unwrap();
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let store = store.map(|store| Arc::new(store.clone()) as Arc<dyn Store>);
        let (updates, source) = mpsc::channel(16);
        let ipam = ipam::start(config, store, journal.clone(), source, &tracker, cancel.clone()).await.unwrap();
        let node = Self { ipam, journal, pools: updates, tracker, cancel };
        node.set_pools(pools).await;
        node
    }

    pub(crate) async fn set_pools(&self, pools: &[Pool]) {
        self.pools.send(Update::Restart).await.unwrap();
        for pool in pools {
            self.pools.send(Update::Set(pool.name.clone(), pool.clone())).await.unwrap();
        }
        self.pools.send(Update::InSync).await.unwrap();
        // A call may overtake what a source says.
        let wanted: Vec<_> = pools.iter().map(|pool| pool.name.clone()).collect();
        eventually("the pools are known", async || self.ipam.view().await.pools.into_keys().eq(wanted.clone())).await;
    }

    /// ADD from beginning to end; gives the addresses.
    pub(crate) async fn add(&self, container: &str) -> Result<Vec<String>, ReserveError> {
        let endpoint = self.ipam.reserve(id(container), request(container)).await?;
        self.ipam.commit(id(container)).await.unwrap();
        Ok(texts(&endpoint))
    }

    pub(crate) async fn del(&self, container: &str) -> Option<Vec<String>> {
        self.ipam.release(id(container)).await.unwrap().map(|endpoint| texts(&endpoint))
    }

    pub(crate) async fn blocks(&self, count: usize) -> Vec<Prefix> {
        let mut blocks = self.ipam.blocks();
        let known = tokio::time::timeout(TEST_TIME_LIMIT, blocks.wait_for(|blocks| blocks.len() >= count));
        let known = known.await.expect("the blocks do not come").unwrap();
        known.iter().copied().collect()
    }

    /// Ends everything without a word, as a SIGKILL would, but for the file's lock.
    pub(crate) async fn kill(self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.journal.close().await;
    }
}

/// Asks until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIME_LIMIT, asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The endpoints of a node as the store shows them, by container.
pub(crate) async fn published(store: &Memory, node: &str) -> BTreeMap<String, Vec<String>> {
    let listing = store.list(&keys::endpoints(&NodeName::new(node).unwrap())).await.unwrap();
    let read = |entry: &store::Entry| store::decode::<WorkloadEndpoint>(&entry.key, &entry.value).unwrap();
    let endpoints = listing.entries.iter().map(read);
    endpoints.map(|endpoint| (endpoint.id.container.to_string(), texts(&endpoint))).collect()
}

pub(crate) fn config(node: &str) -> IpamConfig {
    let boot_id = "boot".to_owned();
    IpamConfig { boot_id, cool_down: Duration::ZERO, ..IpamConfig::new(NodeName::new(node).unwrap()) }
}

pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    let (name, cidr) = (name.parse().unwrap(), cidr.parse().unwrap());
    Pool { name, cidr, block_size, disabled: false, selects_this_node: true }
}

pub(crate) fn id(container: &str) -> EndpointId {
    EndpointId {
        network: "manx".parse().unwrap(),
        container: ContainerId::new(container).unwrap(),
        interface: "eth0".parse().unwrap(),
    }
}

pub(crate) fn request(pod: &str) -> Request {
    let pod = PodRef { namespace: "default".to_owned(), name: pod.to_owned(), uid: None };
    Request { pod, labels: BTreeMap::new(), ports: Vec::new(), link: None }
}

pub(crate) fn texts(endpoint: &WorkloadEndpoint) -> Vec<String> {
    endpoint.addresses.iter().map(ToString::to_string).collect()
}
