//! What the agent answers on `/run/manx/agent.sock` (HTTP and JSON), for `manxctl` and for curious people with curl.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`NodeStatus`] |
//! | `GET /v1/ipam` | [`IpamView`] |
//! | `GET /v1/routes?family=ipv4&prefix=10.65.0.0/26` | a list of [`RouteView`] |
//! | `GET /v1/endpoints` | a list of [`crate::WorkloadEndpoint`] |
//! | `GET, PUT, DELETE /v1/resources/KIND/NAME`, `GET /v1/resources/KIND` | [`crate::resource::Resource`] |
//!
//! An error is an [`ApiError`] with a status of 4xx (the asker's) or 5xx (ours).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Asn, Family, NodeName, Prefix, ResourceName, RouterId};

/// Where the socket lies under the agent's run folder (`/run/manx`).
pub const SOCKET: &str = "agent.sock";

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// In words.
    pub error: String,
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
    /// The state of RFC 4271 section 8.2.2, in lower case.
    pub state: String,
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
}
