//! Who the pods of this node are: under Kubernetes as the API server has them, else as the runtime's configuration says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use felix::acl::Acl;
use felix::policy::{EndpointFacts, PolicyUpdate};
use ipam::{Description, Ipam};
use tokio::sync::{mpsc, oneshot, watch};

use types::host_ports::PodPorts;
use types::policy::Protocol;
use types::update::Mirror;
use types::{EndpointId, NamespacedName, Pod, PodRef, Update, WorkloadEndpoint};

use super::facts;
use super::relabels::{Relabels, publish, say};
use crate::node::latest::tell;

/// How long an ADD waits for its Pod object: the runtime may be ahead of the watch.
const POD_OBJECT_WAIT: Duration = Duration::from_secs(5);

/// Questions, and updates of pods, that wait for the task.
pub(crate) const QUEUED_QUESTIONS: usize = 64;

/// Where an ADD learns labels and ports from.
#[derive(Debug, Clone)]
pub(crate) enum Identities {
    /// They come from the runtime's configuration (`args.cni`).
    Stated,
    /// They come from Pod objects.
    Kubernetes(mpsc::Sender<Question>),
}

/// What attachments ask of the task.
#[derive(Debug)]
pub(crate) enum Question {
    /// Asks who the pod is, as soon as that is known.
    Who(Asker),
    /// To describe an endpoint that is complete now as its pod has become while it was not. Needs no answer.
    Attached(EndpointId),
    /// To say from now on what Pod objects tell of host ports. Needs no answer.
    HostPortsTold(watch::Sender<Told>),
}

/// What is told of host ports on the Pod objects of this node, by name and UID: the annotation's value, where there is one.
pub(crate) type Told = BTreeMap<(NamespacedName, String), Option<String>>;

/// An ADD that waits for its pod.
#[derive(Debug)]
pub(crate) struct Asker {
    pod: PodRef,
    reply: oneshot::Sender<Identity>,
}

/// What is known of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What is published of it.
    pub(crate) description: Description,
    /// The UID that the API server knows it by.
    pub(crate) uid: Option<String>,
    /// What it says of host ports.
    pub(crate) host_ports: PodPorts,
    /// The host ports that pods of this node name themselves; none where it wishes none.
    pub(crate) named_host_ports: BTreeSet<(Protocol, u16)>,
}

impl Identities {
    /// What is known of the pod that the runtime names; none: the API server knows no such pod (yet).
    pub(crate) async fn of(&self, pod: &PodRef, stated: Description) -> Option<Identity> {
        let Self::Kubernetes(questions) = self else {
            let (host_ports, named_host_ports) = (PodPorts::default(), BTreeSet::new());
            return Some(Identity { description: stated, uid: None, host_ports, named_host_ports });
        };
        let (reply, answer) = oneshot::channel();
        questions.send(Question::Who(Asker { pod: pod.clone(), reply })).await.ok()?;
        tokio::time::timeout(POD_OBJECT_WAIT, answer).await.ok()?.ok()
    }

    /// What Pod objects tell of host ports, from now on; nothing where there is no API server.
    pub(crate) async fn host_ports_told(&self) -> watch::Receiver<Told> {
        let (to, told) = watch::channel(Told::new());
        if let Self::Kubernetes(questions) = self {
            // The task ends only with the agent.
            let _ = questions.send(Question::HostPortsTold(to)).await;
        }
        told
    }

    /// The endpoint is complete. Changes of its pod are described from here on; what has changed since [`Identities::of`]
    /// answered is made up for, by the task itself: whoever else did that could overtake it with what is old by then.
    pub(crate) async fn attached(&self, endpoint: EndpointId) {
        if let Self::Kubernetes(questions) = self {
            // The task ends only with the agent.
            let _ = questions.send(Question::Attached(endpoint)).await;
        }
    }
}

/// The pods that the API server says are this node's.
#[derive(Debug, Default)]
struct Pods {
    known: Mirror<NamespacedName, Pod>,
}

impl Pods {
    /// Takes an update in; gives it as policy is to hear of it. A pod in the node's network is none to it.
    fn apply(&mut self, update: Update<NamespacedName, Pod>) -> Update<NamespacedName, EndpointFacts> {
        let known = update.clone().try_map(|_, pod| if pod.host_network { Err(()) } else { Ok(facts::of_pod(pod)) });
        self.known.apply(update);
        known.unwrap_or_else(|(key, ())| Update::Delete(key))
    }

    fn find(&self, reference: &PodRef) -> Option<&Pod> {
        self.known.entries().get(&key(reference)).filter(|pod| pod.is_meant_by(reference))
    }

    fn host_ports_told(&self) -> Told {
        let told = |(name, pod): (&NamespacedName, &Pod)| {
            Some(((name.clone(), pod.reference.uid.clone()?), pod.host_ports.told.clone()))
        };
        self.known.entries().iter().filter_map(told).collect()
    }

    fn identity(&self, pod: &Pod) -> Identity {
        let wishes = pod.host_ports.wish.is_some();
        let others = self.known.entries().values().filter(|_| wishes).flat_map(|pod| &pod.host_ports.declared);
        Identity {
            description: facts::description(pod),
            uid: pod.reference.uid.clone(),
            host_ports: pod.host_ports.clone(),
            named_host_ports: others.filter_map(|port| Some((port.protocol, port.host_port?))).collect(),
        }
    }
}

/// Follows the watch: tells policy, keeps attached endpoints described, answers ADDs. Waits for nothing that a failing
/// iptables could withhold.
pub(crate) async fn follow(
    mut updates: mpsc::Receiver<Update<NamespacedName, Pod>>,
    mut questions: mpsc::Receiver<Question>,
    ipam: Ipam,
    acl: Acl,
) {
    let mut pods = Pods::default();
    let mut waiting: Vec<Asker> = Vec::new();
    let mut relabels = Relabels::default();
    let mut told: Option<watch::Sender<Told>> = None;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = updates.recv_many(&mut batch, QUEUED_QUESTIONS) => {
                if count == 0 {
                    return;
                }
                let mut touched = BTreeSet::new();
                let mut news = Vec::new();
                for update in batch.drain(..) {
                    match &update {
                        Update::Set(key, _) => {
                            touched.insert(key.clone());
                        }
                        Update::InSync => touched.extend(pods.known.entries().keys().cloned()),
                        Update::Restart | Update::Delete(_) => {}
                    }
                    news.push(PolicyUpdate::Expected(pods.apply(update)));
                }
                // Policy first: the class of a pod that an ADD waits for is then under way.
                acl.update(news).await;
                if let Some(to) = &told {
                    tell(to, pods.host_ports_told());
                }
                waiting = answer(&pods, waiting);
                if !touched.is_empty() {
                    let mut endpoints = ipam.endpoints().await;
                    endpoints.retain(|endpoint| touched.contains(&key(&endpoint.pod)));
                    describe(&pods, endpoints, &ipam, &acl, &mut relabels).await;
                }
            }
            Some(question) = questions.recv() => match question {
                Question::Who(asker) => {
                    waiting.push(asker);
                    waiting = answer(&pods, waiting);
                }
                Question::HostPortsTold(to) => {
                    tell(&to, pods.host_ports_told());
                    told = Some(to);
                }
                // One that is detached again has no description to keep.
                Question::Attached(id) => {
                    describe(&pods, ipam.endpoint(id).await, &ipam, &acl, &mut relabels).await;
                }
            },
            (id, outcome) = relabels.next() => say(&id, outcome),
        }
    }
}

/// Answers the questions that can be answered; gives back the others, but for those whose asker has left.
fn answer(pods: &Pods, waiting: Vec<Asker>) -> Vec<Asker> {
    let mut unanswered = Vec::new();
    for asker in waiting {
        match pods.find(&asker.pod) {
            // The asker may have left in this moment.
            Some(pod) => drop(asker.reply.send(pods.identity(pod))),
            None if asker.reply.is_closed() => {}
            None => unanswered.push(asker),
        }
    }
    unanswered
}

/// Brings these endpoints up to date with their pods.
async fn describe(
    pods: &Pods,
    endpoints: impl IntoIterator<Item = WorkloadEndpoint>,
    ipam: &Ipam,
    acl: &Acl,
    relabels: &mut Relabels,
) {
    for endpoint in endpoints {
        if let Some(pod) = pods.find(&endpoint.pod).filter(|pod| !is_described(&endpoint, pod)) {
            let described = publish(endpoint, facts::description(pod), ipam).await;
            relabels.begin(described, acl.clone());
        }
    }
}

fn key(pod: &PodRef) -> NamespacedName {
    NamespacedName { namespace: pod.namespace.clone(), name: pod.name.clone() }
}

fn is_described(endpoint: &WorkloadEndpoint, pod: &Pod) -> bool {
    endpoint.labels == pod.labels && endpoint.ports == pod.ports && endpoint.finished == pod.finished
}

#[cfg(test)]
mod tests;
