//! Which published endpoints count: those whose addresses lie in blocks of the node that publishes them.
//!
//! A node that could publish any address would give itself another pod's rights. What is refused for want of a block is
//! kept, for the block's claim may be heard later; what was accepted is not kept, so when a block is lost, endpoints are
//! listed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use felix::policy::{EndpointFacts, RemoteKey};
use types::{BlockClaim, EndpointId, NodeName, Prefix, Update, WorkloadEndpoint};

/// The owners of blocks, and the endpoints that wait for one.
#[derive(Debug)]
pub(crate) struct Peers {
    /// This node: its own endpoints are known first hand.
    own: NodeName,
    /// Who owns what. Blocks do not overlap where claims are judged right; here each is looked up by itself.
    blocks: BTreeMap<Prefix, NodeName>,
    /// Blocks not named again since the last restart of their source.
    unconfirmed: Option<BTreeSet<Prefix>>,
    /// Whether all blocks have been named once.
    blocks_known: bool,
    /// Endpoints were in sync before blocks were.
    owes_in_sync: bool,
    /// Published, but not in a block of their node.
    refused: BTreeMap<RemoteKey, WorkloadEndpoint>,
}

/// What follows from an update of blocks.
#[derive(Debug, PartialEq)]
pub(crate) enum Consequence {
    /// These endpoints count now; or nothing follows.
    Accepted(Vec<Update<RemoteKey, EndpointFacts>>),
    /// Endpoints that counted may not any more: they are to be listed again.
    Relist,
}

impl Peers {
    pub(crate) fn new(own: NodeName) -> Self {
        Self {
            own,
            blocks: BTreeMap::new(),
            unconfirmed: None,
            blocks_known: false,
            owes_in_sync: false,
            refused: BTreeMap::new(),
        }
    }

    /// The claims of blocks, as their source reports them.
    pub(crate) fn block(&mut self, update: Update<Prefix, BlockClaim>) -> Consequence {
        let mut lost = false;
        let mut accepted = Vec::new();
        match update {
            Update::Restart => self.unconfirmed = Some(self.blocks.keys().copied().collect()),
            Update::Set(block, claim) => {
                if let Some(unconfirmed) = &mut self.unconfirmed {
                    unconfirmed.remove(&block);
                }
                let before = self.blocks.insert(block, claim.owner.clone());
                lost = before.is_some_and(|owner| owner != claim.owner);
                accepted = self.accept(&claim.owner);
            }
            Update::Delete(block) => lost = self.blocks.remove(&block).is_some(),
            Update::InSync => {
                for block in self.unconfirmed.take().unwrap_or_default() {
                    lost |= self.blocks.remove(&block).is_some();
                }
                self.blocks_known = true;
                if std::mem::take(&mut self.owes_in_sync) {
                    accepted.push(Update::InSync);
                }
            }
        }
        if lost { Consequence::Relist } else { Consequence::Accepted(accepted) }
    }

    /// An update of published endpoints, as policy is to hear of it.
    pub(crate) fn endpoint(
        &mut self,
        update: Update<(NodeName, EndpointId), Box<WorkloadEndpoint>>,
    ) -> Vec<Update<RemoteKey, EndpointFacts>> {
        vec![match update {
            Update::Restart => {
                self.refused.clear();
                self.owes_in_sync = false;
                Update::Restart
            }
            // Before all blocks are known some endpoints wait for theirs: absence would be taken for their end.
            Update::InSync if !self.blocks_known => {
                self.owes_in_sync = true;
                return Vec::new();
            }
            Update::InSync => Update::InSync,
            Update::Set((node, _), _) | Update::Delete((node, _)) if node == self.own => return Vec::new(),
            Update::Set((node, id), endpoint) => {
                let key = RemoteKey { node, id };
                if self.is_owned(&key.node, &endpoint.addresses) {
                    self.refused.remove(&key);
                    Update::Set(key, facts(*endpoint))
                } else {
                    self.refused.insert(key.clone(), *endpoint);
                    // It may have counted with other addresses.
                    Update::Delete(key)
                }
            }
            Update::Delete((node, id)) => {
                let key = RemoteKey { node, id };
                self.refused.remove(&key);
                Update::Delete(key)
            }
        }]
    }

    /// Endpoints that are published but do not count.
    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }

    fn accept(&mut self, node: &NodeName) -> Vec<Update<RemoteKey, EndpointFacts>> {
        let keys: Vec<RemoteKey> = self
            .refused
            .iter()
            .filter(|(key, endpoint)| key.node == *node && self.is_owned(node, &endpoint.addresses))
            .map(|(key, _)| key.clone())
            .collect();
        let accepted = keys.into_iter().filter_map(|key| {
            let endpoint = self.refused.remove(&key)?;
            Some(Update::Set(key, facts(endpoint)))
        });
        accepted.collect()
    }

    fn is_owned(&self, node: &NodeName, addresses: &[IpAddr]) -> bool {
        addresses.iter().all(|address| {
            // The last block that begins at or before the address is the only one that can hold it.
            let host = Prefix::host(*address);
            let before = self.blocks.range(..=host).next_back();
            before.is_some_and(|(block, owner)| block.contains(*address) && owner == node)
        })
    }
}

/// What policy needs of an endpoint.
pub(crate) fn facts(endpoint: WorkloadEndpoint) -> EndpointFacts {
    let WorkloadEndpoint { pod, addresses, labels, ports, finished, .. } = endpoint;
    EndpointFacts { namespace: pod.namespace, name: pod.name, labels, ports, addresses, finished }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn claim(block: &str, owner: &str) -> Update<Prefix, BlockClaim> {
        Update::Set(block.parse().unwrap(), BlockClaim { owner: node(owner) })
    }

    fn published(at: &str, container: &str, address: &str) -> Update<(NodeName, EndpointId), Box<WorkloadEndpoint>> {
        let id: EndpointId = format!("manx/{container}/eth0").parse().unwrap();
        let endpoint = WorkloadEndpoint {
            host_interface: id.host_interface(),
            id: id.clone(),
            pod: types::PodRef { namespace: "default".to_owned(), name: container.to_owned(), uid: None },
            addresses: vec![address.parse().unwrap()],
            labels: BTreeMap::new(),
            ports: Vec::new(),
            finished: false,
        };
        Update::Set((node(at), id), Box::new(endpoint))
    }

    fn peers(blocks: &[(&str, &str)]) -> Peers {
        let mut peers = Peers::new(node("own"));
        peers.block(Update::Restart);
        for (block, owner) in blocks {
            peers.block(claim(block, owner));
        }
        peers.block(Update::InSync);
        peers
    }

    fn counts(peers: &mut Peers, at: &str, address: &str) -> bool {
        matches!(peers.endpoint(published(at, "a", address)).as_slice(), [Update::Set(..)])
    }

    #[test]
    fn an_endpoint_counts_only_where_its_publisher_owns_the_block() {
        let mut peers = peers(&[("10.0.0.0/26", "n1"), ("10.0.0.64/26", "n2"), ("fd00::/122", "n1")]);
        assert!(counts(&mut peers, "n1", "10.0.0.63") && counts(&mut peers, "n1", "fd00::3f"));
        for (at, address) in [("n1", "10.0.0.64"), ("n2", "10.0.0.1"), ("n1", "10.0.0.128"), ("n2", "fd00::1")] {
            assert!(!counts(&mut peers, at, address), "{at} {address}");
        }
        assert_eq!(peers.endpoint(published("own", "a", "10.0.0.1")), []);
    }

    #[test]
    fn an_endpoint_heard_before_its_block_counts_once_the_block_is_heard() {
        let mut peers = peers(&[]);
        assert!(!counts(&mut peers, "n1", "10.0.0.1"));
        assert_eq!(peers.block(claim("10.0.0.64/26", "n1")), Consequence::Accepted(Vec::new()));
        let Consequence::Accepted(accepted) = peers.block(claim("10.0.0.0/26", "n1")) else { panic!() };
        assert_eq!(accepted.len(), 1);
        assert_eq!(peers.refused(), 0);
    }

    #[test]
    fn endpoints_are_not_said_to_be_complete_before_blocks_are() {
        let mut peers = Peers::new(node("own"));
        assert_eq!(peers.endpoint(Update::Restart), [Update::Restart]);
        assert!(!counts(&mut peers, "n1", "10.0.0.1"));
        assert_eq!(peers.endpoint(Update::InSync), []);
        peers.block(Update::Restart);
        peers.block(claim("10.0.0.0/26", "n1"));
        assert_eq!(peers.block(Update::InSync), Consequence::Accepted(vec![Update::InSync]));
        assert_eq!(peers.endpoint(Update::InSync), [Update::InSync]);
    }

    #[test]
    fn when_a_block_is_lost_endpoints_are_listed_anew() {
        let mut peers = peers(&[("10.0.0.0/26", "n1"), ("10.0.0.64/26", "n2")]);
        assert_eq!(peers.block(claim("10.0.0.0/26", "n2")), Consequence::Relist);
        assert_eq!(peers.block(Update::Delete("10.0.0.0/26".parse().unwrap())), Consequence::Relist);
        peers.block(Update::Restart);
        assert_eq!(peers.block(Update::InSync), Consequence::Relist, "n2's other block was not named again");
    }
}
