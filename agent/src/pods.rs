//! Who the pods of this node are: under Kubernetes as the API server has them, else as the runtime's configuration says.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use felix::acl::{Acl, AclError};
use felix::policy::{EndpointFacts, PolicyUpdate};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipam::{Description, Ipam};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use types::{EndpointId, NamespacedName, Pod, PodRef, Update, WorkloadEndpoint};

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

/// What attachments ask of the task.
#[derive(Debug)]
pub(crate) enum Question {
    /// Who the pod is, as soon as it is known.
    Who(Asker),
    /// To describe an endpoint that is complete now as its pod has become while it was not. Needs no answer.
    Attached(EndpointId),
}

/// An ADD that waits for its pod.
#[derive(Debug)]
pub(crate) struct Asker {
    pod: PodRef,
    reply: oneshot::Sender<Description>,
}

impl Identities {
    /// What is known of the pod that the runtime names; none: the API server knows no such pod (yet).
    pub(crate) async fn of(&self, pod: &PodRef, stated: Description) -> Option<Description> {
        let Self::Kubernetes(questions) = self else { return Some(stated) };
        let (reply, answer) = oneshot::channel();
        questions.send(Question::Who(Asker { pod: pod.clone(), reply })).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
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
pub(crate) struct Pods {
    known: BTreeMap<NamespacedName, Pod>,
    /// Pods not named again since the last restart of the watch.
    unconfirmed: Option<BTreeSet<NamespacedName>>,
}

impl Pods {
    /// Takes an update in; gives it as policy is to hear of it. A pod in the node's network is none to it.
    fn apply(&mut self, update: Update<NamespacedName, Pod>) -> Update<NamespacedName, EndpointFacts> {
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
        self.known.get(&key(reference)).filter(|pod| pod.is_meant_by(reference))
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
            Some(pod) => drop(asker.reply.send(description(pod))),
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
            let described = publish(endpoint, description(pod), ipam).await;
            relabels.begin(described, acl.clone());
        }
    }
}

/// Gives an endpoint another description: publishes it to the other nodes, then tells policy here and returns when that is
/// in force, which takes as long as iptables fails.
pub(crate) async fn redescribe(endpoint: WorkloadEndpoint, description: Description, ipam: &Ipam, acl: &Acl) {
    let described = publish(endpoint, description, ipam).await;
    let id = described.id.clone();
    say(&id, acl.relabel(id.clone(), facts(described)).await);
}

async fn publish(endpoint: WorkloadEndpoint, description: Description, ipam: &Ipam) -> WorkloadEndpoint {
    let Description { labels, ports, finished } = description.clone();
    let described = WorkloadEndpoint { labels, ports, finished, ..endpoint };
    if let Err(error) = ipam.describe(described.id.clone(), description).await {
        warn!(endpoint = %described.id, %error, "changed labels are not published");
    }
    described
}

fn say(endpoint: &EndpointId, relabelled: Result<(), AclError>) {
    if let Err(error) = relabelled {
        warn!(%endpoint, %error, "policy of a pod with changed labels is not in force yet");
    }
}

/// Relabels that are not in force yet, for as long as iptables fails. At most one an endpoint: the last says it all.
#[derive(Default)]
struct Relabels(BTreeMap<EndpointId, BoxFuture<'static, Result<(), AclError>>>);

impl Relabels {
    /// Takes the place of the endpoint's earlier one: policy hears that one before this or never, and answers it no more.
    fn begin(&mut self, endpoint: WorkloadEndpoint, acl: Acl) {
        let id = endpoint.id.clone();
        let relabel = async move { acl.relabel(endpoint.id.clone(), facts(endpoint)).await };
        self.0.insert(id, relabel.boxed());
    }

    /// Carries all on until one is done; without any, for ever.
    async fn next(&mut self) -> (EndpointId, Result<(), AclError>) {
        poll_fn(|context| {
            // All are polled, and not only those that were woken: there are fewer than a node has pods.
            let done = self.0.iter_mut().find_map(|(id, relabel)| match relabel.poll_unpin(context) {
                Poll::Ready(outcome) => Some((id.clone(), outcome)),
                Poll::Pending => None,
            });
            let Some((id, outcome)) = done else { return Poll::Pending };
            self.0.remove(&id);
            Poll::Ready((id, outcome))
        })
        .await
    }
}

fn key(pod: &PodRef) -> NamespacedName {
    NamespacedName { namespace: pod.namespace.clone(), name: pod.name.clone() }
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

#[cfg(test)]
mod tests {
    use ipam::Request;
    use types::EndpointPort;
    use types::policy::Protocol;

    use super::*;
    use crate::testing::{self, World, id, pod, reference, soon, tier, until};

    fn known(pods: impl IntoIterator<Item = (NamespacedName, Pod)>) -> Pods {
        let mut known = Pods::default();
        for (key, pod) in pods {
            known.apply(Update::Set(key, pod));
        }
        known
    }

    fn asker(name: &str, uid: Option<&str>) -> (Asker, oneshot::Receiver<Description>) {
        let (reply, answer) = oneshot::channel();
        (Asker { pod: reference(name, uid), reply }, answer)
    }

    #[test]
    fn a_pod_is_found_by_its_uid_and_a_static_one_by_its_hash() {
        let mut fixed = pod("static", "u2", tier("node"));
        fixed.1.config_hash = Some("h2".to_owned());
        let pods = known([pod("a", "u1", tier("web")), fixed]);
        for (name, uid) in [("a", Some("u1")), ("a", None), ("static", Some("u2")), ("static", Some("h2"))] {
            assert!(pods.find(&reference(name, uid)).is_some(), "{name} {uid:?}");
        }
        for (name, uid) in
            [("a", Some("u0")), ("a", Some("h2")), ("static", Some("u1")), ("b", Some("u1")), ("b", None)]
        {
            assert!(pods.find(&reference(name, uid)).is_none(), "{name} {uid:?}");
        }
    }

    #[test]
    fn an_add_waits_for_the_pod_of_its_uid() {
        let mut pods = known([pod("a", "old", tier("web"))]);
        let (asker, mut told) = asker("a", Some("new"));
        let waiting = answer(&pods, vec![asker]);
        assert!(waiting.len() == 1 && told.try_recv().is_err(), "an earlier pod of the name is another");

        let (key, mut pod) = pod("a", "new", tier("db"));
        pod.ports = vec![EndpointPort { name: "sql".to_owned(), protocol: Protocol::Tcp, port: 5432 }];
        pods.apply(Update::Set(key, pod.clone()));
        assert!(answer(&pods, waiting).is_empty());
        let description = Description { labels: tier("db"), ports: pod.ports, finished: false };
        assert_eq!(told.try_recv().unwrap(), description);
    }

    #[test]
    fn who_has_left_is_not_remembered() {
        let pods = Pods::default();
        let (gone, answer_of_gone) = asker("a", None);
        let (stays, _answer) = asker("a", None);
        drop(answer_of_gone);
        let waiting = answer(&pods, vec![gone, stays]);
        assert_eq!(waiting.len(), 1);
        assert!(!waiting[0].reply.is_closed());
    }

    #[test]
    fn policy_expects_pods_that_have_a_network_of_their_own_and_hears_of_their_end() {
        let mut pods = Pods::default();
        let (key, running) = pod("a", "u1", tier("web"));
        let Update::Set(_, facts) = pods.apply(Update::Set(key.clone(), running.clone())) else { panic!() };
        assert_eq!((facts.name.as_str(), &facts.labels, facts.finished), ("a", &tier("web"), false));

        let ended = Pod { finished: true, ..running.clone() };
        let Update::Set(_, facts) = pods.apply(Update::Set(key.clone(), ended)) else { panic!() };
        assert!(facts.finished);
        assert!(description(pods.find(&reference("a", Some("u1"))).unwrap()).finished);

        let host = Pod { host_network: true, ..running };
        assert_eq!(pods.apply(Update::Set(key.clone(), host)), Update::Delete(key.clone()));
        assert_eq!(pods.apply(Update::Delete(key.clone())), Update::Delete(key));
        assert!(pods.find(&reference("a", None)).is_none());
    }

    #[test]
    fn what_a_new_listing_does_not_name_is_gone_when_it_is_complete() {
        let mut pods = known([pod("a", "u1", tier("web")), pod("b", "u2", tier("web"))]);
        assert_eq!(pods.apply(Update::Restart), Update::Restart);
        let (key, again) = pod("b", "u2", tier("db"));
        pods.apply(Update::Set(key, again));
        assert!(pods.find(&reference("a", Some("u1"))).is_some(), "until then it may be named");
        assert_eq!(pods.apply(Update::InSync), Update::InSync);
        assert!(pods.find(&reference("a", Some("u1"))).is_none());
        assert_eq!(pods.find(&reference("b", Some("u2"))).unwrap().labels, tier("db"));
        // Without a listing under way nobody is in doubt.
        pods.apply(Update::InSync);
        assert!(pods.find(&reference("b", Some("u2"))).is_some());
    }

    /// An endpoint of a pod, complete and under its policies.
    async fn attached(world: &World, container: &str, pod: &Pod) -> EndpointId {
        let id = id(container);
        let request = Request { pod: pod.reference.clone(), labels: pod.labels.clone(), ports: Vec::new() };
        let endpoint = world.ipam.reserve(id.clone(), request).await.unwrap();
        soon(world.acl.attach(id.clone(), facts(endpoint))).await.unwrap();
        world.ipam.commit(id.clone()).await.unwrap();
        id
    }

    async fn labels(world: &World, id: &EndpointId) -> types::policy::Labels {
        world.acl.show(id.clone()).await.unwrap().labels
    }

    #[tokio::test]
    async fn a_relabel_that_cannot_come_into_force_holds_nobody_up() {
        let world = World::new().await;
        let (updates, told) = mpsc::channel(QUESTIONS);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let identities = Identities::Kubernetes(questions);
        let stated = || Description { labels: tier("none"), ports: Vec::new(), finished: false };
        let task = follow(told, asked, world.ipam.clone(), world.acl.clone());
        let script = async {
            let (key, web) = pod("a", "u1", tier("web"));
            let id = attached(&world, "aaa1", &web).await;
            world.fail_restores();
            updates.send(Update::Set(key.clone(), Pod { labels: tier("db"), ..web.clone() })).await.unwrap();
            until(async || labels(&world, &id).await == tier("db")).await;
            assert!(!world.acl.view().await.unwrap().is_settled, "the rules of its new class are not in the kernel");

            // Another pod's ADD, and a further change of the first pod.
            let (other_key, other) = pod("b", "u2", tier("web"));
            updates.send(Update::Set(other_key, other)).await.unwrap();
            let known = soon(identities.of(&reference("b", Some("u2")), stated())).await.unwrap();
            assert_eq!(known.labels, tier("web"));
            updates.send(Update::Set(key, Pod { finished: true, labels: tier("cache"), ..web })).await.unwrap();
            until(async || labels(&world, &id).await == tier("cache")).await;
            let endpoint = world.ipam.endpoint(id.clone()).await.unwrap();
            assert!(
                endpoint.finished && endpoint.labels == tier("cache"),
                "what is published does not wait for iptables"
            );
        };
        tokio::select! {
            () = task => panic!("the task has ended"),
            () = script => {}
        }
    }

    #[tokio::test]
    async fn one_relabel_an_endpoint_is_under_way_the_last() {
        let world = World::new().await;
        let (_, web) = pod("a", "u1", tier("web"));
        let id = attached(&world, "aaa1", &web).await;
        let endpoint = world.ipam.endpoint(id.clone()).await.unwrap();
        world.fail_restores();
        let mut relabels = Relabels::default();
        let db = |version: &str| tier("db").into_iter().chain([("version".to_owned(), version.to_owned())]).collect();
        for version in ["1", "2", "3"] {
            relabels.begin(WorkloadEndpoint { labels: db(version), ..endpoint.clone() }, world.acl.clone());
            assert!(relabels.next().now_or_never().is_none());
            assert_eq!(relabels.0.len(), 1);
        }
        assert_eq!(labels(&world, &id).await, db("3"));
        world.filter.heal();
        let (done, outcome) = soon(relabels.next()).await;
        assert_eq!((done, outcome), (id, Ok(())));
        assert!(relabels.0.is_empty() && relabels.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_change_that_comes_before_the_endpoint_is_complete_is_made_up_for() {
        let world = World::new().await;
        let (updates, told) = mpsc::channel(QUESTIONS);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let identities = Identities::Kubernetes(questions);
        let task = follow(told, asked, world.ipam.clone(), world.acl.clone());
        let script = async {
            let (key, web) = pod("a", "u1", tier("web"));
            let ended = Pod { finished: true, labels: tier("db"), ..web.clone() };
            updates.send(Update::Set(key, ended)).await.unwrap();
            let stated = || Description { labels: tier("none"), ports: Vec::new(), finished: false };
            // With the second answer the task is done with what came before the first.
            for _ in 0..2 {
                identities.of(&web.reference, stated()).await.unwrap();
            }
            let id = attached(&world, "aaa1", &web).await;
            assert_eq!(labels(&world, &id).await, tier("web"));
            identities.attached(id.clone()).await;
            until(async || labels(&world, &id).await == tier("db")).await;
            assert!(world.ipam.endpoint(id).await.unwrap().finished);
            // One that is gone again is none of its business.
            identities.attached(testing::id("bbb2")).await;
            assert!(identities.of(&web.reference, stated()).await.is_some());
        };
        tokio::select! {
            () = task => panic!("the task has ended"),
            () = script => {}
        }
    }
}
