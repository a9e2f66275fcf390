//! The compiler's interface and its state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use types::policy::{Direction, Labels, Policy, PolicyId};
use types::update::Listing;
use types::{EndpointId, EndpointPort, NamespacedName, NodeName, Update};

use super::blocks::Blocks;
use super::classes::Classes;
use super::infrastructure::Infrastructure;
use super::policies::Policies;
use super::program::{Change, Class, ClassId, ClassKey};
use super::selectors::{Population, Selectors};
use super::sets::{Sets, View};
use super::update::{Remotes, Run};
use super::world::World;

/// The limits that the compiler works within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerConfig {
    /// The highest number of a class, one of which is [`ClassId::OPEN`]: as many as the mark has room for.
    pub classes: u16,
    /// Members times ports of a peer above which a class names it by a rule over a shared set instead of by elements of its
    /// own set.
    pub narrow_limit: usize,
    /// So many classes stay when their last endpoint has left, those that were left last: the next endpoint of such a class finds it
    /// in force. They give way to endpoints that would have no number otherwise.
    pub idle_classes: usize,
}

impl Default for CompilerConfig {
    fn default() -> Self {
        Self { classes: 255, narrow_limit: 256, idle_classes: 0 }
    }
}

/// What policies can know of an endpoint. Pods on the node's own network are not given to the compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFacts {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's labels.
    pub labels: Labels,
    /// The pod's named ports; a name may stand for several numbers.
    pub ports: Vec<EndpointPort>,
    /// The addresses; of expected pods they do not matter.
    pub addresses: Vec<IpAddr>,
    /// The pod has ended: it is nobody's peer.
    pub finished: bool,
}

/// Names an endpoint of another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKey {
    /// The node that publishes it.
    pub node: NodeName,
    /// The attachment on that node.
    pub id: EndpointId,
}

/// What one of the compiler's sources reports.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyUpdate {
    /// Policies of every kind.
    Policy(Update<PolicyId, Arc<Policy>>),
    /// Namespaces with their labels.
    Namespace(Update<String, Labels>),
    /// Endpoints of other nodes, as their nodes publish them.
    Remote(Update<RemoteKey, EndpointFacts>),
    /// Pods of this node that the API server knows: their classes are there before they are attached.
    Expected(Update<NamespacedName, EndpointFacts>),
}

/// Why an endpoint cannot be filtered as its policies demand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More classes are needed at once than the mark has numbers for. The endpoint is known and belongs to no class, so
    /// that all its packets are dropped, until a number is free.
    #[error("endpoint {id} has no class: all {classes} are taken")]
    NoClass {
        /// The endpoint that has no class.
        id: EndpointId,
        /// How many class numbers there are.
        classes: u16,
    },
}

/// Turns policies into sets and classes for the endpoints of this node. See the module.
///
/// First `adopt`; then `apply`, `set_local` and `remove_local` in any order. What [`Self::take_changes`] returns brings the
/// kernel from one state to the next; [`Self::desired`] is all of the state that those changes lead to.
#[derive(Debug)]
pub struct Compiler {
    pub(super) config: CompilerConfig,
    /// Every endpoint and namespace that is known.
    pub(super) world: World,
    /// The selectors by which policies in use select peers.
    pub(super) peers: Selectors,
    /// The selectors by which policies select the endpoints that they govern.
    pub(super) subjects: Selectors,
    pub(super) policies: Policies,
    /// The blocks of addresses that policies in use name.
    pub(super) blocks: Blocks,
    pub(super) sets: Sets,
    pub(super) classes: Classes,
    /// The number under which the world keeps each endpoint of another node.
    pub(super) remotes: Remotes,
    /// The number under which the world keeps each endpoint of this node.
    pub(super) locals: BTreeMap<EndpointId, u32>,
    /// The number under which the world keeps each pod that is expected on this node.
    pub(super) expected: BTreeMap<NamespacedName, u32>,
    /// By endpoint number: what is known only of endpoints that are governed on this node.
    pub(super) governed: HashMap<u32, Governed>,
    /// The addresses from which this node speaks to its pods.
    pub(super) node_addresses: BTreeSet<IpAddr>,
    /// The nodes of the cluster, with at most one address per family.
    pub(super) nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    /// What is closed to pods whatever policies say: what [`Self::explain`] says of it.
    pub(super) infrastructure: Infrastructure,
    pub(super) sources: Sources,
    /// The work that updates since the last flush have left to do.
    pub(super) pending: Pending,
    /// The class that each address has been joined to by the changes given out so far.
    pub(super) memberships: BTreeMap<IpAddr, ClassId>,
    /// The changes that the caller has not taken yet.
    pub(super) changes: Vec<Change>,
    /// The class of the endpoints that no policy governs, once a change has written it.
    pub(super) open: Option<Class>,
}

/// What is known of an endpoint that is governed on this node.
#[derive(Debug, Default)]
pub(super) struct Governed {
    /// The subject selectors that select the endpoint.
    pub(super) subjects: BTreeSet<u32>,
    /// The class that the endpoint is in; none while all class numbers are taken.
    pub(super) class: Option<ClassId>,
    /// The endpoint's attachment; none while the pod is only expected.
    pub(super) id: Option<EndpointId>,
}

/// How far the listing of each source has come.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) policies: Listing<PolicyId>,
    pub(super) namespaces: Listing<String>,
    pub(super) remotes: Listing<u32>,
    pub(super) expected: Listing<NamespacedName>,
}

/// See [`Compiler::pending`].
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The kind of the updates that are collected; none when nothing is pending.
    pub(super) run: Option<Run>,
    /// The endpoints that may have to change their class.
    pub(super) unsettled: BTreeSet<u32>,
    /// The endpoints that got no class because every class number was taken.
    pub(super) unplaced: BTreeSet<u32>,
    /// The classes in which a policy has got other rules.
    pub(super) classes: BTreeSet<ClassId>,
    /// The directions of classes whose narrow set may have other members now.
    pub(super) narrow: BTreeSet<(ClassId, Direction)>,
    /// The directions of classes whose rules may read otherwise now, although their policies are the same.
    pub(super) rules: BTreeSet<(ClassId, Direction)>,
    /// The addresses that may have to change their class.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Figures about the compiler, for the status and the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompilerStats {
    /// How many policies are known.
    pub policies: usize,
    /// How many policies govern at least one class of this node, be it one that endpoints have left or are expected in.
    pub active_policies: usize,
    /// How many endpoints of other nodes are known.
    pub remote_endpoints: usize,
    /// How many endpoints this node has.
    pub local_endpoints: usize,
    /// How many pods of this node the API server knows.
    pub expected_pods: usize,
    /// How many endpoints of this node have no class because no number was free: all their packets are dropped.
    pub unplaced_endpoints: usize,
    /// How many different selectors of peers are in use.
    pub selectors: usize,
    /// How many different blocks are in use.
    pub blocks: usize,
    /// How many classes there are, not counting the open one.
    pub classes: usize,
    /// How many rules all classes have together.
    pub rules: usize,
    /// How many sets there are.
    pub sets: usize,
    /// How many members all sets have together.
    pub elements: usize,
}

impl Compiler {
    /// A compiler that knows nothing yet.
    pub fn new(config: CompilerConfig) -> Self {
        Self {
            config,
            world: World::default(),
            peers: Selectors::new(Population::Peers),
            subjects: Selectors::new(Population::Governed),
            policies: Policies::default(),
            blocks: Blocks::default(),
            sets: Sets::default(),
            classes: Classes::new(config.classes),
            remotes: Remotes::default(),
            locals: BTreeMap::new(),
            expected: BTreeMap::new(),
            governed: HashMap::new(),
            node_addresses: BTreeSet::new(),
            nodes: BTreeMap::new(),
            infrastructure: Infrastructure::default(),
            sources: Sources::default(),
            pending: Pending::default(),
            memberships: BTreeMap::new(),
            changes: Vec::new(),
            open: None,
        }
    }

    /// Names classes that were found in the kernel: equal classes get their numbers again, others avoid them as long as
    /// there are numbers that nobody has had.
    pub fn adopt(&mut self, classes: impl IntoIterator<Item = (ClassId, ClassKey)>) {
        classes.into_iter().for_each(|(id, key)| self.classes.adopt(id, key));
    }

    /// Replaces the addresses from which this node speaks to its pods; no policy can stop packets from them.
    pub fn set_node_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.node_addresses = addresses.into_iter().collect();
    }

    /// Replaces the nodes of the cluster, which [`Self::explain_entries`] speaks of.
    pub fn set_nodes(&mut self, nodes: BTreeMap<NodeName, Vec<IpAddr>>) {
        self.nodes = nodes;
    }

    /// What is closed to pods whatever policies say: what [`Self::explain`] says of it.
    pub fn set_infrastructure(&mut self, infrastructure: Infrastructure) {
        self.infrastructure = infrastructure;
    }

    /// Whether every source has completed its first listing.
    pub const fn in_sync(&self) -> bool {
        let Sources { policies, namespaces, remotes, expected } = &self.sources;
        policies.is_known() && namespaces.is_known() && remotes.is_known() && expected.is_known()
    }

    /// What has to be done since the last call, in an order that is safe. See [`Change`].
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.flush();
        std::mem::take(&mut self.changes)
    }

    /// Figures, as of the last [`Self::take_changes`]. Costs as much as there are classes and sets.
    pub fn stats(&self) -> CompilerStats {
        let desired = self.desired();
        let (mut sets, mut elements) = (0, 0);
        for (_, members) in desired.sets() {
            sets += 1;
            elements += members;
        }
        CompilerStats {
            policies: self.policies.len(),
            active_policies: self.policies.active(),
            remote_endpoints: self.remotes.len(),
            local_endpoints: self.locals.len(),
            expected_pods: self.expected.len(),
            unplaced_endpoints: self.pending.unplaced.len(),
            selectors: self.peers.len(),
            blocks: self.blocks.len(),
            classes: self.classes.len(),
            rules: desired
                .classes()
                .map(|(_, class)| class.ingress.as_slice().len() + class.egress.as_slice().len())
                .sum(),
            sets,
            elements,
        }
    }

    pub(super) const fn view(&self) -> View<'_> {
        View { world: &self.world, peers: &self.peers, blocks: &self.blocks }
    }
}
