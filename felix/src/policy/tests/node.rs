//! A node by hand: a compiler whose changes a kernel carries out, and short words for policies and pods.

use std::net::IpAddr;
use std::sync::Arc;

use types::policy::{
    Action, Direction, EndpointSelector, LabelSelector, Labels, NamespaceSelector, Peer, Peers, Policy, PolicyId,
    PolicyKind, PortMatch, PortRange, Ports, Protocol, Rule, Tier,
};
use types::{EndpointId, EndpointPort, Update};

use super::kernel::Kernel;
use crate::policy::program::Change;
use crate::policy::{Compiler, CompilerConfig, EndpointFacts, PolicyUpdate, RemoteKey};

pub(super) const TCP: Option<Protocol> = Some(Protocol::Tcp);

/// A compiler, and a kernel that carries out the changes that the compiler gives out.
pub(super) struct Node {
    pub(super) compiler: Compiler,
    pub(super) kernel: Kernel,
}

impl Node {
    pub(super) fn new() -> Self {
        Self::with(CompilerConfig::default())
    }

    pub(super) fn with(config: CompilerConfig) -> Self {
        Self { compiler: Compiler::new(config), kernel: Kernel::default() }
    }

    pub(super) fn apply(&mut self, update: PolicyUpdate) -> Vec<Change> {
        self.compiler.apply(update);
        self.settle()
    }

    pub(super) fn settle(&mut self) -> Vec<Change> {
        let changes = self.compiler.take_changes();
        changes.iter().for_each(|change| self.kernel.take(change));
        assert_eq!(self.kernel, Kernel::of(self.compiler.desired()));
        changes
    }

    /// Applies an update and carries out its changes one by one, calling `ask` after each of them.
    pub(super) fn apply_asking(&mut self, update: PolicyUpdate, mut ask: impl FnMut(&Self)) {
        self.compiler.apply(update);
        for change in self.compiler.take_changes() {
            self.kernel.take(&change);
            ask(self);
        }
    }

    pub(super) fn local(&mut self, number: u8, facts: EndpointFacts) -> Vec<Change> {
        self.compiler.set_local(local(number), facts).unwrap();
        self.settle()
    }

    pub(super) fn remote(&mut self, number: u8, facts: EndpointFacts) -> Vec<Change> {
        let id = format!("manx/{number:064x}/eth0").parse().unwrap();
        self.apply(PolicyUpdate::Remote(Update::Set(RemoteKey { node: "other".parse().unwrap(), id }, facts)))
    }

    pub(super) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) -> Vec<Change> {
        self.apply(PolicyUpdate::Namespace(Update::Set(name.to_owned(), map(labels))))
    }

    pub(super) fn policy(&mut self, name: &str, policy: Policy) -> Vec<Change> {
        self.apply(PolicyUpdate::Policy(Update::Set(id(name), Arc::new(policy))))
    }

    /// Whether a packet from an address is let in to an endpoint.
    pub(super) fn lets_in(&self, own: &str, from: &str, protocol: Option<Protocol>, port: u16) -> bool {
        self.kernel.allows(address(own), Direction::Ingress, address(from), protocol, port)
    }

    pub(super) fn lets_out(&self, own: &str, to: &str, protocol: Option<Protocol>, port: u16) -> bool {
        self.kernel.allows(address(own), Direction::Egress, address(to), protocol, port)
    }
}

pub(super) fn id(name: &str) -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: name.to_owned() }
}

pub(super) fn local(number: u8) -> EndpointId {
    format!("manx/here{number}/eth0").parse().unwrap()
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn map(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn pod(namespace: &str, labels: &[(&str, &str)], addresses: &[&str]) -> EndpointFacts {
    EndpointFacts {
        namespace: namespace.to_owned(),
        name: "pod".to_owned(),
        labels: map(labels),
        ports: Vec::new(),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        finished: false,
    }
}

pub(super) fn with_ports(facts: EndpointFacts, ports: &[(&str, Protocol, u16)]) -> EndpointFacts {
    let port = |(name, protocol, port): &(&str, _, _)| EndpointPort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
    };
    EndpointFacts { ports: ports.iter().map(port).collect(), ..facts }
}

pub(super) fn labelled(labels: &[(&str, &str)]) -> LabelSelector {
    LabelSelector { match_labels: map(labels), match_expressions: Vec::new() }
}

pub(super) fn in_shop(labels: &[(&str, &str)]) -> EndpointSelector {
    EndpointSelector { namespaces: NamespaceSelector::Named("shop".to_owned()), endpoints: labelled(labels) }
}

pub(super) fn pods(labels: &[(&str, &str)]) -> Peer {
    Peer::Endpoints(in_shop(labels))
}

pub(super) fn of_namespaces(namespaces: LabelSelector, labels: &[(&str, &str)]) -> Peer {
    let namespaces = NamespaceSelector::Labelled(namespaces);
    Peer::Endpoints(EndpointSelector { namespaces, endpoints: labelled(labels) })
}

pub(super) fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block { cidr: cidr.parse().unwrap(), except: except.iter().map(|text| text.parse().unwrap()).collect() }
}

pub(super) fn port(protocol: Protocol, number: u16) -> PortMatch {
    PortMatch::Range(protocol, PortRange::single(number))
}

pub(super) fn named(name: &str) -> PortMatch {
    PortMatch::Named(Protocol::Tcp, name.to_owned())
}

pub(super) fn allow(peers: Option<Vec<Peer>>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        action: Action::Allow,
        peers: peers.map_or(Peers::Any, Peers::Only),
        ports: ports.map_or(Ports::Any, Ports::Only),
    }
}

/// A policy that governs every pod of the namespace `shop`.
pub(super) fn policy(ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    Policy { tier: Tier::network_policy(), order: 0, subject: in_shop(&[]), ingress, egress }
}

pub(super) const WEB: &str = "10.0.0.1";
pub(super) const DB: &str = "10.0.1.2";
pub(super) const OUTSIDE: &str = "192.0.2.9";

/// A node with the pod `web`, while the pod `db` is on another node; both are in the namespace `shop`.
pub(super) fn shop() -> Node {
    let mut node = Node::new();
    node.local(1, pod("shop", &[("app", "web")], &[WEB, "fd00::1"]));
    node.remote(2, pod("shop", &[("app", "db")], &[DB, "fd00::2"]));
    node
}
