//! The handle through which the agent speaks to the filter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::KernelError;
use mailbox::{Ended, Mailbox};
use tokio::sync::{oneshot, watch};
use types::policy::{EffectivePolicy, Explanation, Flow};
use types::{EndpointId, NodeName, Prefix};

use super::config::NatPool;
use super::view::AclView;
use crate::policy::Infrastructure;
use crate::policy::{CompileError, EndpointFacts, PolicyUpdate};

/// The filter, as its callers see it. Clones speak to the same owner.
#[derive(Debug, Clone)]
pub struct Acl {
    /// To the owner, which waits on events of rules: each command wakes it.
    pub(crate) owner: Mailbox<Command>,
    /// Why the node should not be given pods.
    pub(crate) readiness: watch::Receiver<Vec<String>>,
}

/// Why an endpoint's policies are not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// The compiler has no class for it.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The node's configuration has no chains for this family.
    #[error("{0} is of a family that policies are not enforced for on this node")]
    Family(IpAddr),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The owner has ended, as the agent is ending.
    #[error("the filter has ended")]
    Ended,
}

impl From<Ended> for AclError {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

type Reply = oneshot::Sender<Result<(), AclError>>;

#[derive(Debug)]
pub(crate) enum Command {
    Update(Vec<PolicyUpdate>),
    Attach { id: EndpointId, facts: EndpointFacts, reply: Reply },
    Relabel { id: EndpointId, facts: EndpointFacts, reply: Reply },
    Detach { id: EndpointId, reply: Reply },
    Forget(BTreeSet<IpAddr>),
    LocalInSync,
    NatPools(Vec<NatPool>),
    ServiceRanges(BTreeSet<Prefix>),
    NodeAddresses(Vec<IpAddr>),
    Infrastructure(Infrastructure),
    Log(bool),
    Nodes(BTreeMap<NodeName, Vec<IpAddr>>),
    Explain(Flow, oneshot::Sender<Explanation>),
    ExplainEntries(Flow, oneshot::Sender<Explanation>),
    Show(EndpointId, oneshot::Sender<Option<EffectivePolicy>>),
    View(oneshot::Sender<AclView>),
}

impl Acl {
    /// What the sources of policies, namespaces and endpoints report, in order.
    pub async fn update(&self, updates: Vec<PolicyUpdate>) {
        self.tell(Command::Update(updates)).await;
    }

    /// Puts a local endpoint under its policies. Returns when they are in force for all its addresses: its class is in the
    /// kernel, the addresses are mapped to it, and the endpoint is in the sets of others' policies. As long as that is not
    /// so its addresses have no network; an error says why, and the filter goes on trying until the endpoint is detached.
    ///
    /// Nor does it answer before tracked connections of a former holder of the addresses are deleted.
    ///
    /// An endpoint that is told before [`Acl::local_in_sync`] is one of an earlier life: the kernel keeps what it has of
    /// it, and the answer comes at once.
    pub async fn attach(&self, id: EndpointId, facts: EndpointFacts) -> Result<(), AclError> {
        self.owner.ask(|reply| Command::Attach { id, facts, reply }).await?
    }

    /// The endpoint's labels, ports or addresses are these now. Returns as [`Acl::attach`] does; until then its earlier
    /// policies hold. One that is not attached (any more) stays so, and is success.
    pub async fn relabel(&self, id: EndpointId, facts: EndpointFacts) -> Result<(), AclError> {
        self.owner.ask(|reply| Command::Relabel { id, facts, reply }).await?
    }

    /// Takes the endpoint out of its class and out of all sets; returns when that is done. One that is unknown is success.
    /// The tracked connections of its addresses are deleted as [`Acl::forget`] says.
    pub async fn detach(&self, id: EndpointId) -> Result<(), AclError> {
        self.owner.ask(|reply| Command::Detach { id, reply }).await?
    }

    /// Deletes the tracked connections of addresses that are nobody's now. Returns at once: it takes a walk through the
    /// whole table, so some are collected first; the attachment of an endpoint with such an address waits until that is
    /// done.
    pub async fn forget(&self, addresses: BTreeSet<IpAddr>) {
        self.tell(Command::Forget(addresses)).await;
    }

    /// Every endpoint of this node has been attached: what else the kernel has of ours may go, once all other sources are
    /// in sync as well.
    pub async fn local_in_sync(&self) {
        self.tell(Command::LocalInSync).await;
    }

    /// The pools, all of them. What goes from a pool with `outgoing` to an address of no pool gets the node's address.
    pub async fn nat_pools(&self, pools: Vec<NatPool>) {
        self.tell(Command::NatPools(pools)).await;
    }

    /// The ranges of Services' addresses that this node announces, all of them. What it is to forward there still, as no
    /// Service has taken it, is dropped: whoever sent it here would only send it back.
    pub async fn service_ranges(&self, ranges: BTreeSet<Prefix>) {
        self.tell(Command::ServiceRanges(ranges)).await;
    }

    /// Who routes for the pods: what is closed to pods, whatever policies say. Until this is told, what an earlier life of the
    /// agent closed is closed, and port 179 of this node.
    pub async fn infrastructure(&self, infrastructure: Infrastructure) {
        self.tell(Command::Infrastructure(infrastructure)).await;
    }

    /// The addresses from which this node speaks to its pods: what [`Acl::explain`] says of them.
    pub async fn node_addresses(&self, addresses: Vec<IpAddr>) {
        self.tell(Command::NodeAddresses(addresses)).await;
    }

    /// The nodes of the cluster, all of them, with at most one address per family: what [`Acl::explain_entries`] speaks of.
    pub async fn nodes(&self, nodes: BTreeMap<NodeName, Vec<IpAddr>>) {
        self.tell(Command::Nodes(nodes)).await;
    }

    /// Whether packets that policies drop are logged by NFLOG from now on (to the group of the configuration; the prefix is
    /// `manx-`, `i` or `e` for the direction, and the number of the class).
    pub async fn log(&self, denied: bool) {
        self.tell(Command::Log(denied)).await;
    }

    /// The verdict on a flow and what gave it; nothing when the filter has ended.
    pub async fn explain(&self, flow: Flow) -> Option<Explanation> {
        self.owner.ask(|reply| Command::Explain(flow, reply)).await.ok()
    }

    /// The same, and where it may matter at which node the connection comes in, what follows there.
    pub async fn explain_entries(&self, flow: Flow) -> Option<Explanation> {
        self.owner.ask(|reply| Command::ExplainEntries(flow, reply)).await.ok()
    }

    /// What governs a local endpoint; nothing for an unknown one.
    pub async fn show(&self, id: EndpointId) -> Option<EffectivePolicy> {
        self.owner.ask(|reply| Command::Show(id, reply)).await.ok().flatten()
    }

    /// What there is once everything told so far has been taken up; nothing when the filter has ended.
    pub async fn view(&self) -> Option<AclView> {
        self.owner.ask(Command::View).await.ok()
    }

    /// Reasons for which this node should not be given pods, in words; none: it is ready.
    pub fn readiness(&self) -> watch::Receiver<Vec<String>> {
        self.readiness.clone()
    }

    async fn tell(&self, command: Command) {
        // The owner ends only with the agent; the kernel keeps what it has.
        let _ = self.owner.tell(command).await;
    }
}
