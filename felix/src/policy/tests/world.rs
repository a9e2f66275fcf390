//! A direct reading of the policy model: it asks every policy about every packet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use types::policy::{
    Action, Direction, EndpointSelector, Labels, NamespaceSelector, Peer, Peers, Policy, PolicyId, PortMatch, Ports,
    Protocol, Rule, TierEnd,
};
use types::{EndpointId, NamespacedName, Update};

use crate::policy::{Compiler, EndpointFacts, PolicyUpdate, RemoteKey};

#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) policies: BTreeMap<PolicyId, Arc<Policy>>,
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) remotes: BTreeMap<RemoteKey, EndpointFacts>,
    pub(super) locals: BTreeMap<EndpointId, EndpointFacts>,
    pub(super) expected: BTreeMap<NamespacedName, EndpointFacts>,
}

/// One thing that happens in the world.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Update(PolicyUpdate),
    SetLocal(EndpointId, EndpointFacts),
    RemoveLocal(EndpointId),
}

/// A packet as one of its ends sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) own: IpAddr,
    pub(super) direction: Direction,
    pub(super) other: IpAddr,
    pub(super) protocol: Option<Protocol>,
    pub(super) port: u16,
}

impl Event {
    pub(super) fn give(self, compiler: &mut Compiler) {
        match self {
            Self::Update(update) => compiler.apply(update),
            Self::SetLocal(id, facts) => drop(compiler.set_local(id, facts)),
            Self::RemoveLocal(id) => compiler.remove_local(&id),
        }
    }
}

fn update<K: Ord, V>(map: &mut BTreeMap<K, V>, update: Update<K, V>) {
    match update {
        Update::Set(key, value) => drop(map.insert(key, value)),
        Update::Delete(key) => drop(map.remove(&key)),
        Update::Restart | Update::InSync => {}
    }
}

impl World {
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Update(PolicyUpdate::Policy(event)) => update(&mut self.policies, event),
            Event::Update(PolicyUpdate::Namespace(event)) => update(&mut self.namespaces, event),
            Event::Update(PolicyUpdate::Remote(event)) => update(&mut self.remotes, event),
            Event::Update(PolicyUpdate::Expected(event)) => update(&mut self.expected, event),
            Event::SetLocal(id, facts) => drop(self.locals.insert(id, facts)),
            Event::RemoveLocal(id) => drop(self.locals.remove(&id)),
        }
    }

    /// The events that build this world from nothing, one for each object.
    pub(super) fn events(&self) -> Vec<Event> {
        let set = |update| Event::Update(update);
        let world = self.clone();
        let mut events = Vec::new();
        events.extend(world.policies.into_iter().map(|(k, v)| set(PolicyUpdate::Policy(Update::Set(k, v)))));
        events.extend(world.namespaces.into_iter().map(|(k, v)| set(PolicyUpdate::Namespace(Update::Set(k, v)))));
        events.extend(world.remotes.into_iter().map(|(k, v)| set(PolicyUpdate::Remote(Update::Set(k, v)))));
        events.extend(world.expected.into_iter().map(|(k, v)| set(PolicyUpdate::Expected(Update::Set(k, v)))));
        events.extend(world.locals.into_iter().map(|(id, facts)| Event::SetLocal(id, facts)));
        events
    }

    /// The verdict on a probe; none if the probe's own address belongs to no endpoint of this node.
    pub(super) fn allows(&self, probe: &Probe) -> Option<bool> {
        let own = self.locals.values().find(|facts| facts.addresses.contains(&probe.own))?;
        let mut governing: Vec<_> = self
            .policies
            .iter()
            .filter(|(_, policy)| policy.rules(probe.direction).is_some() && self.selects(&policy.subject, own))
            .collect();
        governing.sort_by_key(|(id, policy)| (policy.tier.order, policy.tier.name.clone(), policy.order, *id));
        let mut tiers =
            governing.chunk_by(|(_, a), (_, b)| (a.tier.order, &a.tier.name) == (b.tier.order, &b.tier.name));
        Some(tiers.find_map(|tier| self.judge_tier(tier, own, probe)).unwrap_or(true))
    }

    /// The verdict of one tier; none if it leaves the packet to the next tier.
    fn judge_tier(&self, tier: &[(&PolicyId, &Arc<Policy>)], own: &EndpointFacts, probe: &Probe) -> Option<bool> {
        let rules = tier.iter().flat_map(|(_, policy)| policy.rules(probe.direction).unwrap());
        for rule in rules {
            if self.fits(rule, own, probe) {
                return match rule.action {
                    Action::Allow => Some(true),
                    Action::Deny => Some(false),
                    Action::Pass => None,
                };
            }
        }
        tier.iter().any(|(_, policy)| policy.tier.end == TierEnd::Deny).then_some(false)
    }

    fn fits(&self, rule: &Rule, own: &EndpointFacts, probe: &Probe) -> bool {
        let others: Vec<_> = self
            .remotes
            .values()
            .chain(self.locals.values())
            .filter(|facts| !facts.finished && facts.addresses.contains(&probe.other))
            .collect();
        let fits_peer = |peer: &Peer| match peer {
            Peer::Endpoints(selector) => others.iter().any(|facts| self.selects(selector, facts)),
            Peer::Block { cidr, except } => {
                cidr.contains(probe.other) && !except.iter().any(|except| except.contains(probe.other))
            }
        };
        let destinations = match probe.direction {
            Direction::Ingress => vec![own],
            Direction::Egress => others.clone(),
        };
        // Where several endpoints have one address, the one that has the port must be one that is selected.
        let fits_named = |protocol: Protocol, name: &str, peer: Option<&Peer>| {
            destinations.iter().any(|facts| {
                let selected = match (probe.direction, peer) {
                    (Direction::Egress, Some(Peer::Endpoints(selector))) => self.selects(selector, facts),
                    _ => true,
                };
                selected
                    && facts
                        .ports
                        .iter()
                        .any(|port| port.name == name && port.protocol == protocol && port.port == probe.port)
            })
        };
        let fits_port = |peer: Option<&Peer>| match (&rule.ports, probe.protocol) {
            (Ports::Any, _) => true,
            (Ports::Only(_), None) => false,
            (Ports::Only(ports), Some(protocol)) => ports.iter().any(|port| match port {
                PortMatch::All(wanted) => *wanted == protocol,
                PortMatch::Range(wanted, range) => *wanted == protocol && range.contains(probe.port),
                PortMatch::Named(wanted, name) => *wanted == protocol && fits_named(protocol, name, peer),
            }),
        };
        match &rule.peers {
            Peers::Any => fits_port(None),
            Peers::Only(peers) => peers.iter().any(|peer| fits_peer(peer) && fits_port(Some(peer))),
        }
    }

    fn selects(&self, selector: &EndpointSelector, facts: &EndpointFacts) -> bool {
        let in_namespace = match &selector.namespaces {
            NamespaceSelector::Named(name) => *name == facts.namespace,
            NamespaceSelector::Labelled(selector) => match self.namespaces.get(&facts.namespace) {
                Some(labels) => selector.matches(labels),
                None => {
                    let name = ("kubernetes.io/metadata.name".to_owned(), facts.namespace.clone());
                    selector.matches(&Labels::from([name]))
                }
            },
        };
        in_namespace && selector.endpoints.matches(&facts.labels)
    }
}
