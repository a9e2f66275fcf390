//! Who may announce what: learned routes inside the ranges that the cluster cuts its blocks from, judged by who owns the
//! block. Pure; the claims are data that whoever runs the speaker hands in, change by change.
//!
//! | the peer is | the prefix is | and the route says |
//! |---|---|---|
//! | a node | a block or lent address of that node | next hop: an address of that node; AS_PATH: empty, or (external) that node's AS alone |
//! | a reflector | a block or lent address of a node | next hop: an address of that node; ORIGINATOR_ID: not another node's |
//! | a router, or a node that passes others' routes on | a block or lent address of a node | next hop: no address of another node, unless that is the peer; the last AS: not one that only other nodes have |
//!
//! An aggregate that is listed for the peer is good from that peer. Blocks of this node, and parts of them, are good from nobody.
//! What a claim cannot tell yet is in doubt: it is used while there is nothing better.

mod refusal;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

pub use refusal::Refusal;
pub use types::resource::OriginValidation;
use types::{Asn, NodeName, Prefix};

use crate::rib::RouteAttributes;

/// What a peer is to the cluster: whose routes may come from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// A node that speaks for itself alone.
    Node,
    /// A node, of another AS, that passes other nodes' routes on and puts itself in as next hop.
    Relay,
    /// A peer of our AS that reflects others' routes and leaves their next hops alone (RFC 4456 section 10).
    Reflector,
    /// A router: it passes others' routes on, with whatever next hop.
    #[default]
    Fabric,
    /// A pod of this node that is a router: it leads packets to itself, and speaks for nothing inside of pools.
    Pod,
}

/// What holds for the routes of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerImport {
    /// What the peer is to the cluster.
    pub role: PeerRole,
    /// What follows from a route whose origin does not check.
    pub validation: OriginValidation,
    /// Aggregates of whole blocks that the peer may announce, each exactly as it stands here.
    pub aggregates: Vec<Prefix>,
}

impl PeerImport {
    /// A peer in this role, whose routes are validated, without aggregates.
    pub const fn new(role: PeerRole) -> Self {
        Self { role, validation: OriginValidation::Enforce, aggregates: Vec::new() }
    }
}

/// A range that blocks are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The range.
    pub cidr: Prefix,
    /// The prefix length of its blocks.
    pub block_len: u8,
}

/// A node, as its routes are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginNode {
    /// The name.
    pub name: NodeName,
    /// The addresses that it peers from.
    pub addresses: Vec<IpAddr>,
    /// Its AS number.
    pub asn: Asn,
}

/// Who has a block or a lent address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This node.
    Own,
    /// Another node.
    Node(NodeName),
    /// Nobody any more; this node was the last. Its route is in doubt and not wrong: a store that has forgotten a claim is no
    /// reason to forget a route, as long as nobody else claims the block.
    Former(NodeName),
    /// It cannot be told: the claim was written by a newer version.
    Unreadable,
}

/// How well claims are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// As the store has them, but for what is on its way.
    #[default]
    Live,
    /// As the store had them: blocks may have been claimed since.
    Stale,
    /// As the store had them so long ago that blocks may have changed hands since.
    Expired,
}

/// A change of what is known of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginChange {
    /// The ranges in which routes are judged, all of them.
    Ranges(Vec<Range>),
    /// The nodes of the cluster, this one among them, all of them.
    Nodes(Vec<OriginNode>),
    /// A block or a lent address has this holder from now on, or none.
    Holder(Prefix, Option<Holder>),
    /// How well holders are known from now on.
    Freshness(Freshness),
}

/// What is thought of a route's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    /// Outside of the ranges: other rules decide.
    NotCovered,
    /// It comes from who may announce it.
    Valid,
    /// It cannot be told.
    Unknown,
    /// It does not.
    Invalid(Refusal),
}

/// A node's place in [`Origins::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NodeId(u32);

/// A holder, by the node's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HolderId {
    Own,
    Node(NodeId),
    Former(NodeId),
    Unreadable,
}

/// What is known of origins.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    /// The ranges in which routes are judged; few.
    ranges: Vec<Range>,
    /// Who has which block or lent address.
    holders: HashMap<Prefix, HolderId>,
    /// How many holders there are of each prefix length, IPv4 and IPv6 apart by [`length_index`]; for saying what a prefix is
    /// part of.
    lengths: HashMap<u16, usize>,
    /// Every node that was ever named. One that is gone has no address.
    nodes: Vec<Node>,
    /// The place of each name.
    by_name: HashMap<NodeName, NodeId>,
    /// Every address that is some node's.
    addresses: HashSet<IpAddr>,
    /// Every AS number that is some node's.
    asns: HashSet<Asn>,
    /// How well holders are known.
    freshness: Freshness,
}

#[derive(Debug)]
struct Node {
    name: NodeName,
    addresses: Vec<IpAddr>,
    asn: Option<Asn>,
}

/// One UPDATE, as far as the origin of its routes depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Voice<'a> {
    /// What holds for the peer.
    pub(crate) import: &'a PeerImport,
    /// Where the peer is.
    pub(crate) peer: IpAddr,
    /// Its attributes and next hop.
    pub(crate) attributes: &'a RouteAttributes,
}

/// What has to be judged again after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stirred {
    /// Nothing.
    Nothing,
    /// The routes to this prefix, and those within it.
    Within(Prefix),
    /// Every route.
    All,
}

impl Origins {
    /// Takes a change in.
    pub(crate) fn apply(&mut self, change: OriginChange) -> Stirred {
        match change {
            OriginChange::Ranges(ranges) if ranges == self.ranges => Stirred::Nothing,
            OriginChange::Ranges(ranges) => {
                self.ranges = ranges;
                Stirred::All
            }
            OriginChange::Freshness(freshness) if freshness == self.freshness => Stirred::Nothing,
            OriginChange::Freshness(freshness) => {
                self.freshness = freshness;
                Stirred::All
            }
            OriginChange::Nodes(nodes) => self.set_nodes(nodes),
            OriginChange::Holder(prefix, holder) => self.set_holder(prefix, holder),
        }
    }

    fn set_nodes(&mut self, nodes: Vec<OriginNode>) -> Stirred {
        let mut named = HashSet::new();
        let mut changed = false;
        for OriginNode { name, addresses, asn } in nodes {
            let id = self.id(name);
            named.insert(id.0 as usize);
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                changed |= node.addresses != addresses || node.asn != Some(asn);
                (node.addresses, node.asn) = (addresses, Some(asn));
            }
        }
        for (place, node) in self.nodes.iter_mut().enumerate() {
            if node.asn.is_some() && !named.contains(&place) {
                changed = true;
                (node.addresses, node.asn) = (Vec::new(), None);
            }
        }
        if !changed {
            return Stirred::Nothing;
        }
        self.addresses = self.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        self.asns = self.nodes.iter().filter_map(|node| node.asn).collect();
        Stirred::All
    }

    fn set_holder(&mut self, prefix: Prefix, holder: Option<Holder>) -> Stirred {
        let holder = holder.map(|holder| match holder {
            Holder::Own => HolderId::Own,
            Holder::Node(name) => HolderId::Node(self.id(name)),
            Holder::Former(name) => HolderId::Former(self.id(name)),
            Holder::Unreadable => HolderId::Unreadable,
        });
        let before = match holder {
            Some(holder) => self.holders.insert(prefix, holder),
            None => self.holders.remove(&prefix),
        };
        if before == holder {
            return Stirred::Nothing;
        }
        let count = self.lengths.entry(length_index(&prefix)).or_default();
        match (before, holder) {
            (None, Some(_)) => *count += 1,
            (Some(_), None) => *count = count.saturating_sub(1),
            _ => {}
        }
        Stirred::Within(prefix)
    }

    fn id(&mut self, name: NodeName) -> NodeId {
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node { name: name.clone(), addresses: Vec::new(), asn: None });
        self.by_name.insert(name, id);
        id
    }

    /// Whether a claim that is heard later can make a route to the prefix good: it has the size of a block.
    pub(crate) fn may_become_valid(&self, prefix: &Prefix) -> bool {
        self.holders.contains_key(prefix) || self.range(prefix).is_some_and(|range| range.block_len == prefix.len())
    }

    /// Whether the prefix is a part of a block of this node.
    pub(crate) fn is_part_of_own_block(&self, prefix: &Prefix) -> bool {
        matches!(self.part_of(prefix), Some((_, HolderId::Own)))
    }

    /// The number of blocks and lent addresses that somebody has.
    pub(crate) fn holders(&self) -> usize {
        self.holders.len()
    }

    /// What is thought of a route.
    pub(crate) fn judge(&self, prefix: &Prefix, voice: &Voice<'_>) -> Validity {
        let Some(range) = self.range(prefix) else { return Validity::NotCovered };
        let aggregate = prefix.len() <= range.block_len && voice.import.aggregates.contains(prefix);
        match self.holders.get(prefix) {
            Some(HolderId::Own) => Validity::Invalid(Refusal::OwnBlock),
            _ if aggregate => Validity::Valid,
            Some(HolderId::Unreadable) => Validity::Unknown,
            Some(HolderId::Node(owner)) => match self.speaks_for(voice, *owner) {
                Ok(()) => Validity::Valid,
                Err(_) if self.freshness == Freshness::Expired && self.speaks_for_itself(voice) => Validity::Unknown,
                Err(refusal) => Validity::Invalid(refusal),
            },
            Some(HolderId::Former(owner)) if self.speaks_for(voice, *owner).is_ok() => Validity::Unknown,
            Some(HolderId::Former(_)) | None => self.unclaimed(prefix, range, voice),
        }
    }

    /// What is thought of a prefix that nobody has.
    fn unclaimed(&self, prefix: &Prefix, range: &Range, voice: &Voice<'_>) -> Validity {
        Validity::Invalid(match self.part_of(prefix) {
            Some((_, HolderId::Unreadable)) => return Validity::Unknown,
            Some(_) => Refusal::PartOfBlock,
            None if prefix.len() != range.block_len => Refusal::NotABlock,
            None if self.freshness > Freshness::Live && self.speaks_for_itself(voice) => return Validity::Unknown,
            None => Refusal::Unclaimed,
        })
    }

    /// Whether the owner may have said this.
    fn speaks_for(&self, voice: &Voice<'_>, owner: NodeId) -> Result<(), Refusal> {
        let Some(owner) = self.nodes.get(owner.0 as usize) else { return Err(Refusal::Unclaimed) };
        let Voice { import, peer, attributes } = voice;
        let is_owners = |address: &IpAddr| owner.addresses.contains(address);
        let next_hop = attributes.next_hop.as_ref();
        let path = &attributes.path;
        match import.role {
            PeerRole::Pod => Err(Refusal::NotTheOwner),
            PeerRole::Node => {
                if !is_owners(peer) {
                    return Err(Refusal::NotTheOwner);
                }
                if !next_hop.is_some_and(is_owners) {
                    return Err(Refusal::NextHop);
                }
                let is_owners = path.as_path.segments().all(|part| part.asns().all(|asn| Some(asn) == owner.asn));
                if is_owners { Ok(()) } else { Err(Refusal::AsPath) }
            }
            PeerRole::Reflector => {
                if !next_hop.is_some_and(is_owners) {
                    return Err(Refusal::NextHop);
                }
                let originator = path.originator_id.map(|id| IpAddr::V4(id.addr()));
                let is_anothers = |id: &IpAddr| self.addresses.contains(id) && !is_owners(id);
                if originator.as_ref().is_some_and(is_anothers) { Err(Refusal::Originator) } else { Ok(()) }
            }
            PeerRole::Fabric | PeerRole::Relay => {
                let relayed = |address: &IpAddr| import.role == PeerRole::Relay && address == peer;
                let is_anothers =
                    |address: &IpAddr| self.addresses.contains(address) && !is_owners(address) && !relayed(address);
                if next_hop.is_some_and(is_anothers) {
                    return Err(Refusal::NextHop);
                }
                // A router may have put its own AS in the place of the node's, or taken it out; another node's is a lie.
                let is_anothers = |asn: Asn| Some(asn) != owner.asn && self.asns.contains(&asn);
                if path.as_path.last().any(is_anothers) { Err(Refusal::AsPath) } else { Ok(()) }
            }
        }
    }

    /// Whether packets would go to a node of the cluster that may well have said this of itself.
    fn speaks_for_itself(&self, voice: &Voice<'_>) -> bool {
        let Voice { import, peer, attributes } = voice;
        let is_nodes = attributes.next_hop.is_some_and(|address| self.addresses.contains(&address));
        match import.role {
            PeerRole::Node => {
                let own = |node: &Node| {
                    node.addresses.contains(peer)
                        && attributes.next_hop.is_some_and(|hop| node.addresses.contains(&hop))
                };
                is_nodes && self.nodes.iter().any(own)
            }
            PeerRole::Reflector => is_nodes,
            // Through the fabric the next hop says nothing; the prefix alone would have to be known.
            PeerRole::Fabric | PeerRole::Relay => true,
            PeerRole::Pod => false,
        }
    }

    /// In words, why a route is refused.
    pub(crate) fn explain(&self, prefix: &Prefix, refusal: Refusal) -> String {
        let owner = |holder: &HolderId| match holder {
            HolderId::Node(id) => self.nodes.get(id.0 as usize).map(|node| node.name.as_str()),
            _ => None,
        };
        let named = self.holders.get(prefix).and_then(owner);
        match (refusal, named, self.part_of(prefix)) {
            (Refusal::PartOfBlock, _, Some((block, HolderId::Own))) => {
                format!("refused: part of this node's own block {block}")
            }
            (Refusal::PartOfBlock, _, Some((block, holder))) => match owner(&holder) {
                Some(owner) => format!("refused: part of node {owner}'s block {block}"),
                None => format!("refused: part of block {block}"),
            },
            (Refusal::NotTheOwner, Some(owner), _) => {
                format!("refused: the block is node {owner}'s, and the peer is not")
            }
            (Refusal::NextHop, Some(owner), _) => {
                format!("refused: the block is node {owner}'s, and the next hop is not")
            }
            (Refusal::Originator, Some(owner), _) => {
                format!("refused: the block is node {owner}'s, and ORIGINATOR_ID is another node's")
            }
            (Refusal::AsPath, Some(owner), _) => {
                format!("refused: the block is node {owner}'s, and the AS path is not")
            }
            (refusal, _, _) => refusal.to_string(),
        }
    }

    fn range(&self, prefix: &Prefix) -> Option<&Range> {
        self.ranges.iter().find(|range| range.cidr.covers(prefix))
    }

    /// The block that a prefix is a part of: the largest.
    fn part_of(&self, prefix: &Prefix) -> Option<(Prefix, HolderId)> {
        (0..prefix.len()).find_map(|len| {
            let around = Prefix::new(prefix.addr(), len).ok()?;
            if self.lengths.get(&length_index(&around)).is_none_or(|count| *count == 0) {
                return None;
            }
            self.holders.get(&around).map(|holder| (around, *holder))
        })
    }
}

/// A prefix length of either family as one number.
fn length_index(prefix: &Prefix) -> u16 {
    let family = u16::from(prefix.family() == types::Family::Ipv6);
    family << 8 | u16::from(prefix.len())
}

#[cfg(test)]
mod tests;
