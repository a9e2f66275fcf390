//! The filter as the agent has it, on the real kernel and both iptables, in namespaces of each test's own.

mod node;
mod packets;
mod repair;

use std::collections::BTreeSet;
use std::sync::Arc;

use felix::policy::{EndpointFacts, PolicyUpdate};
use kernel::acl::IptablesVariant;
use types::policy::{
    Action, Direction, EndpointSelector, LabelSelector, Labels, NamespaceSelector, Peer, Peers, Policy, PolicyId,
    PolicyKind, PortMatch, PortRange, Ports, Protocol, Rule, Tier,
};
use types::{EndpointId, EndpointPort, Update};

use crate::ip;

const VARIANTS: [IptablesVariant; 2] = [IptablesVariant::Nft, IptablesVariant::Legacy];

/// The id of a pod's attachment.
fn id(pod: u8) -> EndpointId {
    format!("manx/{:012x}/eth0", u64::from(pod) + 0xabc0).parse().unwrap()
}

/// A pod of the namespace `shop`, with an address of each family and one label.
fn facts(pod: u8, app: &str) -> EndpointFacts {
    EndpointFacts {
        namespace: "shop".to_owned(),
        name: format!("pod-{pod}"),
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        ports: vec![EndpointPort { name: "web".to_owned(), protocol: Protocol::Tcp, port: 80 }],
        addresses: vec![ip(&format!("10.65.0.{pod}")), ip(&format!("fd65::{pod}"))],
        finished: false,
    }
}

fn selector(app: &str) -> EndpointSelector {
    EndpointSelector {
        namespaces: NamespaceSelector::Named("shop".to_owned()),
        endpoints: LabelSelector {
            match_labels: Labels::from([("app".to_owned(), app.to_owned())]),
            match_expressions: Vec::new(),
        },
    }
}

/// To pods of `app`, TCP to one port from pods of `from`; nothing else in that direction.
fn admits(app: &str, direction: Direction, from: &[&str], port: u16) -> Policy {
    let peers = from.iter().map(|from| Peer::Endpoints(selector(from))).collect();
    let rule = Rule {
        action: Action::Allow,
        peers: Peers::Only(peers),
        ports: Ports::Only(vec![PortMatch::Range(Protocol::Tcp, PortRange::single(port))]),
    };
    let rules = Some(if from.is_empty() { Vec::new() } else { vec![rule] });
    let (ingress, egress) = match direction {
        Direction::Ingress => (rules, None),
        Direction::Egress => (None, rules),
    };
    Policy { tier: Tier::network_policy(), order: 0, subject: selector(app), ingress, egress }
}

fn policy_id(name: &str) -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: name.to_owned() }
}

fn set_policy(name: &str, policy: Policy) -> PolicyUpdate {
    PolicyUpdate::Policy(Update::Set(policy_id(name), Arc::new(policy)))
}

/// Every source has said these policies and nothing else.
fn sources(policies: Vec<(&str, Policy)>) -> Vec<PolicyUpdate> {
    let mut updates = vec![PolicyUpdate::Policy(Update::Restart)];
    updates.extend(policies.into_iter().map(|(name, policy)| set_policy(name, policy)));
    updates.extend([
        PolicyUpdate::Policy(Update::InSync),
        PolicyUpdate::Namespace(Update::Restart),
        PolicyUpdate::Namespace(Update::Set("shop".to_owned(), Labels::new())),
        PolicyUpdate::Namespace(Update::InSync),
        PolicyUpdate::Remote(Update::Restart),
        PolicyUpdate::Remote(Update::InSync),
        PolicyUpdate::Expected(Update::Restart),
        PolicyUpdate::Expected(Update::InSync),
    ]);
    updates
}

fn families() -> BTreeSet<types::Family> {
    types::Family::ALL.into()
}
