use types::EndpointPort;
use types::policy::Protocol;

use super::*;
use crate::testing::{self, World, attached, labels, pod, reference, soon, tier, until};

fn known(pods: impl IntoIterator<Item = (NamespacedName, Pod)>) -> Pods {
    let mut known = Pods::default();
    for (key, pod) in pods {
        known.apply(Update::Set(key, pod));
    }
    known
}

fn asker(name: &str, uid: Option<&str>) -> (Asker, oneshot::Receiver<Identity>) {
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
    for (name, uid) in [("a", Some("u0")), ("a", Some("h2")), ("static", Some("u1")), ("b", Some("u1")), ("b", None)] {
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
    assert_eq!(told.try_recv().unwrap().description, description);
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
    assert!(facts::description(pods.find(&reference("a", Some("u1"))).unwrap()).finished);

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

#[tokio::test]
async fn a_relabel_that_cannot_come_into_force_holds_nobody_up() {
    let world = World::new().await;
    let (updates, told) = mpsc::channel(QUEUED_QUESTIONS);
    let (questions, asked) = mpsc::channel(QUEUED_QUESTIONS);
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
        assert_eq!(known.description.labels, tier("web"));
        updates.send(Update::Set(key, Pod { finished: true, labels: tier("cache"), ..web })).await.unwrap();
        until(async || labels(&world, &id).await == tier("cache")).await;
        let endpoint = world.ipam.endpoint(id.clone()).await.unwrap();
        assert!(endpoint.finished && endpoint.labels == tier("cache"), "what is published does not wait for iptables");
    };
    tokio::select! {
        () = task => panic!("the task has ended"),
        () = script => {}
    }
}

#[tokio::test]
async fn a_change_that_comes_before_the_endpoint_is_complete_is_made_up_for() {
    let world = World::new().await;
    let (updates, told) = mpsc::channel(QUEUED_QUESTIONS);
    let (questions, asked) = mpsc::channel(QUEUED_QUESTIONS);
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
