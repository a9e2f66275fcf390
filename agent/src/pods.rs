//! Who the pods of this node are: under Kubernetes as the API server has them, else as the runtime's configuration says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use felix::acl::Acl;
use felix::policy::{EndpointFacts, PodKey, PolicyUpdate};
use ipam::{Description, Ipam};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use types::{Pod, PodRef, Update, WorkloadEndpoint};

use crate::peers::facts;

/// How long an ADD waits for its Pod object: the runtime may be ahead of the watch.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions that wait for the task.
pub(crate) const QUESTIONS: usize = 64;

/// Where an ADD learns labels and ports from.
#[derive(Debug, Clone)]
pub(crate) enum Identities {
    /// From the runtime's configuration (`args.cni`).
    Stated,
    /// From Pod objects.
    Kubernetes(mpsc::Sender<Question>),
}

/// Asks for a pod as soon as it is known.
#[derive(Debug)]
pub(crate) struct Question {
    pod: PodRef,
    reply: oneshot::Sender<Description>,
}

impl Identities {
    /// What is known of the pod that the runtime names; none: the API server knows no such pod (yet).
    pub(crate) async fn of(&self, pod: &PodRef, stated: Description) -> Option<Description> {
        let Self::Kubernetes(questions) = self else { return Some(stated) };
        let (reply, answer) = oneshot::channel();
        questions.send(Question { pod: pod.clone(), reply }).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

/// The pods that the API server says are this node's.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    known: BTreeMap<PodKey, Pod>,
    /// Pods not named again since the last restart of the watch.
    unconfirmed: Option<BTreeSet<PodKey>>,
}

impl Pods {
    /// Takes an update in; gives it as policy is to hear of it. A pod in the node's network is none to it.
    fn apply(&mut self, update: Update<PodKey, Pod>) -> Update<PodKey, EndpointFacts> {
        match update {
            Update::Restart => {
                self.unconfirmed = Some(self.known.keys().cloned().collect());
                Update::Restart
            }
            Update::Set(key, pod) => {
                if let Some(unconfirmed) = &mut self.unconfirmed {
                    unconfirmed.remove(&key);
                }
                self.known.insert(key.clone(), pod.clone());
                if pod.host_network { Update::Delete(key) } else { Update::Set(key, expected(pod)) }
            }
            Update::Delete(key) => {
                self.known.remove(&key);
                Update::Delete(key)
            }
            Update::InSync => {
                for key in self.unconfirmed.take().unwrap_or_default() {
                    self.known.remove(&key);
                }
                Update::InSync
            }
        }
    }

    fn find(&self, reference: &PodRef) -> Option<&Pod> {
        let key = PodKey { namespace: reference.namespace.clone(), name: reference.name.clone() };
        self.known.get(&key).filter(|pod| pod.is_meant_by(reference))
    }
}

/// Follows the watch: tells policy, keeps attached endpoints described, answers ADDs.
pub(crate) async fn follow(
    mut updates: mpsc::Receiver<Update<PodKey, Pod>>,
    mut questions: mpsc::Receiver<Question>,
    ipam: Ipam,
    acl: Acl,
) {
    let mut pods = Pods::default();
    let mut waiting: Vec<Question> = Vec::new();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = updates.recv_many(&mut batch, QUESTIONS) => {
                if count == 0 {
                    return;
                }
                let mut touched = BTreeSet::new();
                let mut told = Vec::new();
                for update in batch.drain(..) {
                    match &update {
                        Update::Set(key, _) => {
                            touched.insert(key.clone());
                        }
                        Update::InSync => touched.extend(pods.known.keys().cloned()),
                        Update::Restart | Update::Delete(_) => {}
                    }
                    told.push(PolicyUpdate::Expected(pods.apply(update)));
                }
                // Policy first: the class of a pod that an ADD waits for is then under way.
                acl.update(told).await;
                waiting = answer(&pods, waiting);
                describe(&pods, &touched, &ipam, &acl).await;
            }
            Some(question) = questions.recv() => {
                waiting.push(question);
                waiting = answer(&pods, waiting);
            }
        }
    }
}

/// Answers the questions that can be answered; gives back the others, but for those whose asker has left.
fn answer(pods: &Pods, waiting: Vec<Question>) -> Vec<Question> {
    let mut unanswered = Vec::new();
    for question in waiting {
        match pods.find(&question.pod) {
            // The asker may have left in this moment.
            Some(pod) => drop(question.reply.send(description(pod))),
            None if question.reply.is_closed() => {}
            None => unanswered.push(question),
        }
    }
    unanswered
}

/// Brings the endpoints of these pods up to date.
async fn describe(pods: &Pods, touched: &BTreeSet<PodKey>, ipam: &Ipam, acl: &Acl) {
    if touched.is_empty() {
        return;
    }
    for endpoint in ipam.endpoints().await {
        let Some(pod) = pods.find(&endpoint.pod) else { continue };
        let key = PodKey { namespace: endpoint.pod.namespace.clone(), name: endpoint.pod.name.clone() };
        if touched.contains(&key) && !is_described(&endpoint, pod) {
            let description = description(pod);
            redescribe(endpoint, description, ipam, acl).await;
        }
    }
}

/// Gives an endpoint another description: to policy here and, published, to the other nodes, whichever comes first.
pub(crate) async fn redescribe(endpoint: WorkloadEndpoint, description: Description, ipam: &Ipam, acl: &Acl) {
    let id = endpoint.id.clone();
    let Description { labels, ports, finished } = description.clone();
    let described = WorkloadEndpoint { labels, ports, finished, ..endpoint };
    let (published, relabelled) =
        tokio::join!(ipam.describe(id.clone(), description), acl.relabel(id.clone(), facts(described)));
    if let Err(error) = published {
        warn!(endpoint = %id, %error, "changed labels are not published");
    }
    if let Err(error) = relabelled {
        warn!(endpoint = %id, %error, "policy of a pod with changed labels is not in force yet");
    }
}

fn is_described(endpoint: &WorkloadEndpoint, pod: &Pod) -> bool {
    endpoint.labels == pod.labels && endpoint.ports == pod.ports && endpoint.finished == pod.finished
}

fn description(pod: &Pod) -> Description {
    Description { labels: pod.labels.clone(), ports: pod.ports.clone(), finished: pod.finished }
}

fn expected(pod: Pod) -> EndpointFacts {
    EndpointFacts {
        namespace: pod.reference.namespace,
        name: pod.reference.name,
        labels: pod.labels,
        ports: pod.ports,
        addresses: Vec::new(),
        finished: pod.finished,
    }
}
