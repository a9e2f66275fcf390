//! Why a flow passes or does not, and what governs an endpoint: judged by the policies as they are written, not by what was
//! compiled from them. And whether a flow passes here, judged by what was compiled.

use std::net::IpAddr;

use types::policy::{
    Action, Decision, Direction, EffectiveDirection, EffectivePolicy, EffectiveRule, EffectiveRules, End,
    EndpointSelector, Entry, Explanation, Flow, Labels, NamespaceSelector, Part, Party, Peer, Peers, PortMatch, Ports,
    Protocol, Reason, Rule, TierEnd,
};
use types::{EndpointId, NodeName};

use super::compiler::Compiler;
use super::policies::Entry as Governing;
use super::world::{Endpoint, Place};

/// One end of a flow, with the labels and addresses that selectors judge it by.
struct Seen<'a> {
    number: u32,
    endpoint: &'a Endpoint,
    namespace: &'a str,
    namespace_labels: Labels,
    labels: Labels,
}

impl Compiler {
    /// Says which policies let a flow pass or stop it, at both of its ends, also where an end is on another node.
    pub fn explain(&self, flow: &Flow) -> Explanation {
        Explanation::new(*flow, self.judge(flow, Direction::Egress), self.judge(flow, Direction::Ingress))
    }

    /// [`Self::explain`], and in addition what becomes of the connection by the node at which it comes in, where that
    /// may matter.
    pub fn explain_entries(&self, flow: &Flow) -> Explanation {
        let mut explanation = self.explain(flow);
        if let Some(seen) = self.at(flow.destination).filter(|_| explanation.depends_on_entry()) {
            explanation.entries = self.entries(&seen, flow);
        }
        explanation
    }

    /// The verdicts on a connection that reaches an endpoint through each node except the endpoint's own.
    fn entries(&self, seen: &Seen<'_>, flow: &Flow) -> Vec<Entry> {
        let governing = self.governing(seen, Direction::Ingress);
        let of_family = |address: &IpAddr| address.is_ipv4() == flow.destination.is_ipv4();
        let nodes =
            self.nodes.iter().filter_map(|(node, addresses)| Some((node, *addresses.iter().find(|a| of_family(a))?)));
        nodes
            .filter(|(_, address)| !self.is_home(seen, *address))
            .map(|(node, address)| {
                let flow = Flow { source: address, ..*flow };
                let verdict = self.reason(seen, &governing, address, &flow, Direction::Ingress).verdict();
                Entry { node: node.clone(), address, verdict }
            })
            .collect()
    }

    /// Whether an address belongs to the node that an endpoint is on.
    fn is_home(&self, seen: &Seen<'_>, address: IpAddr) -> bool {
        match seen.endpoint.place {
            Place::Remote(node) => NodeName::new(self.world.texts.text(node))
                .is_ok_and(|node| self.nodes.get(&node).is_some_and(|addresses| addresses.contains(&address))),
            place => place.is_governed() && self.node_addresses.contains(&address),
        }
    }

    /// Whether the policies of those ends of a flow that are endpoints of this node let it pass, by the state that
    /// [`Self::take_changes`] has led to.
    pub fn allows(&self, flow: &Flow) -> bool {
        let desired = self.desired();
        let Flow { source, destination, protocol, port } = *flow;
        let is_here = |number: &u32| self.governed.contains_key(number);
        let mut owners = self.world.owners(source).filter(is_here);
        let itself = owners.any(|a| self.world.owners(destination).any(|b| a == b));
        let end = |own: IpAddr, other: IpAddr, direction: Direction| {
            let own_node = direction == Direction::Ingress && self.node_addresses.contains(&other);
            own_node
                || match desired.class_of(own) {
                    Some(class) => desired.allows(class, direction, other, protocol, port),
                    // An address of an endpoint of this node that has no class gets no packets; any other address is
                    // not judged here.
                    None => !self.world.owners(own).any(|owner| is_here(&owner)),
                }
        };
        itself || (end(source, destination, Direction::Egress) && end(destination, source, Direction::Ingress))
    }

    /// Every policy that governs an endpoint of this node.
    pub fn show(&self, id: &EndpointId) -> Option<EffectivePolicy> {
        let seen = self.see(*self.locals.get(id)?)?;
        Some(EffectivePolicy {
            namespace: seen.namespace.to_owned(),
            name: seen.endpoint.name().to_owned(),
            addresses: seen.endpoint.addresses.iter().collect(),
            labels: seen.labels.clone(),
            ingress: self.effective(&seen, Direction::Ingress),
            egress: self.effective(&seen, Direction::Egress),
        })
    }

    fn effective(&self, seen: &Seen<'_>, direction: Direction) -> EffectiveDirection {
        let policies = self.governing(seen, direction);
        if policies.is_empty() {
            return EffectiveDirection::Open;
        }
        let members = |selector: &EndpointSelector| match self.peers.find(&selector.into()) {
            Some(selector) => selector.members.len(),
            None => {
                self.world.peers().iter().filter_map(|id| self.see(id)).filter(|peer| selects(selector, peer)).count()
            }
        };
        let numbers = |protocol: Protocol, name: &str| {
            let Some(name) = self.world.texts.find(name) else { return Vec::new() };
            let mut numbers: Vec<_> = match direction {
                Direction::Ingress => seen.endpoint.numbers(protocol, name).collect(),
                Direction::Egress => {
                    let peers = self.world.peers().iter().filter_map(|id| self.world.get(id));
                    peers.flat_map(|peer| peer.numbers(protocol, name)).collect()
                }
            };
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let rules = |entry: &Governing| {
            let rules = entry.policy.rules(direction).unwrap_or_default();
            rules.iter().map(|rule| EffectiveRule::new(rule, members, numbers)).collect()
        };
        EffectiveDirection::Governed {
            policies: policies
                .into_iter()
                .map(|entry| EffectiveRules {
                    policy: (*entry.id).clone(),
                    tier: entry.policy.tier.name.clone(),
                    rules: rules(entry),
                })
                .collect(),
        }
    }

    /// The verdict of one end: the source is judged by its egress policies, the destination by its ingress policies.
    fn judge(&self, flow: &Flow, direction: Direction) -> End {
        let (own, other) = match direction {
            Direction::Egress => (flow.source, flow.destination),
            Direction::Ingress => (flow.destination, flow.source),
        };
        let Some(seen) = self.at(own) else {
            let party = Party::Outside { address: own };
            return End { party, governed: Vec::new(), reason: Reason::NotAnEndpoint };
        };
        let node = match seen.endpoint.place {
            Place::Remote(node) => NodeName::new(self.world.texts.text(node)).ok(),
            Place::Local | Place::Finished | Place::Expected => None,
        };
        let party = Party::Endpoint {
            namespace: seen.namespace.to_owned(),
            name: seen.endpoint.name().to_owned(),
            node,
            address: own,
        };
        let governed =
            Direction::ALL.into_iter().filter(|direction| !self.governing(&seen, *direction).is_empty()).collect();
        let reason = if self.world.owners(other).any(|owner| owner == seen.number) {
            Reason::Itself
        } else if direction == Direction::Egress && self.is_refused(&seen, flow) {
            Reason::Infrastructure
        } else if direction == Direction::Ingress && self.is_home(&seen, other) {
            Reason::OwnNode
        } else {
            self.reason(&seen, &self.governing(&seen, direction), other, flow, direction)
        };
        End { party, governed, reason }
    }

    /// Whether what a flow from an endpoint goes to is closed to pods whatever policies say.
    fn is_refused(&self, seen: &Seen<'_>, flow: &Flow) -> bool {
        let is_own_router = self.infrastructure.is_router(&seen.labels) && self.is_home(seen, flow.destination);
        self.infrastructure.is_closed(flow) && !is_own_router
    }

    fn reason(
        &self,
        seen: &Seen<'_>,
        governing: &[&Governing],
        other: IpAddr,
        flow: &Flow,
        direction: Direction,
    ) -> Reason {
        let owners = self.world.owners(other);
        let others: Vec<_> =
            owners.filter_map(|id| self.see(id)).filter(|peer| peer.endpoint.place.is_peer()).collect();
        let tiers = governing.chunk_by(|a, b| tier(a) == tier(b));
        'tiers: for tier in tiers {
            for entry in tier {
                for (index, rule) in entry.policy.rules(direction).unwrap_or_default().iter().enumerate() {
                    let own = (direction == Direction::Ingress).then_some(seen);
                    let Some((peer, port)) = self.fitting(rule, flow, own, other, &others) else { continue };
                    if rule.action == Action::Pass {
                        continue 'tiers;
                    }
                    return Reason::Rule(Decision {
                        policy: (*entry.id).clone(),
                        tier: entry.policy.tier.name.clone(),
                        rule: index,
                        action: rule.action,
                        peer,
                        port,
                    });
                }
            }
            if tier.iter().any(|entry| entry.policy.tier.end == TierEnd::Deny) {
                let policies = governing.iter().map(|entry| (*entry.id).clone()).collect();
                return Reason::Isolated { policies };
            }
        }
        // Either no policy governs this end, or every tier has passed the flow on.
        Reason::NotGoverned
    }

    /// The first peer of a rule, and the first port with it, that fit a flow; none of what the rule is for any. `own` is the
    /// destination on ingress; on egress it is one of those who have the other address.
    fn fitting(
        &self,
        rule: &Rule,
        flow: &Flow,
        own: Option<&Seen<'_>>,
        other: IpAddr,
        others: &[Seen<'_>],
    ) -> Option<(Option<Part>, Option<Part>)> {
        let port = |selected: &[&Seen<'_>]| match own {
            Some(own) => self.fitting_port(rule, flow, &[own]),
            None => self.fitting_port(rule, flow, selected),
        };
        let all: Vec<_> = others.iter().collect();
        let Peers::Only(peers) = &rule.peers else { return Some((None, port(&all)?)) };
        peers.iter().enumerate().find_map(|(index, peer)| {
            let fits = match peer {
                Peer::Endpoints(selector) => {
                    let selected: Vec<_> = others.iter().filter(|seen| selects(selector, seen)).collect();
                    if selected.is_empty() { None } else { port(&selected) }
                }
                Peer::Block { cidr, except } => {
                    let is_in = cidr.contains(other) && !except.iter().any(|except| except.contains(other));
                    if is_in { port(&all) } else { None }
                }
            };
            fits.map(|port| (Some(Part::new(index, peer)), port))
        })
    }

    /// The first port of a rule that fits a flow; the outer option is none where no port fits.
    fn fitting_port(&self, rule: &Rule, flow: &Flow, destinations: &[&Seen<'_>]) -> Option<Option<Part>> {
        let Ports::Only(ports) = &rule.ports else { return Some(None) };
        let flow_protocol = flow.protocol?;
        let fits = |port: &PortMatch| match port {
            PortMatch::All(protocol) => *protocol == flow_protocol,
            PortMatch::Range(protocol, range) => *protocol == flow_protocol && range.contains(flow.port),
            PortMatch::Named(protocol, name) => {
                *protocol == flow_protocol
                    && self.world.texts.find(name).is_some_and(|name| {
                        let mut numbers = destinations.iter().flat_map(|seen| seen.endpoint.numbers(*protocol, name));
                        numbers.any(|number| number == flow.port)
                    })
            }
        };
        let (index, port) = ports.iter().enumerate().find(|(_, port)| fits(port))?;
        Some(Some(Part::new(index, port)))
    }

    /// The policies that govern an endpoint of any node in one direction, in the order in which they are judged.
    fn governing(&self, seen: &Seen<'_>, direction: Direction) -> Vec<&Governing> {
        let mut governing: Vec<_> = self
            .policies
            .iter()
            .filter(|entry| entry.policy.rules(direction).is_some() && selects(&entry.policy.subject, seen))
            .collect();
        governing.sort_by(|a, b| a.place().cmp(&b.place()));
        governing
    }

    /// The endpoint that has an address; where several have it, one of this node comes first.
    fn at(&self, address: IpAddr) -> Option<Seen<'_>> {
        let owners = self.world.owners(address).filter_map(|id| self.see(id));
        owners.min_by_key(|seen| (!seen.endpoint.place.is_governed(), seen.number))
    }

    fn see(&self, number: u32) -> Option<Seen<'_>> {
        let endpoint = self.world.get(number)?;
        let namespace = self.world.namespaces.get(endpoint.namespace)?;
        Some(Seen {
            number,
            endpoint,
            namespace: &namespace.name,
            namespace_labels: self.world.namespaces.labels(endpoint.namespace),
            labels: self.world.labels.texts(&endpoint.labels),
        })
    }
}

fn tier(entry: &Governing) -> (u32, &str) {
    (entry.policy.tier.order, &entry.policy.tier.name)
}

fn selects(selector: &EndpointSelector, seen: &Seen<'_>) -> bool {
    let in_namespace = match &selector.namespaces {
        NamespaceSelector::Named(name) => name == seen.namespace,
        NamespaceSelector::Labelled(labels) => labels.matches(&seen.namespace_labels),
    };
    in_namespace && selector.endpoints.matches(&seen.labels)
}
