//! What the agent answers on `/run/manx/agent.sock` (HTTP and JSON), for `manxctl` and for curious people with curl.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`NodeStatus`] |
//! | `GET /v1/ipam` | [`IpamView`] |
//! | `GET /v1/routes?family=ipv4&prefix=10.65.0.0/26` | a list of [`RouteView`] |
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

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// In words.
    pub error: String,
}

/// Whether the node keeps what it originates to itself, so that the network sends it nothing. An agent begins without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// It does.
    pub drained: bool,
}

/// A node at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// The agent's version.
    pub version: String,
    /// Whether ADD would be served and routes are programmed.
    pub ready: bool,
    /// What is wrong, in words; empty when all is well.
    pub problems: Vec<String>,
    /// The datastore: `etcd` with its endpoints, or `local`.
    pub datastore: String,
    /// Whether the datastore answers now.
    pub datastore_connected: bool,
    /// How long ago it last confirmed that this node's blocks are its own, in seconds; absent: never, or it is `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore_confirmed_secs: Option<u64>,
    /// The speaker's AS number.
    pub asn: Asn,
    /// The speaker's identifier.
    pub router_id: Option<RouterId>,
    /// The addresses the node peers from.
    pub addresses: Vec<IpAddr>,
    /// Its sessions.
    pub peers: Vec<PeerStatus>,
    /// Its kernel routes.
    pub routes: RouteCounts,
    /// Pods attached here.
    pub endpoints: usize,
}

/// One BGP session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Where the session comes from: `mesh`, or the BGPPeer's name.
    pub origin: String,
    /// Its AS number.
    pub asn: Asn,
    /// How far it has come.
    pub state: SessionState,
    /// Seconds since it entered or left Established.
    pub since_secs: Option<u64>,
    /// The families of the session.
    pub families: Vec<Family>,
    /// Routes in its Adj-RIB-In.
    pub received: u64,
    /// Those that import policy accepts.
    pub accepted: u64,
    /// Those that it refuses.
    pub refused: u64,
    /// Those kept while the peer restarts (RFC 4724).
    pub stale: u64,
    /// What ended the session last, or keeps it from coming up.
    pub last_error: Option<String>,
}

/// How many kernel routes are ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteCounts {
    /// To local pods.
    pub local: u64,
    /// Unreachable routes of own blocks.
    pub blocks: u64,
    /// Learned by BGP.
    pub bgp: u64,
    /// Wanted, but not in the kernel.
    pub failed: u64,
}

/// A destination in the speaker's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// The destination.
    pub prefix: Prefix,
    /// Whether this node originates it.
    pub own: bool,
    /// What peers offer, best first.
    pub paths: Vec<PathView>,
}

/// One peer's route to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// Who offers it.
    pub peer: IpAddr,
    /// Through where.
    pub next_hop: IpAddr,
    /// AS_PATH as text.
    pub as_path: String,
    /// ORIGIN as text.
    pub origin: String,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Whether it is the best path.
    pub best: bool,
    /// Whether packets use it (the best, or equal to it).
    pub used: bool,
    /// Whether it is kept while the peer restarts.
    pub stale: bool,
    /// Why it is used, or the step of the decision process at which it lost.
    pub reason: String,
}

/// Pools and blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamView {
    /// The pools, by range.
    pub pools: Vec<PoolUsage>,
    /// Blocks of ranges that are in no pool any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<BlockUsage>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolUsage {
    /// The pool.
    pub name: ResourceName,
    /// Its range.
    pub cidr: Prefix,
    /// Addresses in all.
    pub total: u128,
    /// Addresses of pods.
    pub in_use: u128,
    /// Its claimed blocks, by range.
    pub blocks: Vec<BlockUsage>,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockUsage {
    /// Its range.
    pub cidr: Prefix,
    /// The node that gives its addresses out.
    pub owner: NodeName,
    /// Addresses in all.
    pub total: u128,
    /// Addresses of pods.
    pub in_use: u128,
}

impl IpamView {
    /// Counts addresses in blocks and blocks in pools.
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

/// Asks what becomes of a flow.
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

/// Asks what governs an endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowQuery {
    /// The endpoint.
    pub endpoint: EndpointId,
}

/// Asks for other labels of an endpoint of this node, where no API server says what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelabelRequest {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What becomes of its labels.
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
    /// Sets and removes. All faults are named at once.
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

    /// Reads `KEY=VALUE` and `KEY-`.
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

    /// Carries it out.
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

/// Why labels are not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LabelChangeError(String);

/// A packet that a policy of this node has denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropRecord {
    /// When, in milliseconds since 1970-01-01 00:00 UTC.
    pub time_ms: u64,
    /// The direction that denied it, as the endpoint sees it.
    pub direction: Direction,
    /// The endpoint of this node whose policies denied it; none if it has gone since, or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// The pod of that endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// The packet's source address.
    pub source: IpAddr,
    /// Its destination, after translation of services.
    pub destination: IpAddr,
    /// The protocol by its number in the IP header.
    pub protocol: u8,
    /// Its source port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Its destination port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The policies that govern the endpoint in this direction, none of which allows the packet. Empty for what is dropped
    /// for another reason than a policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyId>,
    /// How many packets were denied since the record before and are not told of, since they came too fast.
    #[serde(default)]
    pub missed: u64,
}

/// The number of addresses of a prefix; 2^128 does not fit and is given as one less.
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
