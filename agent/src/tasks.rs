//! Every task of the agent, and what they say to each other.
//!
//! ```text
//!   source (1 per prefix) ──ClusterUpdate──► cluster (1) ──sessions, import──► bgp
//!                                               │ └───────pools──────────────► ipam
//!   ipam ──own blocks──► originated (1) ──originate──► bgp,  ──unreachable routes──► felix
//!   cluster ──ranges──► services (1) ──announced addresses──► originated   ──ranges──► felix (acl): drop what comes back
//!   election (1): the lease on `elected/holder` ──► load balancers (1) ──addresses──► API server
//!   bgp ──FibUpdate──► fib (1) ──► felix          bgp ──NextHopWatch──► watches (1) ──► felix
//!   felix ──NextHopState──► next_hops (1) ──► bgp
//!   tombstones ──► released (1) ──► ipam, felix: DELs that were not answered
//!   cni.sock ──► attach (1 per connection) ──► ipam, felix ──parked──► reaper (1 thread)
//!   policies, namespaces (1 source each) ──PolicyUpdate──► carry (1) ──► felix (acl)
//!   nodes (1) ──registrations──► cluster   ──endpoints──► peers (1) ◄──blocks (1 source)
//!                                                          └──those that count──► carry
//!   API server ──► write_down, remembered (1 of each per kind) ──► the sources above, pods (1)
//!   API server ──Services, EndpointSlices (while needed)──► services, load balancers   ──Node──► services
//!   pods (1) ──labels──► ipam, felix (acl); answers the ADDs that wait for their Pod
//!   agent.sock, health port (1 server each) ──► status: asks ipam, felix, bgp
//!   presence (1): the lease on the node's name
//!   election, Nodes' names, registrations ──► reclaim (1) ──► store: what nodes had that have gone
//!   interfaces (1 thread), Node ──► addresses (1) ──this node's──► cluster, node
//!   readiness, Node ──► node (1) ──► CNI configuration, API server   ──registration──► presence
//! ```
//!
//! A task that cannot go on says why on one channel, and the agent ends with that; the others end with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bgp::{Bgp, ImportPolicy, Outputs, PeerConfig};
use felix::acl::{Acl, NatPool};
use felix::routes::Routes;
use ipam::Ipam;
use kernel::events::Events;
use kernel::{Kernel, Linux};
use store::{Session, Store, keys};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use types::config::Config;
use types::resource::Kind;
use types::{Gone, InterfaceName, NodeName, Prefix, Registration, ResourceName, RouterId, ServiceRanges, Update};

use crate::api::{self, Api};
use crate::attach::Attachments;
use crate::cluster::{Cluster, Desired};
use crate::drop_log::Denied;
use crate::election::Election;
use crate::load_balancer::Pool;
use crate::presence::Presence;
use crate::readiness::{Part, Readiness};
use crate::status::{Identity, Status};
use node::NodeTask;
use reclaim::ReclaimTask;

use crate::{addresses, drop_log, health, reaper, released, remains, sources};

pub(crate) use own_addresses::OwnAddresses;
pub(crate) use policy::{PolicyWiring, acl, read_drop_log, remember};
pub(crate) use services::{ApiServer, ServiceView, ServiceWiring};

mod node;
mod own_addresses;
mod policy;
mod reclaim;
mod services;

/// Updates that wait for the cluster task.
const UPDATES: usize = 1_024;

/// The pods' MTU where neither configuration nor routes say another: Ethernet's.
const ETHERNET_MTU: u32 = 1_500;

/// All that the tasks are made of.
pub(crate) struct Wiring {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) presence: Presence,
    pub(crate) session: Option<Session>,
    pub(crate) registration: Registration,
    pub(crate) addresses: OwnAddresses,
    pub(crate) ipam: Ipam,
    pub(crate) pools: mpsc::Sender<Update<ResourceName, ipam::Pool>>,
    pub(crate) felix: Routes,
    pub(crate) policy: PolicyWiring,
    pub(crate) services: ServiceWiring,
    pub(crate) bgp: Bgp,
    pub(crate) outputs: Outputs,
    pub(crate) identity: watch::Sender<Identity>,
    pub(crate) readiness: Readiness,
    pub(crate) attachments: Attachments,
    pub(crate) parked_links: mpsc::Receiver<()>,
    pub(crate) status: Status,
    pub(crate) sockets: Sockets,
}

impl Wiring {
    /// Starts every task; what comes back resolves when one cannot go on.
    pub(crate) fn start(
        self,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Error> + use<>> {
        let (fatal, mut fatals) = mpsc::channel::<anyhow::Error>(1);
        let Sockets { cni, api, health: health_listener } = self.sockets;
        let (updates, reports) = mpsc::channel(UPDATES);
        for kind in Kind::CLUSTER {
            let watched = self.store.watch(keys::resources(kind));
            tracker.spawn(sources::follow(watched, sources::resource(kind), updates.clone()));
        }
        tracker.spawn(sources::follow(self.store.watch(keys::all_gone()), sources::gone, updates.clone()));
        let acl = self.policy.acl.clone();
        self.policy.start(&self.store, updates, &self.ipam, tracker);
        let cluster = ClusterTask {
            cluster: Cluster::new(self.config.node_name.clone(), self.addresses.found.borrow().clone()),
            addresses: self.addresses.found.subscribe(),
            drawn_router_id: self.addresses.drawn_router_id,
            felix: self.felix.clone(),
            import_prefixes: self.config.import_prefixes.clone(),
            pools: self.pools,
            bgp: self.bgp.clone(),
            identity: self.identity,
            acl,
            unexported: watch::Sender::default(),
            service_ranges: self.services.ranges.clone(),
            load_balancers: self.services.pools.clone(),
            readiness: self.readiness.clone(),
            registered: watch::Sender::default(),
            fatal: fatal.clone(),
        };
        let registered = cluster.registered.subscribe();
        let originated = Originated {
            blocks: self.ipam.blocks(),
            unexported: cluster.unexported.subscribe(),
            services: self.services.view().announced,
            drained: self.status.drained.subscribe(),
        };
        tracker.spawn(cluster.run(reports));

        tracker.spawn(originated.follow(self.felix.clone(), self.bgp.clone(), self.readiness));
        tracker.spawn(carry_routes(self.outputs.fib, self.felix.clone()));
        tracker.spawn(carry_watches(self.outputs.watches, self.felix.clone()));
        tracker.spawn(carry_next_hops(self.felix, self.bgp));

        let (group, parked) = (self.config.kernel.link_group, self.parked_links);
        let kernel: Box<dyn Kernel> = Box::new(Linux::open()?);
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || reaper::run(kernel, group, parked))?;

        tracker.spawn(give_back_memory(self.status.readiness.clone()));
        let (registration, registrations) = watch::channel(None);
        let node = NodeTask {
            registration: self.registration,
            addresses: self.addresses.found.subscribe(),
            registered: registration,
            node: self.config.node_name.clone(),
            readiness: self.status.readiness.clone(),
            cni_conf_dir: self.config.cni_conf_dir.clone(),
            api: self.services.api(),
        };
        tracker.spawn(node.run());

        let (news, interfaces) = mpsc::channel(1);
        let events = addresses::subscribe()?;
        let watch_interfaces = move || addresses::watch_interfaces(events, &news);
        std::thread::Builder::new().name("interfaces".to_owned()).spawn(watch_interfaces)?;
        tracker.spawn(self.addresses.follow(interfaces, self.services.api()));

        let instance = self.presence.instance.clone();
        let watches = self.status.kubernetes.clone();
        let election = Election::new(Arc::clone(&self.store), self.config.node_name.clone(), instance, watches);
        if let Some(api) = self.services.api() {
            let reclaim = ReclaimTask {
                store: Arc::clone(&self.store),
                bgp: self.status.bgp.clone(),
                api,
                elected: election.is_elected(),
                registered,
                grace: self.config.reclaim_grace,
            };
            tracker.spawn(reclaim.run());
        }
        self.services.start(election.is_elected(), tracker);
        tracker.spawn(election.stand(cancel.clone()));

        let presence = self.presence.keep(self.session, registrations, cancel.clone());
        let lost_name = fatal.clone();
        tracker.spawn(async move {
            if let Err(error) = presence.await {
                // Only the first fatal error is told; a later one finds the channel full.
                let _ = lost_name.try_send(error.into());
            }
        });

        tracker.spawn(released::follow(self.attachments.clone()));
        tracker.spawn(serve_cni(cni, self.attachments, tracker.clone()));
        let (looks, looked) = mpsc::channel(1);
        let (acl, ipam) = (self.status.acl.clone(), self.status.ipam.clone());
        tracker.spawn(drop_log::serve(self.config.policy.log_group, looked, acl.clone(), ipam.clone()));
        let relabels = self.config.kubernetes.is_none();
        let denied = Denied::new(looks);
        let status = self.status.clone();
        let router = api::router(Api { status, store: self.store, acl, ipam, denied, relabels });
        tracker.spawn(serve("local API", fatal.clone(), axum::serve(api, router).into_future()));
        let router = health::router(self.status);
        tracker.spawn(serve("health port", fatal.clone(), axum::serve(health_listener, router).into_future()));

        Ok(async move {
            let error = fatals.recv().await;
            drop(fatal);
            error.unwrap_or_else(|| anyhow::anyhow!("every task has ended"))
        })
    }
}

/// Tells what is so now, unless that is known; whether it was news.
pub(crate) fn tell<T: PartialEq>(to: &watch::Sender<T>, now: T) -> bool {
    to.send_if_modified(|known| {
        let is_news = *known != now;
        *known = now;
        is_news
    })
}

/// What the first reading of everything took and does not need any more goes back to the system once.
async fn give_back_memory(readiness: Readiness) {
    readiness.all_ready().await;
    let _ = tokio::task::spawn_blocking(kernel::memory::give_back).await;
}

/// felix on its own threads, with a netlink socket and a subscription of its own.
pub(crate) fn felix(config: &Config, addresses: &[IpAddr]) -> anyhow::Result<Routes> {
    let felix = felix::routes::RoutesConfig {
        local_protocol: config.kernel.local_protocol,
        bgp_protocol: config.kernel.bgp_protocol,
        node_addresses: addresses.to_vec(),
        ..felix::routes::RoutesConfig::default()
    };
    let mut kernel = Linux::open()?;
    let events = Events::subscribe()?.except(kernel.port()?);
    Ok(felix::routes::start(felix, Box::new(kernel), Box::new(events))?)
}

/// Parks a link, off the runtime's threads: netlink blocks.
pub(crate) async fn park(interface: InterfaceName, group: u32) -> anyhow::Result<()> {
    let parked = tokio::task::spawn_blocking(move || remains::park(&mut Linux::open()?, &interface, group));
    Ok(parked.await??)
}

/// The sockets on which the node is spoken to, for root alone.
pub(crate) struct Sockets {
    cni: UnixListener,
    api: UnixListener,
    health: TcpListener,
}

impl Sockets {
    /// Listens, without answering yet: a DEL that comes from here on waits for the answer instead of leaving a tombstone.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let health = TcpListener::bind(config.health_address).await;
        Ok(Self {
            cni: unix_listener(&config.run_dir.join(types::cni::SOCKET))?,
            api: unix_listener(&config.run_dir.join(types::api::SOCKET))?,
            health: health.with_context(|| {
                format!("configuration key healthAddress: cannot listen on {}", config.health_address)
            })?,
        })
    }
}

/// The MTU of pods' interfaces: configured, else that of the interfaces that carry next hops, else that of the interface
/// that has the node's address.
pub(crate) fn mtu(
    config: &Config,
    felix: &Routes,
    kernel: &mut dyn Kernel,
    tracker: &TaskTracker,
) -> watch::Receiver<u32> {
    let interface = kernel.links().ok().and_then(|links| {
        let physical = links.iter().filter(|link| link.up && link.name != "lo" && !kernel::ours::is_our_link(link));
        physical.map(|link| link.mtu).min()
    });
    let (sender, receiver) = watch::channel(config.mtu.or(interface).unwrap_or(ETHERNET_MTU));
    if config.mtu.is_none() {
        let mut found = felix.mtu();
        tracker.spawn(async move {
            while found.changed().await.is_ok() {
                if let Some(mtu) = *found.borrow_and_update() {
                    sender.send_replace(mtu);
                }
            }
        });
    }
    receiver
}

/// Turns what the cluster says into what this node does.
struct ClusterTask {
    cluster: Cluster,
    import_prefixes: Vec<Prefix>,
    pools: mpsc::Sender<Update<ResourceName, ipam::Pool>>,
    bgp: Bgp,
    felix: Routes,
    acl: Acl,
    /// This node's addresses as they are found.
    addresses: watch::Receiver<Vec<IpAddr>>,
    drawn_router_id: RouterId,
    identity: watch::Sender<Identity>,
    unexported: watch::Sender<BTreeSet<Prefix>>,
    service_ranges: watch::Sender<Option<ServiceRanges>>,
    load_balancers: watch::Sender<Vec<Pool>>,
    readiness: Readiness,
    registered: watch::Sender<BTreeMap<NodeName, Option<Gone>>>,
    fatal: mpsc::Sender<anyhow::Error>,
}

impl ClusterTask {
    async fn run(mut self, mut reports: mpsc::Receiver<sources::ClusterUpdate>) {
        let mut batch = Vec::new();
        let mut in_force = None;
        loop {
            let readdressed = tokio::select! {
                received = reports.recv_many(&mut batch, UPDATES) => match received {
                    0 => return,
                    _ => false,
                },
                Ok(()) = self.addresses.changed() => {
                    self.cluster.readdress(self.addresses.borrow_and_update().clone());
                    true
                }
            };
            let changed = batch.drain(..).fold(readdressed, |changed, update| self.cluster.apply(update) | changed);
            if changed {
                tell(&self.registered, self.cluster.registered());
            }
            let Some(desired) = changed.then(|| self.cluster.desired()).flatten() else { continue };
            if in_force.as_ref() == Some(&desired) {
                continue;
            }
            if let Err(error) = self.put_in_force(&desired, in_force.is_none()).await {
                // The first listener failing is the environment's fault, a part that has ended is ours: both end the agent.
                let _ = self.fatal.try_send(error);
                return;
            }
            in_force = Some(desired);
        }
    }

    async fn put_in_force(&mut self, desired: &Desired, first: bool) -> anyhow::Result<()> {
        match self.bgp.listen(desired.port).await {
            Ok(()) => self.readiness.ready(Part::Speaker),
            Err(error) if first => return Err(error.into()),
            Err(error) => {
                warn!(%error, "the former port stays in use");
                self.readiness.unready(Part::Speaker, error.to_string());
            }
        }
        let ended = self.pools.send(Update::Restart).await.is_err();
        for (name, pool, selected) in &desired.pools {
            let size = pool.block_len().map(|size| size.len());
            let Ok(block_size) = size else { continue };
            let pool = ipam::Pool {
                name: name.clone(),
                cidr: pool.cidr,
                block_size,
                disabled: pool.disabled,
                selects_this_node: *selected,
            };
            let _ = self.pools.send(Update::Set(name.clone(), pool)).await;
        }
        let _ = self.pools.send(Update::InSync).await;
        if ended {
            anyhow::bail!("ipam has ended");
        }
        let nat = desired.pools.iter().map(|(_, pool, _)| NatPool { cidr: pool.cidr, outgoing: pool.nat_outgoing });
        self.acl.nat_pools(nat.collect()).await;
        self.acl.nodes(desired.nodes.clone()).await;
        self.unexported.send_replace(desired.unexported.clone());
        tell(&self.service_ranges, Some(desired.services.clone()));
        tell(&self.load_balancers, desired.load_balancers.clone());
        let pools = desired.ranges.iter().copied().collect();
        self.bgp.import(ImportPolicy { pools, prefixes: self.import_prefixes.clone() }).await?;
        let identity = self.identify(desired).await;
        let cluster_id = desired.node.as_ref().and_then(|node| node.cluster_id);
        let mut sessions = desired.sessions.clone();
        if sessions.iter().any(|session| session.export_all) {
            share_subnets(&mut sessions).await;
        }
        self.bgp.configure(identity, sessions, cluster_id).await?;
        self.readiness.ready(Part::Cluster);
        info!(sessions = desired.sessions.len(), pools = desired.pools.len(), "the cluster's state is in force");
        Ok(())
    }

    /// Who this node is: told to all who name its addresses. An address that another node claims as well is an error on both.
    async fn identify(&mut self, desired: &Desired) -> bgp::Identity {
        let addresses = match &desired.node {
            Some(node) => node.addresses(),
            None => self.addresses.borrow().clone(),
        };
        let speaks_as = addresses::identity(&addresses, self.drawn_router_id);
        if self.identity.borrow().addresses != addresses {
            self.felix.node_addresses(addresses.clone()).await;
            self.acl.node_addresses(addresses.clone()).await;
        }
        self.identity.send_replace(Identity { asn: desired.asn, router_id: speaks_as.router_id, addresses });
        if desired.contested.is_empty() {
            self.readiness.ready(Part::Address);
        } else {
            let problem = contested(&desired.contested);
            error!("{problem}");
            self.readiness.unready(Part::Address, problem);
        }
        speaks_as
    }
}

/// What people are told of addresses that others claim.
fn contested(claims: &[(IpAddr, NodeName)]) -> String {
    let claims: Vec<_> =
        claims.iter().map(|(address, node)| format!("{address} is also the address of node {node}")).collect();
    format!("{}: routes lead to one of them, and nobody knows to which; give each its own", claims.join(", "))
}

/// Says of peers on a subnet of this node that they are: a next hop there needs no replacement by ours. Where the kernel
/// does not say which those are, ours replaces all, which is a detour and not a loss.
async fn share_subnets(sessions: &mut [PeerConfig]) {
    let addresses = match tokio::task::spawn_blocking(|| Linux::open()?.addresses()).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return warn!(%error, "peers get this node as next hop of every route"),
        Err(error) => return warn!(%error, "peers get this node as next hop of every route"),
    };
    let subnets = addresses.iter().filter_map(|own| Prefix::new(own.address, own.prefix_len).ok());
    let subnets: Vec<Prefix> = subnets.filter(|subnet| subnet.len() < subnet.family().bits()).collect();
    for session in sessions.iter_mut().filter(|session| session.export_all) {
        session.shared_subnet = subnets.iter().find(|subnet| subnet.contains(session.address)).copied();
    }
}

/// What this node originates follows from these.
struct Originated {
    /// Own blocks.
    blocks: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    /// Pools whose blocks are not announced.
    unexported: watch::Receiver<BTreeSet<Prefix>>,
    /// Addresses of Services; nothing before they are known.
    services: watch::Receiver<Option<BTreeSet<Prefix>>>,
    /// Whether all of it is kept from peers.
    drained: watch::Receiver<bool>,
}

impl Originated {
    /// Own blocks: unreachable routes and originated prefixes. Services: originated prefixes.
    async fn follow(mut self, felix: Routes, bgp: Bgp, readiness: Readiness) {
        loop {
            let own = self.blocks.borrow_and_update().as_ref().clone();
            let hidden = self.unexported.borrow_and_update().clone();
            let services = self.services.borrow_and_update().clone();
            let drained = *self.drained.borrow_and_update();
            // The unreachable route first: no peer sends what this node would send back.
            felix.own_blocks(own.clone()).await;
            // With the first word of what is originated peers may take what they are not told for gone (RFC 4724).
            if let Some(services) = services {
                let blocks = own.iter().filter(|block| !hidden.iter().any(|pool| pool.covers(block))).copied();
                let originated = if drained { BTreeSet::new() } else { blocks.chain(services).collect() };
                if bgp.originate(originated).await.is_err() {
                    return;
                }
            }
            if own.is_empty() {
                readiness.unready(Part::Addresses, "no address block is claimed yet".to_owned());
            } else {
                readiness.ready(Part::Addresses);
            }
            let changed = tokio::select! {
                changed = self.blocks.changed() => changed,
                changed = self.unexported.changed() => changed,
                changed = self.services.changed() => changed,
                changed = self.drained.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

async fn carry_routes(mut batches: mpsc::Receiver<Vec<types::FibUpdate>>, felix: Routes) {
    while let Some(batch) = batches.recv().await {
        felix.fib(batch).await;
    }
}

async fn carry_watches(mut batches: mpsc::Receiver<Vec<types::NextHopWatch>>, felix: Routes) {
    while let Some(batch) = batches.recv().await {
        for watch in batch {
            felix.watch(watch).await;
        }
    }
}

async fn carry_next_hops(felix: Routes, bgp: Bgp) {
    let Some(mut states) = felix.next_hops() else { return };
    let mut batch = Vec::new();
    while states.recv_many(&mut batch, UPDATES).await > 0 {
        if bgp.next_hops(std::mem::take(&mut batch)).await.is_err() {
            return;
        }
    }
}

async fn serve_cni(listener: UnixListener, attachments: Attachments, tracker: TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tracker.spawn(attachments.clone().converse(stream));
            }
            Err(error) => {
                warn!(%error, "cannot accept a CNI conversation");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    what: &'static str,
    fatal: mpsc::Sender<anyhow::Error>,
    server: impl Future<Output = std::io::Result<()>>,
) {
    if let Err(error) = server.await {
        let _ = fatal.try_send(anyhow::Error::new(error).context(what));
    }
}

/// A socket for root alone. One that a former agent left is replaced: the lock on the state folder says it is dead.
fn unix_listener(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = || path.display().to_string();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(shown),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(shown)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(shown)?;
    Ok(listener)
}
