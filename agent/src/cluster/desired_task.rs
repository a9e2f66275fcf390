//! The task that puts in force on this node what the cluster says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp::{Bgp, ImportPolicy, PeerConfig};
use felix::acl::{Acl, NatPool};
use felix::routes::Routes;
use ipam::Ipam;
use kernel::{Kernel as _, Linux};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use types::{Asn, Gone, NodeName, PasswordSource, Passwords, Prefix, ResourceName, RouterId, ServiceRanges, Update};

use super::desired::{ClusterState, Desired, LoadBalancerPool};
use super::origins::Origins;
use super::sources::ClusterUpdate;
use crate::node::addresses;
use crate::node::latest::tell;
use crate::node::readiness::{Part, Readiness};

/// How many updates are taken at most before what follows from them is put in force.
const UPDATES_PER_ROUND: usize = 1_024;

/// How long sessions are left as they are for a password that was not needed before: one of a Secret comes from the API server.
/// A session that is up would end otherwise, and at the start a restart would be over before its peers are told of it (RFC
/// 4724 section 4.1).
const PASSWORD_WAIT: Duration = Duration::from_secs(5);

/// Turns what the cluster says into what this node does.
pub(crate) struct DesiredTask {
    /// The state of the cluster, as the sources say it.
    pub(crate) cluster: ClusterState,
    /// Who may announce which route.
    pub(crate) origins: Origins,
    /// Prefixes beside those of pools that peers may announce to this node.
    pub(crate) import_prefixes: Vec<Prefix>,
    /// The identifier of a speaker without an IPv4 address.
    pub(crate) drawn_router_id: RouterId,
    /// This node's addresses as they are found.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    /// What is known of the passwords of sessions.
    pub(crate) passwords: watch::Receiver<Passwords>,
    /// Who this node's pods are: some of them may be routers.
    pub(crate) ipam: Ipam,
    /// Pools of pods' addresses, for ipam.
    pub(crate) pools: mpsc::Sender<Update<ResourceName, ipam::Pool>>,
    /// The speaker, which gets sessions and import policy.
    pub(crate) bgp: Bgp,
    /// Routes: their source address is this node's.
    pub(crate) routes: Routes,
    /// The filter, which has to know nodes and pools.
    pub(crate) acl: Acl,
    /// The conclusions that other tasks are told.
    pub(crate) conclusions: Conclusions,
    /// What keeps the node from being ready, as far as the cluster is the reason.
    pub(crate) readiness: Readiness,
}

/// What other tasks follow of the state of the cluster that is in force.
pub(crate) struct Conclusions {
    /// The identity of the BGP speaker.
    pub(crate) identity: watch::Sender<Identity>,
    /// Ranges of pools whose blocks are not announced.
    pub(crate) unexported: watch::Sender<BTreeSet<Prefix>>,
    /// Ranges of Services' addresses that are announced; nothing before that is known.
    pub(crate) service_ranges: watch::Sender<Option<ServiceRanges>>,
    /// Where Services of type LoadBalancer get their addresses from.
    pub(crate) load_balancer_pools: watch::Sender<Vec<LoadBalancerPool>>,
    /// Nodes that are registered, with what is noted of those that have gone.
    pub(crate) registered: watch::Sender<BTreeMap<NodeName, Option<Gone>>>,
    /// Where the passwords are that sessions need; nothing before that is known.
    pub(crate) password_sources: watch::Sender<Option<BTreeSet<PasswordSource>>>,
}

/// Who the speaker is, as the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The speaker's AS number.
    pub(crate) asn: Asn,
    /// The speaker's identifier.
    pub(crate) router_id: RouterId,
    /// The addresses that the speaker peers from.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Conclusions {
    /// The identity as it is before anything is known of the cluster.
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity: watch::Sender::new(identity),
            unexported: watch::Sender::default(),
            service_ranges: watch::Sender::default(),
            load_balancer_pools: watch::Sender::default(),
            registered: watch::Sender::default(),
            password_sources: watch::Sender::default(),
        }
    }
}

impl DesiredTask {
    /// Puts what sources report in force for as long as the agent runs; ends with an error that ends the agent.
    pub(crate) async fn run(mut self, mut reports: mpsc::Receiver<ClusterUpdate>) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        let mut in_force: Option<Desired> = None;
        let mut pods = self.ipam.changes();
        let mut waits = false;
        loop {
            let mut changed = tokio::select! {
                received = reports.recv_many(&mut batch, UPDATES_PER_ROUND) => match received {
                    0 => return Ok(()),
                    _ => false,
                },
                Ok(()) = self.addresses.changed() => {
                    self.cluster.readdress(self.addresses.borrow_and_update().clone());
                    true
                }
                Ok(()) = pods.changed(), if self.cluster.peers_with_pods() => true,
                Ok(()) = self.passwords.changed() => {
                    if let Some(desired) = &in_force {
                        self.configure_sessions(desired).await?;
                    }
                    continue;
                }
            };
            for update in batch.drain(..) {
                match update {
                    ClusterUpdate::Block(update) => self.origins.claim(update),
                    ClusterUpdate::OwnBlocks(blocks) => self.origins.own_blocks(&blocks),
                    ClusterUpdate::Freshness(freshness) => self.origins.known_as_of(freshness),
                    update => changed |= self.cluster.apply(update),
                }
            }
            if changed {
                tell(&self.conclusions.registered, self.cluster.registered());
            }
            // Without claims no route can be judged: sessions wait for them, and the kernel keeps the routes that it has.
            waits |= changed;
            if !self.origins.is_known() {
                continue;
            }
            if waits && self.cluster.peers_with_pods() {
                pods.mark_unchanged();
                self.cluster.set_pods(self.ipam.endpoints().await);
            }
            let desired = std::mem::take(&mut waits).then(|| self.cluster.desired()).flatten();
            let Some(desired) = desired.filter(|desired| in_force.as_ref() != Some(desired)) else {
                self.tell_origins().await?;
                continue;
            };
            // The first listener failing is the environment's fault, a part that has ended is ours: both end the agent.
            self.put_in_force(&desired, in_force.as_ref()).await?;
            in_force = Some(desired);
        }
    }

    /// Tells the speaker what has changed of who may announce what.
    async fn tell_origins(&mut self) -> anyhow::Result<()> {
        let changes = self.origins.take_changes();
        if !changes.is_empty() {
            self.bgp.origins(changes).await?;
        }
        Ok(())
    }

    async fn put_in_force(&mut self, desired: &Desired, former: Option<&Desired>) -> anyhow::Result<()> {
        // Before somebody is listened to: a peer that is not configured yet would be turned away.
        self.await_passwords(desired, former).await;
        match self.bgp.listen(desired.port).await {
            Ok(()) => self.readiness.ready(Part::Speaker),
            Err(error) if former.is_none() => return Err(error.into()),
            Err(error) => {
                warn!(%error, "the speaker cannot listen on the configured port; it goes on listening on the former one");
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
        let of_pods = desired.pools.iter();
        let of_pods = of_pods.map(|(_, pool, _)| NatPool { cidr: pool.cidr, outgoing: pool.nat_outgoing });
        let of_services = desired.load_balancers.iter().map(|pool| NatPool { cidr: pool.cidr, outgoing: false });
        self.acl.nat_pools(of_pods.chain(of_services).collect()).await;
        self.acl.nodes(desired.nodes.clone()).await;
        self.acl.infrastructure(desired.infrastructure.clone()).await;
        self.conclusions.unexported.send_replace(desired.unexported.clone());
        tell(&self.conclusions.service_ranges, Some(desired.services.clone()));
        tell(&self.conclusions.load_balancer_pools, desired.load_balancers.clone());
        let pools = desired.ranges.iter().copied().collect();
        self.bgp.import(ImportPolicy { pools, prefixes: self.import_prefixes.clone() }).await?;
        self.origins.declared(&desired.pools, &desired.origins);
        self.tell_origins().await?;
        self.configure_sessions(desired).await?;
        self.readiness.ready(Part::Cluster);
        info!(
            sessions = desired.sessions.len(),
            pools = desired.pools.len(),
            "the sessions and pools that the cluster's state demands are in force"
        );
        Ok(())
    }

    /// Waits for the passwords that are needed newly. Sessions whose password does not come wait for it alone.
    async fn await_passwords(&mut self, desired: &Desired, former: Option<&Desired>) {
        let mut sources = desired.password_sources();
        tell(&self.conclusions.password_sources, Some(sources.clone()));
        let former = former.map(Desired::password_sources).unwrap_or_default();
        sources.retain(|source| !former.contains(source));
        let known = self.passwords.wait_for(|known| sources.iter().all(|source| known.contains_key(source)));
        let _ = tokio::time::timeout(PASSWORD_WAIT, known).await;
    }

    /// Has the speaker hold the sessions that there should be, with the passwords that are known now.
    async fn configure_sessions(&mut self, desired: &Desired) -> anyhow::Result<()> {
        let identity = self.identify(desired).await;
        let cluster_id = desired.node.as_ref().and_then(|node| node.cluster_id);
        let mut sessions = desired.sessions.clone();
        if sessions.iter().any(|session| session.export_all) {
            share_subnets(&mut sessions).await;
        }
        let passwords = self.passwords.borrow_and_update().clone();
        Ok(self.bgp.configure(identity, sessions, cluster_id, passwords).await?)
    }

    /// Who this node is: told to all who name its addresses. An address that another node claims as well is an error on both.
    async fn identify(&mut self, desired: &Desired) -> bgp::Identity {
        let addresses = match &desired.node {
            Some(node) => node.addresses(),
            None => self.addresses.borrow().clone(),
        };
        let speaks_as = addresses::identity(&addresses, self.drawn_router_id);
        if self.conclusions.identity.borrow().addresses != addresses {
            self.routes.node_addresses(addresses.clone()).await;
            self.acl.node_addresses(addresses.clone()).await;
        }
        self.conclusions.identity.send_replace(Identity {
            asn: desired.asn,
            router_id: speaks_as.router_id,
            addresses,
        });
        if desired.contested.is_empty() {
            self.readiness.ready(Part::OwnAddress);
        } else {
            let problem = contested(&desired.contested);
            error!("{problem}");
            self.readiness.unready(Part::OwnAddress, problem);
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
    let asked = tokio::task::spawn_blocking(|| Linux::open()?.addresses()).await;
    let addresses = match asked.map_err(anyhow::Error::from).and_then(|asked| Ok(asked?)) {
        Ok(addresses) => addresses,
        Err(error) => {
            return warn!(%error, "this node's subnets are not known; peers get it as next hop of every route");
        }
    };
    let subnets = addresses.iter().filter_map(|own| Prefix::new(own.address, own.prefix_len).ok());
    let subnets: Vec<Prefix> = subnets.filter(|subnet| subnet.len() < subnet.family().bits()).collect();
    for session in sessions.iter_mut().filter(|session| session.export_all) {
        session.shared_subnet = subnets.iter().find(|subnet| subnet.contains(session.address)).copied();
    }
}
