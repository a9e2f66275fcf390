//! What happens to a world, and the many ways in which an agent may come to hear of it.

use std::collections::BTreeMap;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::people::{NAMESPACES, NODES, POD_NAMES, named_ports, namespace_labels, pod, pod_labels};
use crate::generate::spec;
use crate::world::{Labels, NamedPort, Phase, Pod, PodName, PolicyName, World};

/// One thing that happens to a world. If an object that it names does not exist, nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A policy is created or replaced.
    PutPolicy(PolicyName, Value),
    /// A policy is deleted.
    DeletePolicy(PolicyName),
    /// A namespace is made, or gets other labels.
    LabelNamespace(String, Labels),
    /// A namespace is deleted with all that is in it.
    DeleteNamespace(String),
    /// A pod is created, or replaced by one of the same name.
    PutPod(PodName, Pod),
    /// A pod gets other labels.
    LabelPod(PodName, Labels),
    /// A pod's named ports change (it is replaced in place).
    NamePorts(PodName, Vec<NamedPort>),
    /// A pod has ended.
    EndPod(PodName, Phase),
    /// A pod that has ended leaves its address to a new pod, while its own object stays.
    Inherit(PodName, PodName, Pod),
    /// A pod's object is deleted.
    DeletePod(PodName),
}

impl Change {
    /// Carries the change out on a world.
    pub fn apply(&self, world: &mut World) {
        match self {
            Self::PutPolicy(name, spec) => {
                if world.namespaces.contains_key(&name.namespace) {
                    world.policies.insert(name.clone(), spec.clone());
                }
            }
            Self::DeletePolicy(name) => {
                world.policies.remove(name);
            }
            Self::LabelNamespace(name, labels) => {
                world.namespaces.insert(name.clone(), labels.clone());
            }
            Self::DeleteNamespace(name) => {
                world.namespaces.remove(name);
                world.pods.retain(|pod, _| pod.namespace != *name);
                world.policies.retain(|policy, _| policy.namespace != *name);
            }
            Self::PutPod(name, pod) => put(world, name, pod.clone()),
            Self::LabelPod(name, labels) => with(world, name, |pod| pod.labels.clone_from(labels)),
            Self::NamePorts(name, ports) => with(world, name, |pod| pod.ports.clone_from(ports)),
            Self::EndPod(name, phase) => with(world, name, |pod| pod.phase = *phase),
            Self::Inherit(from, to, pod) => {
                let Some(ended) = world.pods.get_mut(from).filter(|pod| !pod.host_network) else { return };
                if from != to && !pod.host_network {
                    ended.phase = Phase::Succeeded;
                    let pod = Pod { addresses: ended.addresses.clone(), ..pod.clone() };
                    put(world, to, pod);
                }
            }
            Self::DeletePod(name) => {
                world.pods.remove(name);
            }
        }
    }
}

/// Makes a pod in a namespace that exists, with addresses that no other pod has.
fn put(world: &mut World, name: &PodName, pod: Pod) {
    let taken = world.pods.iter().any(|(other, has)| {
        let both = !has.host_network && !pod.host_network && !has.phase.has_ended() && !pod.phase.has_ended();
        other != name && both && has.addresses.iter().any(|address| pod.addresses.contains(address))
    });
    if world.namespaces.contains_key(&name.namespace) && !taken {
        world.pods.insert(name.clone(), pod);
    }
}

fn with(world: &mut World, name: &PodName, change: impl FnOnce(&mut Pod)) {
    // Nothing runs again in a pod that has ended; its object only waits to be deleted.
    if let Some(pod) = world.pods.get_mut(name).filter(|pod| !pod.phase.has_ended()) {
        change(pod);
    }
}

/// Some changes, and the way in which the agents hear of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryStep {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// The way in which the agents hear of them.
    pub order: Order,
}

/// The way in which reports arrive. The result must not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// A seed that shuffles the reports: those of different objects come in any order.
    pub shuffle: u64,
    /// Whether every source begins again: it lists what exists now, and what it does not list is gone.
    pub relist: bool,
    /// Whether intermediate states are reported too, and every report comes twice.
    pub noise: bool,
    /// Whether the compiler's output is taken after every report, and not only at the end.
    pub eager: bool,
}

/// Generates a history of up to `most` steps.
pub fn steps(most: usize) -> BoxedStrategy<Vec<HistoryStep>> {
    let order = (any::<u64>(), prop::bool::weighted(0.2), prop::bool::weighted(0.3), any::<bool>())
        .prop_map(|(shuffle, relist, noise, eager)| Order { shuffle, relist, noise, eager });
    let step = (vec(change(), 1..=3), order).prop_map(|(changes, order)| HistoryStep { changes, order });
    vec(step, 1..=most).boxed()
}

fn pod_name() -> impl Strategy<Value = PodName> {
    (select(&NAMESPACES[..]), select(&POD_NAMES[..])).prop_map(|(namespace, name)| PodName::new(namespace, name))
}

fn policy_name() -> impl Strategy<Value = PolicyName> {
    (select(&NAMESPACES[..]), 0..4).prop_map(|(namespace, index)| PolicyName::new(namespace, &format!("p{index}")))
}

fn change() -> impl Strategy<Value = Change> {
    let new_pod = || pod_name().prop_flat_map(|name| (pod(&name), Just(name)));
    let namespace = || select(&NAMESPACES[..]);
    prop_oneof![
        8 => (policy_name(), spec()).prop_map(|(name, spec)| Change::PutPolicy(name, spec)),
        3 => policy_name().prop_map(Change::DeletePolicy),
        3 => namespace()
            .prop_flat_map(|name| namespace_labels(name).prop_map(move |labels| Change::LabelNamespace(name.to_owned(), labels))),
        1 => namespace().prop_map(|name| Change::DeleteNamespace(name.to_owned())),
        3 => new_pod().prop_map(|(pod, name)| Change::PutPod(name, pod)),
        5 => (pod_name(), pod_labels()).prop_map(|(name, labels)| Change::LabelPod(name, labels)),
        2 => (pod_name(), named_ports()).prop_map(|(name, ports)| Change::NamePorts(name, ports)),
        2 => (pod_name(), select(&[Phase::Succeeded, Phase::Failed][..]))
            .prop_map(|(name, phase)| Change::EndPod(name, phase)),
        2 => (pod_name(), new_pod()).prop_map(|(from, (pod, to))| Change::Inherit(from, to, pod)),
        2 => pod_name().prop_map(Change::DeletePod),
        1 => (pod_name(), select(&NODES[..])).prop_flat_map(|(name, (node, _))| {
            pod(&name).prop_map(move |pod| Change::PutPod(name.clone(), Pod { node: node.to_owned(), ..pod }))
        }),
    ]
}

/// A report about one object: what it is now, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A report about a policy.
    Policy(PolicyName, Option<Value>),
    /// A report about a namespace.
    Namespace(String, Option<Labels>),
    /// A report about a pod.
    Pod(PodName, Option<Pod>),
}

/// The reports that lead from one world to another, in an order that follows from `shuffle`.
pub fn reports(old: &World, new: &World, shuffle: u64) -> Vec<Report> {
    let mut reports = Vec::new();
    reports.extend(differences(&old.policies, &new.policies).map(|(name, now)| Report::Policy(name, now)));
    reports.extend(differences(&old.namespaces, &new.namespaces).map(|(name, now)| Report::Namespace(name, now)));
    reports.extend(differences(&old.pods, &new.pods).map(|(name, now)| Report::Pod(name, now)));
    let mut state = shuffle;
    let mut keyed: Vec<_> = reports.into_iter().map(|report| (next(&mut state), report)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, report)| report).collect()
}

fn differences<'w, K: Ord + Clone, V: Clone + PartialEq>(
    old: &'w BTreeMap<K, V>,
    new: &'w BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Option<V>)> + 'w {
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), None));
    let now = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    gone.chain(now.map(|(key, value)| (key.clone(), Some(value.clone()))))
}

/// SplitMix64 (Steele, Lea, Flood 2014): a generator of few lines whose values are the same everywhere.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl fmt::Display for HistoryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step, heard with {:?}", self.order)?;
        self.changes.iter().try_for_each(|change| writeln!(f, "  {change}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutPolicy(name, spec) => write!(f, "put policy {name} {spec}"),
            Self::DeletePolicy(name) => write!(f, "delete policy {name}"),
            Self::LabelNamespace(name, labels) => write!(f, "label namespace {name} {labels:?}"),
            Self::DeleteNamespace(name) => write!(f, "delete namespace {name}"),
            Self::PutPod(name, pod) => write!(f, "put pod {name} {pod:?}"),
            Self::LabelPod(name, labels) => write!(f, "label pod {name} {labels:?}"),
            Self::NamePorts(name, ports) => write!(f, "name ports of {name} {ports:?}"),
            Self::EndPod(name, phase) => write!(f, "end pod {name} {phase:?}"),
            Self::Inherit(from, to, pod) => write!(f, "end pod {from} and give its address to {to} {pod:?}"),
            Self::DeletePod(name) => write!(f, "delete pod {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{check, world};

    /// A world and its history, in a form that can be printed.
    #[derive(Debug, Clone)]
    struct History(World, Vec<HistoryStep>);

    impl fmt::Display for History {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)?;
            self.1.iter().try_for_each(|step| step.fmt(f))
        }
    }

    fn heard(world: &mut World, report: Report) {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        match report {
            Report::Policy(name, now) => put(&mut world.policies, name, now),
            Report::Namespace(name, now) => put(&mut world.namespaces, name, now),
            Report::Pod(name, now) => put(&mut world.pods, name, now),
        }
    }

    #[test]
    fn reports_in_any_order_make_the_old_world_the_new_one() {
        let histories = (world(3), steps(4)).prop_map(|(world, steps)| History(world, steps)).boxed();
        check("reports", 200, &histories, |History(world, steps)| {
            let mut old = world.clone();
            for step in steps {
                let mut new = old.clone();
                step.changes.iter().for_each(|change| change.apply(&mut new));
                let mut told = old.clone();
                reports(&old, &new, step.order.shuffle).into_iter().for_each(|report| heard(&mut told, report));
                if told != new {
                    return Err(format!("told\n{told}\ninstead of\n{new}"));
                }
                old = new;
            }
            Ok(())
        });
    }

    #[test]
    fn no_two_pods_that_live_have_the_same_address() {
        let histories = (world(0), steps(6)).prop_map(|(world, steps)| History(world, steps)).boxed();
        check("addresses", 300, &histories, |History(world, steps)| {
            let mut world = world.clone();
            for change in steps.iter().flat_map(|step| &step.changes) {
                change.apply(&mut world);
                let live = world.pods.values().filter(|pod| !pod.host_network && !pod.phase.has_ended());
                let mut addresses: Vec<_> = live.flat_map(|pod| &pod.addresses).collect();
                let count = addresses.len();
                addresses.sort_unstable();
                addresses.dedup();
                if addresses.len() != count {
                    return Err(format!("after {change}:\n{world}"));
                }
            }
            Ok(())
        });
    }
}
