//! What the store says of the cluster: other nodes, their endpoints, and policies. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use types::{BlockClaim, EndpointId, EndpointIdError, PodRef, Registration, WorkloadEndpoint};

use super::etcd::Put;

/// The namespace of all pods.
pub(crate) const NAMESPACE: &str = "bench";

/// How many pods the node has.
pub(crate) const PODS: usize = 100;

/// The first block of the other nodes.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// The length of a block's prefix.
const BLOCK_LEN: u32 = 20;

/// How many endpoints each of the other nodes has: they fill one block.
const PER_NODE: usize = 4_000;

/// The port of the first policy; every policy has a port of its own.
const FIRST_PORT: usize = 10_000;

/// The first of the other ports: a policy admits to its other port after an odd number of changes.
const OTHER_PORT: usize = 20_000;

/// The block of the other node with this number.
pub(crate) fn block(node: usize) -> Option<(Ipv4Addr, u32)> {
    let step = u32::try_from(node).ok()?.checked_mul(1 << (32 - BLOCK_LEN))?;
    Some((FIRST.to_bits().checked_add(step)?.into(), BLOCK_LEN))
}

/// How many other nodes it takes to have so many endpoints.
pub(crate) const fn nodes(endpoints: usize) -> usize {
    endpoints.div_ceil(PER_NODE)
}

/// Registrations and claims of the other nodes. They register no address, so that no session with them is tried.
pub(crate) fn declare(count: usize) -> impl Iterator<Item = Put> {
    (0..count).flat_map(|node| {
        let name = node_name(node);
        let registration = Registration { agent_version: "0.1.0".to_owned(), ..Registration::default() };
        let claim = name.parse().ok().and_then(|owner| {
            let (address, length) = block(node)?;
            Some(Put(format!("blocks/{address}-{length}"), json!(BlockClaim { owner })))
        });
        [Some(Put(format!("nodes/{name}/registration"), json!(registration))), claim].into_iter().flatten()
    })
}

fn node_name(node: usize) -> String {
    format!("remote-{node}")
}

/// An endpoint of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remote(pub(crate) usize);

impl Remote {
    /// The endpoint's address, which lies in its node's block.
    pub(crate) fn address(self) -> Ipv4Addr {
        let (block, _) = block(self.0 / PER_NODE).unwrap_or((FIRST, BLOCK_LEN));
        let host = u32::try_from(self.0 % PER_NODE).unwrap_or_default();
        // The first address of a block is left out.
        (block.to_bits() + 1 + host).into()
    }

    pub(crate) fn key(self) -> String {
        format!("nodes/{}/endpoints/{}", node_name(self.0 / PER_NODE), self.id())
    }

    fn id(self) -> String {
        format!("manx/remote{:08}/eth0", self.0)
    }

    /// The document that the endpoint's node publishes, with the label by which policies admit peers.
    pub(crate) fn published(self, peer: &str) -> Result<Value, EndpointIdError> {
        let id: EndpointId = self.id().parse()?;
        Ok(json!(WorkloadEndpoint {
            host_interface: id.host_interface(),
            id,
            pod: PodRef { namespace: NAMESPACE.to_owned(), name: format!("remote-{}", self.0), uid: None },
            addresses: vec![self.address().into()],
            subnets: Vec::new(),
            labels: BTreeMap::from([("peer".to_owned(), peer.to_owned()), ("all".to_owned(), "yes".to_owned())]),
            ports: Vec::new(),
            finished: false,
        }))
    }

    pub(crate) fn labelled(self, peer: &str) -> Result<Put, EndpointIdError> {
        Ok(Put(self.key(), self.published(peer)?))
    }
}

/// One of many policies: each has its own peers and its own port, and every second one selects a pod of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy(pub(crate) usize);

impl Policy {
    pub(crate) fn key(self) -> String {
        policy_key(&self.name())
    }

    fn name(self) -> String {
        format!("policy-{:05}", self.0)
    }

    /// The value of the label `peer` that the policy admits.
    pub(crate) fn peer(self) -> String {
        format!("r{}", self.0)
    }

    /// The number of the pod of this node that the policy selects.
    pub(crate) const fn pod(self) -> Option<usize> {
        if self.0.is_multiple_of(2) { Some(self.0 / 2 % PODS) } else { None }
    }

    /// The port that the policy admits to, after so many changes.
    pub(crate) fn port(self, changes: usize) -> u16 {
        let first = if changes.is_multiple_of(2) { FIRST_PORT } else { OTHER_PORT };
        u16::try_from(first + self.0).unwrap_or(u16::MAX)
    }

    /// The policy as it is stored, after so many changes of its port.
    pub(crate) fn stored(self, changes: usize) -> Value {
        let pod = self.pod().map_or_else(|| format!("absent{}", self.0), pod_label);
        let peers = json!([{ "podSelector": { "matchLabels": { "peer": self.peer() } } }]);
        stored(&self.name(), &json!({ "pod": pod }), &peers, self.port(changes))
    }

    pub(crate) fn made(self) -> Put {
        Put(self.key(), self.stored(0))
    }

    /// The policy with the same peers and port for the one pod of this label value.
    pub(crate) fn made_for(self, pod: &str) -> Put {
        let peers = json!([{ "podSelector": { "matchLabels": { "peer": self.peer() } } }]);
        Put(self.key(), stored(&self.name(), &json!({ "pod": pod }), &peers, self.port(0)))
    }

    /// A policy of the second shape: it is for one pod and admits everybody.
    pub(crate) fn admits_all(self) -> Put {
        let peers = json!([{ "podSelector": { "matchLabels": { "all": "yes" } } }]);
        let pod = json!({ "pod": pod_label(self.0) });
        Put(self.key(), stored(&self.name(), &pod, &peers, self.port(0)))
    }
}

/// The policy with the same peers and port for all pods of the namespace.
pub(crate) fn for_all(policy: Policy) -> Value {
    let peers = json!([{ "podSelector": { "matchLabels": { "peer": policy.peer() } } }]);
    let mut object = stored(&policy.name(), &json!({}), &peers, policy.port(0));
    if let Some(selector) = object.pointer_mut("/spec/podSelector") {
        *selector = json!({});
    }
    object
}

/// The value of the label `pod` of this node's pod with this number.
pub(crate) fn pod_label(pod: usize) -> String {
    format!("p{pod}")
}

/// The prefix of the keys of all policies.
pub(crate) fn policy_key(name: &str) -> String {
    format!("resources/NetworkPolicy/{NAMESPACE}/{name}")
}

/// The document of the namespace itself.
pub(crate) fn namespace() -> Put {
    let labels = json!({ "kubernetes.io/metadata.name": NAMESPACE });
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": labels }, "spec": {},
    });
    Put(format!("resources/Namespace/{NAMESPACE}"), object)
}

fn stored(name: &str, subject: &Value, peers: &Value, port: u16) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "podSelector": { "matchLabels": subject },
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": peers, "ports": [{ "protocol": "UDP", "port": port }] }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_policies_select_a_pod_of_the_node_and_each_has_its_own_peers_and_port() {
        let policies: Vec<Policy> = (0..10_000).map(Policy).collect();
        assert_eq!(policies.iter().filter(|policy| policy.pod().is_some()).count(), 5_000);
        let ports: std::collections::BTreeSet<u16> =
            policies.iter().flat_map(|policy| [policy.port(0), policy.port(1)]).collect();
        assert_eq!(ports.len(), 20_000);
        let peers: std::collections::BTreeSet<String> = policies.iter().map(|policy| policy.peer()).collect();
        assert_eq!(peers.len(), 10_000);
    }

    #[test]
    fn an_endpoint_s_address_is_its_own_and_in_the_block_of_its_node() {
        let addresses: std::collections::BTreeSet<Ipv4Addr> =
            (0..100_000).map(|number| Remote(number).address()).collect();
        assert_eq!(addresses.len(), 100_000);
        for number in [0, PER_NODE - 1, PER_NODE, 99_999] {
            let (first, length) = block(number / PER_NODE).unwrap();
            assert_eq!(Remote(number).address().to_bits() >> (32 - length), first.to_bits() >> (32 - length));
        }
        assert_eq!(nodes(100_000), 25);
    }
}
