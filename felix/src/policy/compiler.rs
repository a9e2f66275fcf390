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

/// Limits of what is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerConfig {
    /// The highest number of a class, one of which is [`ClassId::OPEN`]: as many as the mark has room for.
    pub classes: u16,
    /// Members times ports of a peer above which a class names it by a rule over a shared set instead of by elements of its
    /// own set.
    pub narrow_limit: usize,
}

impl Default for CompilerConfig {
    fn default() -> Self {
        Self { classes: 255, narrow_limit: 256 }
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

/// An endpoint of another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKey {
    /// The node that publishes it.
    pub node: NodeName,
    /// The attachment.
    pub id: EndpointId,
}

/// What the sources say.
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
        /// The endpoint.
        id: EndpointId,
        /// How many numbers there are.
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
    /// Endpoints and namespaces.
    pub(super) world: World,
    /// Selectors of peers that policies in use speak of.
    pub(super) peers: Selectors,
    /// Selectors of whom policies govern.
    pub(super) subjects: Selectors,
    pub(super) policies: Policies,
    /// Blocks that policies in use speak of.
    pub(super) blocks: Blocks,
    pub(super) sets: Sets,
    pub(super) classes: Classes,
    /// The numbers of other nodes' endpoints.
    pub(super) remotes: Remotes,
    /// The numbers of this node's endpoints.
    pub(super) locals: BTreeMap<EndpointId, u32>,
    /// The numbers of pods that are to come.
    pub(super) expected: BTreeMap<NamespacedName, u32>,
    /// What is known only of those who are governed here.
    pub(super) governed: HashMap<u32, Governed>,
    /// The addresses from which this node speaks to its pods.
    pub(super) node_addresses: BTreeSet<IpAddr>,
    /// The nodes of the cluster, with at most one address per family.
    pub(super) nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    /// What is closed to pods whatever policies say: what [`Self::explain`] says of it.
    pub(super) infrastructure: Infrastructure,
    pub(super) sources: Sources,
    /// What is still to be done for the updates since the last flush.
    pub(super) pending: Pending,
    /// Which class each address was joined to in the changes so far.
    pub(super) memberships: BTreeMap<IpAddr, ClassId>,
    /// What has not been taken yet.
    pub(super) changes: Vec<Change>,
    /// The class of those whom no policy governs, once it has been put.
    pub(super) open: Option<Class>,
}

/// An endpoint that is governed here.
#[derive(Debug, Default)]
pub(super) struct Governed {
    /// The selectors of subjects that select it.
    pub(super) subjects: BTreeSet<u32>,
    /// The class that it is in, once there is one for it.
    pub(super) class: Option<ClassId>,
    /// The attachment; none of an expected pod.
    pub(super) id: Option<EndpointId>,
}

/// Where each source stands.
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
    /// What kind of updates they are.
    pub(super) run: Option<Run>,
    /// Endpoints that may have to change their class.
    pub(super) unsettled: BTreeSet<u32>,
    /// Endpoints for which there was no class number.
    pub(super) unplaced: BTreeSet<u32>,
    /// Classes whose policies have other rules.
    pub(super) classes: BTreeSet<ClassId>,
    /// Directions whose narrow set may have changed.
    pub(super) narrow: BTreeSet<(ClassId, Direction)>,
    /// Directions whose rules may have changed, though their policies have not.
    pub(super) rules: BTreeSet<(ClassId, Direction)>,
    /// Addresses that may have to change their class.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Figures about the compiler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompilerStats {
    /// Policies known.
    pub policies: usize,
    /// Policies that govern an endpoint of this node.
    pub active_policies: usize,
    /// Endpoints of other nodes.
    pub remote_endpoints: usize,
    /// Endpoints of this node.
    pub local_endpoints: usize,
    /// Pods of this node that the API server knows.
    pub expected_pods: usize,
    /// Endpoints of this node for which there is no class number: all their packets are dropped.
    pub unplaced_endpoints: usize,
    /// Different selectors of peers in use.
    pub selectors: usize,
    /// Different blocks in use.
    pub blocks: usize,
    /// Classes, the open one not counted.
    pub classes: usize,
    /// Rules of all classes.
    pub rules: usize,
    /// Sets.
    pub sets: usize,
    /// Members of all sets.
    pub elements: usize,
}

impl Compiler {
    /// Nothing is known yet.
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

    /// The addresses from which this node speaks to its pods, which no policy can prevent.
    pub fn set_node_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.node_addresses = addresses.into_iter().collect();
    }

    /// The nodes of the cluster, all of them: what [`Self::explain_entries`] speaks of.
    pub fn set_nodes(&mut self, nodes: BTreeMap<NodeName, Vec<IpAddr>>) {
        self.nodes = nodes;
    }

    /// What is closed to pods whatever policies say: what [`Self::explain`] says of it.
    pub fn set_infrastructure(&mut self, infrastructure: Infrastructure) {
        self.infrastructure = infrastructure;
    }

    /// Every source has said at least once that it has said all.
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
