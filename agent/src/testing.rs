//! What the tests of this crate share: ipam, felix and policy as they are, on kernels in memory.

use std::path::Path;
use std::time::Duration;

use felix::acl::{Acl, AclBackend, AclConfig};
use felix::policy::PolicyUpdate;
use felix::routes::{Routes, RoutesConfig};
use ipam::{Ipam, IpamConfig, Request};
use kernel::acl::IptablesVariant;
use kernel::fake::FakeKernel;
use kernel::fake::acl::{AclOperation, FakeAcl};
use serde_json::json;
use store::Journal;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::host_ports::PodPorts;
use types::policy::{Labels, PolicyId, PolicyKind, network_policy};
use types::{EndpointId, NamespacedName, Pod, PodRef, Update};

use crate::cni::attachments::Attachments;
use crate::cni::host_ports::HostPorts;
use crate::cni::links::HostLinks;
use crate::cni::turns::Turns;
use crate::node::readiness::Readiness;
use crate::policy::facts;
use crate::policy::pods::Identities;

/// EBUSY, as a held lock is told.
const BUSY: i32 = 16;

/// The namespace of all pods. Those of `tier=db` in it are reached by nobody; so they, and only they, need rules.
pub(crate) const NAMESPACE: &str = "shop";

/// A node of one block of addresses whose sources of policy are in sync.
pub(crate) struct World {
    pub(crate) kernel: FakeKernel,
    pub(crate) filter: FakeAcl,
    pub(crate) ipam: Ipam,
    pub(crate) routes: Routes,
    pub(crate) acl: Acl,
    /// With the journal.
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal.db")).unwrap();
        let (pools, pool_updates) = mpsc::channel(4);
        let config = IpamConfig::new("n1".parse().unwrap());
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let ipam = ipam::start(config, None, journal, pool_updates, &tracker, cancel).await.unwrap();
        let (name, cidr) = ("pods".parse::<types::ResourceName>().unwrap(), "10.65.0.0/24".parse().unwrap());
        let pool = ipam::Pool { name: name.clone(), cidr, block_size: 26, disabled: false, selects_this_node: true };
        for update in [Update::Restart, Update::Set(name, pool), Update::InSync] {
            pools.send(update).await.unwrap();
        }
        ipam.blocks().wait_for(|blocks| !blocks.is_empty()).await.unwrap();

        let (kernel, filter) = (FakeKernel::new(), FakeAcl::new());
        let events = kernel.events().unwrap();
        let routes = felix::routes::start(RoutesConfig::default(), Box::new(kernel.clone()), Box::new(events)).unwrap();
        routes.local_in_sync().await;
        let backend = AclBackend {
            sets: Box::new(filter.sets()),
            tables: Box::new(filter.tables(IptablesVariant::Nft)),
            connections: Box::new(filter.connections()),
            events: Box::new(filter.events().unwrap()),
            host: Box::new(kernel.clone()),
        };
        let acl = felix::acl::start(AclConfig::default(), backend).unwrap();
        acl.local_in_sync().await;
        acl.update(in_sync()).await;
        acl.readiness().wait_for(Vec::is_empty).await.unwrap();
        Self { kernel, filter, ipam, routes, acl, _folder: folder }
    }

    /// Nothing that needs other rules comes into force from now on.
    pub(crate) fn fail_restores(&self) {
        self.filter.fail_always(AclOperation::Restore, BUSY);
    }

    /// The host's end of an attachment is there and up.
    pub(crate) fn wire(&self, id: &EndpointId) {
        self.kernel.add_link(id.host_interface().as_str(), true);
    }

    /// Whether nothing is left of an attachment.
    pub(crate) async fn is_gone(&self, id: &EndpointId) -> bool {
        let routes = self.routes.view().await.unwrap().local;
        let held = self.ipam.endpoint(id.clone()).await;
        held.is_none() && self.acl.show(id.clone()).await.is_none() && routes == 0
    }
}

/// The agent's side of CNI in a world. Whoever is told of parked links has left.
pub(crate) fn attachments(world: &World, identities: Identities, released: &Path) -> Attachments {
    let (_, mtu) = watch::channel(1_500);
    let (parked, _) = mpsc::channel(1);
    let (kernel, filter) = (world.kernel.clone(), world.filter.clone());
    Attachments {
        ipam: world.ipam.clone(),
        routes: world.routes.clone(),
        acl: world.acl.clone(),
        host_ports: HostPorts::unused(),
        identities,
        mtu,
        parked_group: kernel::ours::LINK_GROUP,
        parked,
        released: released.to_owned(),
        readiness: Readiness::new(),
        turns: Turns::default(),
        host: HostLinks::of(move || Ok(Box::new(kernel.clone())), move || Ok(Box::new(filter.sets()))),
    }
}

fn in_sync() -> Vec<PolicyUpdate> {
    let spec = json!({ "podSelector": { "matchLabels": { "tier": "db" } }, "policyTypes": ["Ingress"] });
    let (policy, _) = network_policy(NAMESPACE, &spec);
    let (namespace, name) = (NAMESPACE.to_owned(), "closed".to_owned());
    let id = PolicyId { kind: PolicyKind::NetworkPolicy, namespace, name };
    vec![
        PolicyUpdate::Policy(Update::Restart),
        PolicyUpdate::Policy(Update::Set(id, policy.into())),
        PolicyUpdate::Policy(Update::InSync),
        PolicyUpdate::Namespace(Update::Restart),
        PolicyUpdate::Namespace(Update::InSync),
        PolicyUpdate::Remote(Update::Restart),
        PolicyUpdate::Remote(Update::InSync),
        PolicyUpdate::Expected(Update::Restart),
        PolicyUpdate::Expected(Update::InSync),
    ]
}

pub(crate) fn id(container: &str) -> EndpointId {
    format!("manx/{container}/eth0").parse().unwrap()
}

pub(crate) fn tier(value: &str) -> Labels {
    Labels::from([("tier".to_owned(), value.to_owned())])
}

/// As the runtime names a pod.
pub(crate) fn reference(name: &str, uid: Option<&str>) -> PodRef {
    PodRef { namespace: NAMESPACE.to_owned(), name: name.to_owned(), uid: uid.map(str::to_owned) }
}

/// A pod as the API server has it, and what it is known by.
pub(crate) fn pod(name: &str, uid: &str, labels: Labels) -> (NamespacedName, Pod) {
    let pod = Pod {
        reference: reference(name, Some(uid)),
        config_hash: None,
        labels,
        ports: Vec::new(),
        host_network: false,
        finished: false,
        addresses: Vec::new(),
        host_ports: PodPorts::default(),
    };
    (NamespacedName { namespace: NAMESPACE.to_owned(), name: name.to_owned() }, pod)
}

/// An endpoint of a pod, complete and under its policies.
pub(crate) async fn attached(world: &World, container: &str, pod: &Pod) -> EndpointId {
    let id = id(container);
    let request = Request { pod: pod.reference.clone(), labels: pod.labels.clone(), ports: Vec::new(), link: None };
    let endpoint = world.ipam.reserve(id.clone(), request).await.unwrap();
    soon(world.acl.attach(id.clone(), facts::of_endpoint(endpoint))).await.unwrap();
    world.ipam.commit(id.clone()).await.unwrap();
    id
}

/// The labels by which policy knows an endpoint.
pub(crate) async fn labels(world: &World, id: &EndpointId) -> Labels {
    world.acl.show(id.clone()).await.unwrap().labels
}

/// What takes a real thread's time is waited for no longer than this: it is less than the limits that are tested.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(4), what).await.expect("it takes too long")
}

/// Waits until something that other threads bring about is so.
pub(crate) async fn until(what: impl AsyncFn() -> bool) {
    soon(async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
