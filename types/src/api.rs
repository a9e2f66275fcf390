//! What the agent answers on `/run/manx/agent.sock` (HTTP and JSON), for `manxctl` and for curious people with curl.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`NodeStatus`] |
//! | `GET /v1/ipam` | [`IpamView`] |
//! | `GET /v1/routes?family=ipv4&prefix=10.65.0.0/26` | a list of [`RouteView`] |
//! | `GET /v1/routes/rejected` | a list of [`RejectedRoute`] |
//! | `GET /v1/endpoints` | a list of [`crate::WorkloadEndpoint`] |
//! | `POST /v1/endpoints/labels` with a [`RelabelRequest`] | the [`crate::WorkloadEndpoint`] as it is now |
//! | `POST /v1/drain` with a [`Drain`] | the [`Drain`] |
//! | `GET, PUT, DELETE /v1/resources/KIND/[NAMESPACE/]NAME`, `GET /v1/resources/KIND` | [`crate::resource::Resource`] |
//! | `GET /v1/policy/explain?` [`ExplainQuery`] | [`crate::policy::Explanation`] |
//! | `GET /v1/policy/show?` [`ShowQuery`] | [`crate::policy::EffectivePolicy`] |
//! | `GET /v1/policy/log` | [`DropRecord`]s, one a line, as packets are denied, until the asker goes away |
//!
//! An error is an [`ApiError`] with a status of 4xx (the asker's) or 5xx (ours).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::{Direction, Flow, Labels, PolicyId, Protocol, label_fault, label_key_fault};
use crate::{Asn, EndpointId, Family, NodeName, PodRef, Prefix, ResourceName, RouterId, SessionState};

/// Where the socket lies under the agent's run folder (`/run/manx`).
pub const SOCKET: &str = "agent.sock";

/// The file in the agent's run folder in which it remembers the passwords of BGP sessions until the next boot.
pub const BGP_PASSWORDS: &str = "bgp-passwords";

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The reason, as a sentence.
    pub error: String,
}

/// Whether the node announces none of its own routes, so that the network sends it nothing. An agent begins without
/// this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The node is drained.
    pub drained: bool,
}

/// The state of a node at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub node: NodeName,
    /// The agent's version.
    pub version: String,
    /// Whether ADD would be served and routes are programmed.
    pub ready: bool,
    /// What is wrong, one sentence each; empty when all is well.
    pub problems: Vec<String>,
    /// The datastore: `etcd` with its endpoints, or `local`.
    pub datastore: String,
    /// Whether the datastore answers now.
    pub datastore_connected: bool,
    /// How many seconds ago the datastore last confirmed that this node's blocks are its own; absent if it never did or
    /// is `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore_confirmed_secs: Option<u64>,
    /// The speaker's AS number.
    pub asn: Asn,
    /// The speaker's identifier.
    pub router_id: Option<RouterId>,
    /// The addresses the node peers from.
    pub addresses: Vec<IpAddr>,
    /// The node's BGP sessions.
    pub peers: Vec<PeerStatus>,
    /// The node's kernel routes, in numbers.
    pub routes: RouteCounts,
    /// How many pods are attached to this node.
    pub endpoints: usize,
}

/// The state of one BGP session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's TCP port.
    pub port: u16,
    /// Where the session comes from: `mesh`, or the BGPPeer's name.
    pub origin: String,
    /// The peer's AS number.
    pub asn: Asn,
    /// The session's state.
    pub state: SessionState,
    /// How many seconds ago the session entered or left Established.
    pub since_secs: Option<u64>,
    /// The address families that both ends have agreed on.
    pub families: Vec<Family>,
    /// How many routes the peer offers. Those that are refused and not kept count as often as they were announced.
    pub received: u64,
    /// How many of those routes may be used.
    pub accepted: u64,
    /// How many of those routes are refused.
    pub refused: u64,
    /// How many of those routes are kept only because the peer is restarting (RFC 4724).
    pub stale: u64,
    /// Connections from its address that were closed: because its session is alive, or because too many waited for one.
    #[serde(default)]
    pub refused_connections: u64,
    /// How often routes were refused since the session was configured, by the kind of reason; also those that validation only
    /// warns of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, u64>,
    /// One route that is not the peer's to announce, and why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// How many prefixes of each family it may have in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
    /// What ended the session last, or keeps it from coming up.
    pub last_error: Option<String>,
    /// Whether it has a password (TCP MD5).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_password: bool,
    /// The least TTL that the peer's packets may arrive with (RFC 5082), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_ttl: Option<u8>,
    /// Why connections with the peer do not come about now, or why it does not answer on the one that is up, as far as that can
    /// be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// A route that a peer offers and that is refused. Not every one is kept: of some there are samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRoute {
    /// The destination.
    pub prefix: Prefix,
    /// Who offers it.
    pub peer: IpAddr,
    /// Where packets would go.
    pub next_hop: Option<IpAddr>,
    /// It is used all the same: `originValidation` of the peer is `warn`.
    pub used: bool,
    /// The kind of reason, as it is counted.
    pub kind: String,
    /// The reason in words, which name who owns the block.
    pub reason: String,
}

/// How many kernel routes are ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteCounts {
    /// Routes to local pods.
    pub local: u64,
    /// Unreachable routes of own blocks.
    pub blocks: u64,
    /// Routes learned by BGP.
    pub bgp: u64,
    /// Routes that are wanted and not in the kernel.
    pub failed: u64,
}

/// A destination in the speaker's tables, with the paths to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// The destination prefix.
    pub prefix: Prefix,
    /// Whether this node originates it.
    pub own: bool,
    /// The paths that peers offer, best first.
    pub paths: Vec<PathView>,
}

/// One path that a peer offers to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// The peer that offers the path.
    pub peer: IpAddr,
    /// The next hop of the path.
    pub next_hop: IpAddr,
    /// The AS_PATH as text.
    pub as_path: String,
    /// The ORIGIN as text.
    pub origin: String,
    /// The LOCAL_PREF of the path.
    pub local_pref: Option<u32>,
    /// The MULTI_EXIT_DISC of the path.
    pub med: Option<u32>,
    /// Whether the path is the best.
    pub best: bool,
    /// Whether packets use the path: it is the best, or equal to the best.
    pub used: bool,
    /// Whether the path is kept only because the peer is restarting.
    pub stale: bool,
    /// Why the path is used, or the step of the decision process at which it lost.
    pub reason: String,
}

/// The address pools and their blocks, with how full they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamView {
    /// The pools, in the order of their ranges.
    pub pools: Vec<PoolUsage>,
    /// Blocks whose range is no longer in any pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<BlockUsage>,
}

/// A pool with its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolUsage {
    /// The pool's name.
    pub name: ResourceName,
    /// The pool's range.
    pub cidr: Prefix,
    /// How many addresses the pool has.
    pub total: u128,
    /// How many of them pods have.
    pub in_use: u128,
    /// The claimed blocks of the pool, in the order of their ranges.
    pub blocks: Vec<BlockUsage>,
}

/// A block of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockUsage {
    /// The block's range.
    pub cidr: Prefix,
    /// The node that gives out the block's addresses.
    pub owner: NodeName,
    /// How many addresses the block has.
    pub total: u128,
    /// How many of them pods have.
    pub in_use: u128,
}

impl IpamView {
    /// Counts the addresses of pods in each block, and of blocks in each pool.
    pub fn new(
        pools: impl IntoIterator<Item = (ResourceName, Prefix)>,
        blocks: impl IntoIterator<Item = (Prefix, NodeName)>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let mut by_block: BTreeMap<Prefix, BlockUsage> = blocks
            .into_iter()
            .map(|(cidr, owner)| (cidr, BlockUsage { cidr, owner, total: size(cidr), in_use: 0 }))
            .collect();
        for address in addresses {
            // Blocks do not overlap, so the last one that begins at or before the address is the only one to hold it.
            let at_or_before = by_block.range_mut(..=Prefix::host(address)).next_back();
            if let Some((_, block)) = at_or_before.filter(|(cidr, _)| cidr.contains(address)) {
                block.in_use += 1;
            }
        }
        let mut pools: Vec<PoolUsage> = pools
            .into_iter()
            .map(|(name, cidr)| PoolUsage { name, cidr, total: size(cidr), in_use: 0, blocks: Vec::new() })
            .collect();
        pools.sort_by_key(|pool| pool.cidr);
        let mut orphans = Vec::new();
        for block in by_block.into_values() {
            match pools.iter_mut().find(|pool| pool.cidr.covers(&block.cidr)) {
                Some(pool) => {
                    pool.in_use += block.in_use;
                    pool.blocks.push(block);
                }
                None => orphans.push(block),
            }
        }
        Self { pools, orphans }
    }
}

/// The query for what becomes of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// See [`Flow::source`].
    pub source: IpAddr,
    /// See [`Flow::destination`].
    pub destination: IpAddr,
    /// See [`Flow::protocol`].
    pub protocol: Option<Protocol>,
    /// See [`Flow::port`].
    pub port: Option<u16>,
}

impl From<ExplainQuery> for Flow {
    fn from(query: ExplainQuery) -> Self {
        let ExplainQuery { source, destination, protocol, port } = query;
        Self { source, destination, protocol, port: port.unwrap_or(0) }
    }
}

impl From<Flow> for ExplainQuery {
    fn from(flow: Flow) -> Self {
        let Flow { source, destination, protocol, port } = flow;
        Self { source, destination, protocol, port: protocol.map(|_| port) }
    }
}

/// The query for the policies that govern an endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowQuery {
    /// The endpoint's id.
    pub endpoint: EndpointId,
}

/// The request to change labels of an endpoint of this node, where no API server says what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelabelRequest {
    /// The endpoint's id.
    pub endpoint: EndpointId,
    /// The change of its labels.
    pub change: LabelChange,
}

/// A change of labels, as it is typed: `app=web tier-`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, try_from = "UncheckedLabelChange")]
pub struct LabelChange {
    set: Labels,
    remove: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UncheckedLabelChange {
    #[serde(default)]
    set: Labels,
    #[serde(default)]
    remove: BTreeSet<String>,
}

impl LabelChange {
    /// The change that sets and removes these labels. The error names everything that is wrong at once.
    pub fn new(set: Labels, remove: BTreeSet<String>) -> Result<Self, LabelChangeError> {
        let twice = remove.iter().filter(|key| set.contains_key(*key));
        let faults: Vec<_> = set
            .iter()
            .filter_map(|(key, value)| label_fault(key, value))
            .chain(remove.iter().filter_map(|key| label_key_fault(key)))
            .chain(twice.map(|key| format!("{key:?} cannot be both set and removed")))
            .collect();
        if faults.is_empty() { Ok(Self { set, remove }) } else { Err(LabelChangeError(faults.join("; "))) }
    }

    /// Reads the words `KEY=VALUE` and `KEY-`.
    pub fn parse<T: AsRef<str>>(words: &[T]) -> Result<Self, LabelChangeError> {
        let (mut set, mut remove, mut faults) = (Labels::new(), BTreeSet::new(), Vec::new());
        for word in words.iter().map(T::as_ref) {
            match (word.split_once('='), word.strip_suffix('-')) {
                (Some((key, value)), _) => match set.insert(key.to_owned(), value.to_owned()) {
                    Some(earlier) if earlier != value => faults.push(format!("{key:?} has two values")),
                    _ => {}
                },
                (None, Some(key)) => drop(remove.insert(key.to_owned())),
                (None, None) => faults.push(format!("{word:?} is neither KEY=VALUE nor KEY-")),
            }
        }
        if faults.is_empty() { Self::new(set, remove) } else { Err(LabelChangeError(faults.join("; "))) }
    }

    /// Carries the change out on these labels.
    pub fn apply(&self, labels: &mut Labels) {
        labels.retain(|key, _| !self.remove.contains(key));
        labels.extend(self.set.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

impl TryFrom<UncheckedLabelChange> for LabelChange {
    type Error = LabelChangeError;
    fn try_from(unchecked: UncheckedLabelChange) -> Result<Self, LabelChangeError> {
        Self::new(unchecked.set, unchecked.remove)
    }
}

/// Why labels cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LabelChangeError(String);

/// A packet that a policy of this node has denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropRecord {
    /// When the packet was denied, in milliseconds since 1970-01-01 00:00 UTC.
    pub time_ms: u64,
    /// The direction whose policies denied the packet, as the endpoint sees it.
    pub direction: Direction,
    /// The endpoint of this node whose policies denied the packet; none if it has gone since or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// The pod that the endpoint belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// The packet's source address.
    pub source: IpAddr,
    /// The packet's destination address, after translation of services.
    pub destination: IpAddr,
    /// The packet's protocol, by its number in the IP header.
    pub protocol: u8,
    /// The packet's source port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The packet's destination port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The policies that govern the endpoint in this direction, none of which allows the packet. Empty if the packet
    /// was dropped for another reason than a policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyId>,
    /// How many packets were denied since the record before without a record of their own, because they came too fast.
    #[serde(default)]
    pub missed: u64,
}

/// The number of addresses of a prefix; 2^128 does not fit into the type and is given as one less.
fn size(cidr: Prefix) -> u128 {
    1_u128.checked_shl(u32::from(cidr.family().bits() - cidr.len())).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_in_their_block_and_pool() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let view = IpamView::new(
            [("v4".parse().unwrap(), prefix("10.65.0.0/16")), ("v6".parse().unwrap(), prefix("fd00::/64"))],
            [
                (prefix("10.65.0.0/26"), "a".parse().unwrap()),
                (prefix("10.65.0.64/26"), "b".parse().unwrap()),
                (prefix("fd00::/122"), "a".parse().unwrap()),
                (prefix("10.99.0.0/26"), "a".parse().unwrap()),
            ],
            ["10.65.0.0", "10.65.0.63", "10.65.0.64", "fd00::3f", "10.65.0.128"].map(|a| a.parse().unwrap()),
        );
        let in_use: Vec<_> =
            view.pools.iter().flat_map(|p| &p.blocks).map(|b| (b.cidr.to_string(), b.in_use)).collect();
        assert_eq!(
            in_use,
            [("10.65.0.0/26".to_owned(), 2), ("10.65.0.64/26".to_owned(), 1), ("fd00::/122".to_owned(), 1)]
        );
        assert_eq!((view.pools[0].in_use, view.pools[0].total), (3, 65_536));
        assert_eq!(view.orphans[0].cidr, prefix("10.99.0.0/26"));
    }

    #[test]
    fn a_change_of_labels_is_read_as_kubectl_reads_it_and_carried_out() {
        let change = LabelChange::parse(&["app=web", "tier-", "empty=", "a/b=c"]).unwrap();
        let mut labels: Labels = [("tier", "x"), ("app", "y"), ("kept", "z")].map(|(k, v)| (k.into(), v.into())).into();
        change.apply(&mut labels);
        let wanted = [("a/b", "c"), ("app", "web"), ("empty", ""), ("kept", "z")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(labels, wanted.into());
        let sent = serde_json::to_value(&change).unwrap();
        assert_eq!(serde_json::from_value::<LabelChange>(sent).unwrap(), change);
    }

    #[test]
    fn labels_that_cannot_be_are_refused_all_at_once_also_from_the_wire() {
        let error = LabelChange::parse(&["a=b c", "-x=1", "word"]).unwrap_err().to_string();
        assert_eq!(error, "\"word\" is neither KEY=VALUE nor KEY-");
        let error = LabelChange::parse(&["a=b c", "x y=1", "z-", "z=1"]).unwrap_err().to_string();
        for part in ["\"b c\"", "\"x y\"", "\"z\" cannot be both"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(LabelChange::parse(&["a=1", "a=2"]).is_err());
        assert!(serde_json::from_str::<LabelChange>(r#"{"set": {"a b": ""}}"#).is_err());
    }
}
