//! A world as one node hears of it: its own pods from the runtime, those of others as their nodes publish them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use felix::policy::{EndpointFacts, PolicyUpdate, RemoteKey};
use oracle::generate::{Order, Report, reports};
use oracle::{Phase, Pod, PodName, World, handover};
use types::policy::{PolicyId, PolicyKind, network_policy};
use types::{EndpointId, NamespacedName, NodeName, Update};

/// Something that a node's agent is told.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A source reports something.
    Source(PolicyUpdate),
    /// A pod is attached on this node, or has changed since.
    Attach(EndpointId, EndpointFacts),
    /// A pod of this node is detached.
    Detach(EndpointId),
}

/// What a node has been told so far.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    name: String,
    attached: BTreeMap<PodName, (EndpointId, Pod)>,
    published: BTreeMap<PodName, (RemoteKey, Pod)>,
    /// Pods that have ended and whose addresses others have now; their objects still exist.
    bereft: BTreeSet<PodName>,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), attached: BTreeMap::new(), published: BTreeMap::new(), bereft: BTreeSet::new() }
    }

    /// The same node after its agent has lost its memory.
    pub(crate) fn anew(&self) -> Self {
        Self { bereft: self.bereft.clone(), ..Self::new(&self.name) }
    }

    /// What the agent is told when the world becomes another, in the order asked for, each report apart. With `relist`,
    /// its sources begin again instead of telling what has changed.
    pub(crate) fn news(&mut self, old: &World, new: &World, order: Order) -> Vec<Vec<News>> {
        let mut all: Vec<Vec<News>> = vec![self.take_down(new)];
        if order.relist {
            all.push(every_source(Update::Restart, Update::Restart, Update::Restart, Update::Restart));
            // A listing says that an object is gone by not naming it. The runtime does tell that a pod is detached.
            for report in reports(old, new, order.shuffle) {
                if let Report::Pod(name, now) = report {
                    let of_runtime = |news: &News| !matches!(news, News::Source(_));
                    all.push(self.pod(&name, now.as_ref()).into_iter().filter(of_runtime).collect());
                }
            }
            self.published.clear();
        }
        let empty = World::default();
        let base = if order.relist { &empty } else { old };
        for report in reports(base, new, order.shuffle) {
            let told = match report {
                Report::Policy(name, spec) => vec![News::Source(policy(&name, spec.as_ref()))],
                Report::Namespace(name, labels) => vec![News::Source(PolicyUpdate::Namespace(match labels {
                    Some(labels) => Update::Set(name, labels),
                    None => Update::Delete(name),
                }))],
                Report::Pod(name, now) => self.pod(&name, now.as_ref()),
            };
            if order.noise {
                all.push(told.clone());
            }
            all.push(told);
        }
        if order.relist {
            all.push(every_source(Update::InSync, Update::InSync, Update::InSync, Update::InSync));
        }
        all
    }

    /// The runtime takes down the network of a pod that has ended before its address is given to another.
    fn take_down(&mut self, new: &World) -> Vec<News> {
        self.bereft.retain(|name| new.pods.get(name).is_some_and(|pod| pod.phase.has_ended()));
        let given_on = |name: &PodName, pod: &Pod| {
            let shares = |has: &Pod| has.addresses.iter().any(|address| pod.addresses.contains(address));
            new.pods.iter().any(|(other, has)| other != name && !has.host_network && shares(has))
        };
        let ended = new.pods.iter().filter(|(name, pod)| pod.phase.has_ended() && given_on(name, pod));
        self.bereft.extend(ended.map(|(name, _)| name.clone()));
        let gone: Vec<_> = self.bereft.iter().filter_map(|name| self.attached.remove(name)).collect();
        gone.into_iter().map(|(id, _)| News::Detach(id)).collect()
    }

    fn pod(&mut self, name: &PodName, now: Option<&Pod>) -> Vec<News> {
        let now = now.filter(|pod| !pod.host_network);
        let mut news = Vec::new();
        let live = now.filter(|pod| !pod.addresses.is_empty() && !self.bereft.contains(name));
        let here = live.filter(|pod| pod.node == self.name);
        let same = |before: &Pod, pod: &Pod| before.addresses == pod.addresses && before.node == pod.node;
        if let Some((id, before)) = self.attached.get(name)
            && !here.is_some_and(|pod| same(before, pod))
        {
            news.push(News::Detach(id.clone()));
            self.attached.remove(name);
        }
        let there = now.filter(|pod| pod.node != self.name);
        if let Some((key, before)) = self.published.get(name)
            && !there.is_some_and(|pod| same(before, pod))
        {
            news.push(News::Source(PolicyUpdate::Remote(Update::Delete(key.clone()))));
            self.published.remove(name);
        }
        let expected = now.filter(|pod| pod.node == self.name);
        let key = NamespacedName { namespace: name.namespace.clone(), name: name.name.clone() };
        news.push(News::Source(PolicyUpdate::Expected(match expected {
            Some(pod) => Update::Set(key, facts(name, pod)),
            None => Update::Delete(key),
        })));
        if let Some(pod) = here {
            // If this pod gets the address of a pod of this node, that pod has been detached before.
            let shares = |other: &&(EndpointId, Pod)| other.1.addresses.iter().any(|has| pod.addresses.contains(has));
            let gone: Vec<_> = self.attached.iter().filter(|(other, has)| *other != name && shares(has)).collect();
            let gone: Vec<_> = gone.into_iter().map(|(other, (id, _))| (other.clone(), id.clone())).collect();
            for (other, id) in gone {
                self.attached.remove(&other);
                news.push(News::Detach(id));
            }
            let id = endpoint(name);
            self.attached.insert(name.clone(), (id.clone(), pod.clone()));
            news.push(News::Attach(id, facts(name, pod)));
        }
        if let Some(pod) = there.filter(|pod| !pod.addresses.is_empty()) {
            let key = RemoteKey { node: node_name(&pod.node), id: endpoint(name) };
            self.published.insert(name.clone(), (key.clone(), pod.clone()));
            news.push(News::Source(PolicyUpdate::Remote(Update::Set(key, facts(name, pod)))));
        }
        news
    }
}

/// Gives the same report to each source.
pub(crate) fn every_source(
    policies: Update<PolicyId, Arc<types::policy::Policy>>,
    namespaces: Update<String, types::policy::Labels>,
    remote: Update<RemoteKey, EndpointFacts>,
    expected: Update<NamespacedName, EndpointFacts>,
) -> Vec<News> {
    let updates = [
        PolicyUpdate::Policy(policies),
        PolicyUpdate::Namespace(namespaces),
        PolicyUpdate::Remote(remote),
        PolicyUpdate::Expected(expected),
    ];
    updates.into_iter().map(News::Source).collect()
}

fn policy(name: &oracle::PolicyName, spec: Option<&serde_json::Value>) -> PolicyUpdate {
    let id = PolicyId { kind: PolicyKind::NetworkPolicy, namespace: name.namespace.clone(), name: name.name.clone() };
    PolicyUpdate::Policy(match spec {
        Some(spec) => Update::Set(id, Arc::new(network_policy(&name.namespace, spec).0)),
        None => Update::Delete(id),
    })
}

pub(crate) fn facts(name: &PodName, pod: &Pod) -> EndpointFacts {
    EndpointFacts {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        labels: pod.labels.clone(),
        ports: handover::ports(pod),
        addresses: pod.addresses.clone(),
        finished: matches!(pod.phase, Phase::Succeeded | Phase::Failed),
    }
}

pub(crate) fn endpoint(name: &PodName) -> EndpointId {
    format!("manx/{}-{}/eth0", name.namespace, name.name).parse().unwrap()
}

fn node_name(name: &str) -> NodeName {
    name.parse().unwrap()
}
