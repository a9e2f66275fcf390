use std::path::Path;

use tokio::sync::mpsc;
use tokio::sync::mpsc::{Receiver, Sender};
use types::policy::Labels;
use types::{NamespacedName, Pod, PodRef, Update};

use super::*;
use crate::policy::pods::{self, Identities, Question};
use crate::testing::{self, World, id, pod, reference, soon, tier, until};

fn attachments(world: &World, identities: Identities) -> Attachments {
    testing::attachments(world, identities, Path::new("/nowhere"))
}

/// The binary's end, and the conversation at the other.
fn conversation(attachments: &Attachments) -> (UnixStream, impl Future<Output = ()> + use<>) {
    let (binary, agent) = UnixStream::pair().unwrap();
    (binary, attachments.clone().converse(agent))
}

fn attach(id: &EndpointId, pod: PodRef, labels: Labels) -> Request {
    let (id, protocol, ports) = (id.clone(), cni::PROTOCOL, Vec::new());
    Request::Attach(Attach { protocol, id, pod, labels, ports, maps_host_ports: true, addresses_for: None })
}

async fn ask(binary: &mut UnixStream, request: &Request) -> Reply {
    send(binary, request).await.unwrap();
    // Its patience is not tested here, and a clock that goes on by itself would end it.
    read(binary).await.unwrap()
}

/// A DEL from its beginning to its end.
async fn delete(attachments: &Attachments, id: &EndpointId) {
    let (mut binary, conversation) = conversation(attachments);
    let detach = Request::Detach(Detach { protocol: cni::PROTOCOL, id: id.clone() });
    let script = async {
        assert!(matches!(ask(&mut binary, &detach).await, Reply::Park(_)));
        assert_eq!(ask(&mut binary, &Request::Parked).await, Reply::Done);
    };
    soon(async { tokio::join!(conversation, script) }).await;
}

#[tokio::test]
async fn an_attachment_is_there_from_its_answer_to_its_del() {
    let world = World::new().await;
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    let (mut binary, conversation) = conversation(&attachments);
    let script = async {
        let request = attach(&id, reference("a", None), tier("db"));
        assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
        world.wire(&id);
        assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
    };
    soon(async { tokio::join!(conversation, script) }).await;
    assert_eq!(world.ipam.endpoints().await.len(), 1);
    assert_eq!(world.routes.view().await.unwrap().local, 1);
    assert_eq!(world.acl.show(id.clone()).await.unwrap().labels, tier("db"));
    delete(&attachments, &id).await;
    assert!(world.is_gone(&id).await);
}

#[tokio::test]
async fn routes_and_journal_do_not_wait_for_the_pods_end_but_the_attachment_stays_only_if_the_binary_says_its_last_word()
 {
    let world = World::new().await;
    let attachments = attachments(&world, Identities::Stated);
    for (container, last_word) in [("aaa1", true), ("bbb2", false)] {
        let id = id(container);
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let reply = ask(&mut binary, &attach(&id, reference("a", None), tier("db"))).await;
            let Reply::Wire(wire) = reply else { panic!("{reply:?}") };
            assert!(wire.hears_made);
            world.wire(&id);
            assert_eq!(ask(&mut binary, &Request::Made).await, Reply::Done);
            assert!(world.ipam.endpoint(id.clone()).await.is_some());
            assert!(world.acl.show(id.clone()).await.is_some());
            assert_eq!(world.routes.view().await.unwrap().local, 1);
            if last_word {
                send(&mut binary, &Request::Wired).await.unwrap();
            }
            drop(binary);
        };
        soon(async { tokio::join!(conversation, script) }).await;
        if last_word {
            assert_eq!(world.ipam.endpoints().await.len(), 1);
            delete(&attachments, &id).await;
        }
        assert!(world.is_gone(&id).await, "{container}");
    }
}

#[tokio::test]
async fn policy_that_does_not_come_into_force_in_time_refuses_the_pod_and_leaves_nothing() {
    let world = World::new().await;
    world.fail_restores();
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    let (mut binary, conversation) = conversation(&attachments);
    let script = async {
        let request = attach(&id, reference("a", None), tier("db"));
        assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
        world.wire(&id);
        until(async || !world.acl.readiness().borrow().is_empty()).await;
        // The clock goes on by itself from here, to whatever is waited for.
        tokio::time::pause();
        let reply = ask(&mut binary, &Request::Wired).await;
        let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
        assert_eq!(refused.code, code::TRY_AGAIN);
        let told = refused.msg;
        assert!(told.starts_with("policies of endpoint manx/aaa1/eth0 are not in force after 10 s; "), "{told}");
        assert!(told.contains("rules cannot be changed"), "{told}");
        // Before the binary hears it.
        assert!(world.is_gone(&id).await);
        tokio::time::resume();
    };
    tokio::join!(conversation, script);
    delete(&attachments, &id).await;
    assert!(world.is_gone(&id).await);
}

#[tokio::test]
async fn a_binary_that_leaves_takes_its_attachment_with_it() {
    let world = World::new().await;
    world.fail_restores();
    let attachments = attachments(&world, Identities::Stated);
    for (container, wired) in [("aaa1", false), ("bbb2", true)] {
        let id = id(container);
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let request = attach(&id, reference("a", None), tier("db"));
            assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
            world.wire(&id);
            if wired {
                send(&mut binary, &Request::Wired).await.unwrap();
                until(async || world.acl.show(id.clone()).await.is_some()).await;
            }
            drop(binary);
        };
        soon(async { tokio::join!(conversation, script) }).await;
        assert!(world.is_gone(&id).await, "{container}");
    }
}

#[tokio::test]
async fn a_binary_that_speaks_out_of_turn_is_undone() {
    let world = World::new().await;
    world.fail_restores();
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    let (mut binary, conversation) = conversation(&attachments);
    let script = async {
        let request = attach(&id, reference("a", None), tier("db"));
        assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
        send(&mut binary, &Request::Wired).await.unwrap();
        send(&mut binary, &Request::Wired).await.unwrap();
        assert!(read::<Reply>(&mut binary).await.is_err());
    };
    soon(async { tokio::join!(conversation, script) }).await;
    assert!(world.is_gone(&id).await);
}

/// The channels of the task that knows pods.
type Known = Update<NamespacedName, Pod>;

fn channels() -> (Sender<Known>, Receiver<Known>, Identities, Receiver<Question>) {
    let (updates, told) = mpsc::channel(pods::QUEUED_QUESTIONS);
    let (questions, asked) = mpsc::channel(pods::QUEUED_QUESTIONS);
    (updates, told, Identities::Kubernetes(questions), asked)
}

#[tokio::test]
async fn labels_that_change_while_the_binary_wires_are_not_lost() {
    let world = World::new().await;
    let (updates, told, identities, asked) = channels();
    let (attachments, id) = (attachments(&world, identities.clone()), id("aaa1"));
    let task = pods::follow(told, asked, world.ipam.clone(), world.acl.clone());
    let (mut binary, conversation) = conversation(&attachments);
    let (key, web) = pod("a", "u1", tier("web"));
    let script = async {
        updates.send(Update::Set(key.clone(), web.clone())).await.unwrap();
        let request = attach(&id, web.reference.clone(), Labels::new());
        assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
        world.wire(&id);
        let ended = Pod { labels: tier("db"), finished: true, ..web.clone() };
        updates.send(Update::Set(key, ended)).await.unwrap();
        let stated = || Description { labels: Labels::new(), ports: Vec::new(), finished: false };
        let known = async || identities.of(&web.reference, stated()).await.unwrap().description.finished;
        until(known).await;
        // With one more answer the task is done with the change.
        assert!(known().await);
        assert_eq!(world.acl.show(id.clone()).await.unwrap().labels, tier("web"));
        assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
        until(async || world.acl.show(id.clone()).await.unwrap().labels == tier("db")).await;
        let endpoint = world.ipam.endpoint(id.clone()).await.unwrap();
        assert!(endpoint.finished && endpoint.labels == tier("db"));
    };
    let talk = soon(async { tokio::join!(conversation, script) });
    tokio::select! {
        () = task => panic!("the task has ended"),
        _ = talk => {}
    }
}

#[tokio::test]
async fn a_pod_that_the_api_server_has_not_told_of_is_tried_again() {
    let world = World::new().await;
    let (updates, told, identities, asked) = channels();
    let (attachments, id) = (attachments(&world, identities), id("aaa1"));
    let task = pods::follow(told, asked, world.ipam.clone(), world.acl.clone());
    let (mut binary, conversation) = conversation(&attachments);
    let script = async {
        let (key, old) = pod("a", "old", tier("web"));
        updates.send(Update::Set(key, old)).await.unwrap();
        tokio::time::pause();
        let reply = ask(&mut binary, &attach(&id, reference("a", Some("new")), Labels::new())).await;
        let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
        assert_eq!(refused.code, code::TRY_AGAIN);
    };
    tokio::select! {
        () = task => panic!("the task has ended"),
        _ = async { tokio::join!(conversation, script) } => {}
    }
    assert!(world.is_gone(&id).await);
}

/// An ADD from its beginning to its end.
async fn add(world: &World, attachments: &Attachments, id: &EndpointId) {
    let (mut binary, conversation) = conversation(attachments);
    let script = async {
        let request = attach(id, reference("a", None), tier("web"));
        assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
        world.wire(id);
        assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
    };
    soon(async { tokio::join!(conversation, script) }).await;
}

#[tokio::test]
async fn a_del_that_fails_brings_nothing_back_that_another_del_took() {
    let world = World::new().await;
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    add(&world, &attachments, &id).await;
    let detach = Request::Detach(Detach { protocol: cni::PROTOCOL, id: id.clone() });
    let (mut first, one) = conversation(&attachments);
    let (mut second, two) = conversation(&attachments);
    let script = async {
        assert!(matches!(ask(&mut first, &detach).await, Reply::Park(_)));
        send(&mut second, &detach).await.unwrap();
        // The second has its turn only when the first is done; if it were heard before, this is where it would end.
        let early = tokio::time::timeout(Duration::from_millis(50), read::<Reply>(&mut second)).await;
        if early.is_ok() {
            assert_eq!(ask(&mut second, &Request::Parked).await, Reply::Done);
            drop(first);
            return;
        }
        drop(first);
        assert!(matches!(read(&mut second).await.unwrap(), Reply::Park(_)));
        assert_eq!(ask(&mut second, &Request::Parked).await, Reply::Done);
    };
    soon(async { tokio::join!(one, two, script) }).await;
    assert!(world.is_gone(&id).await);
}

#[tokio::test]
async fn a_request_whose_binary_has_left_meanwhile_changes_nothing() {
    let world = World::new().await;
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    let turn = attachments.turns.at(&id.host_interface()).await;
    let detach = Request::Detach(Detach { protocol: cni::PROTOCOL, id: id.clone() });
    let (mut late, conversation_of_late) = conversation(&attachments);
    send(&mut late, &detach).await.unwrap();
    drop(late);
    let script = async {
        // As if the agent had been stopped: the runtime has given up and begun anew before the DEL is looked at.
        tokio::task::yield_now().await;
        drop(turn);
    };
    soon(async { tokio::join!(conversation_of_late, script) }).await;
    world.kernel.take_route_changes();
    add(&world, &attachments, &id).await;
    let (mut late, conversation_of_late) = conversation(&attachments);
    send(&mut late, &detach).await.unwrap();
    drop(late);
    world.kernel.take_route_changes();
    soon(conversation_of_late).await;
    assert_eq!(world.kernel.take_route_changes(), []);
    assert!(world.ipam.endpoint(id).await.is_some());
}

#[tokio::test]
async fn an_add_of_what_serves_a_pod_is_refused_and_one_of_remains_begins_anew() {
    let world = World::new().await;
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    add(&world, &attachments, &id).await;
    let (mut binary, talk) = conversation(&attachments);
    let script = async { ask(&mut binary, &attach(&id, reference("a", None), tier("web"))).await };
    let ((), reply) = soon(async { tokio::join!(talk, script) }).await;
    let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
    assert_eq!(refused.code, code::AGENT);
    assert!(refused.msg.contains("manx/aaa1/eth0 is attached already"), "{refused}");
    assert!(world.ipam.endpoint(id.clone()).await.is_some());
    assert_eq!(world.routes.view().await.unwrap().local, 1);

    let mut kernel = world.kernel.clone();
    let link = kernel::Kernel::link(&mut kernel, &id.host_interface()).unwrap().unwrap();
    kernel.remove_link(link.index);
    add(&world, &attachments, &id).await;
    assert_eq!(world.ipam.endpoints().await.len(), 1);
    assert_eq!(world.routes.view().await.unwrap().local, 1);
}

#[tokio::test]
async fn addresses_for_another_plugin_are_held_without_link_and_route_and_its_pod_is_a_peer() {
    let world = World::new().await;
    let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
    let request = || {
        let Request::Attach(attach) = attach(&id, reference("a", None), tier("web")) else { unreachable!() };
        Request::Attach(Attach { addresses_for: Some(LinkKind::PointToPoint), maps_host_ports: false, ..attach })
    };
    let (mut binary, talk) = conversation(&attachments);
    let script = async {
        let Reply::Wire(wire) = ask(&mut binary, &request()).await else { panic!("no addresses") };
        assert_eq!((wire.addresses.len(), wire.subnets.len()), (1, 1));
        assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
    };
    soon(async { tokio::join!(talk, script) }).await;
    assert_eq!(world.routes.view().await.unwrap().local, 0);
    assert_eq!(world.acl.show(id.clone()).await.unwrap().labels, tier("web"));
    // Nothing that looks for links takes it for dead.
    super::super::vanished::look(&attachments).await;
    assert_eq!(world.ipam.reconcile_kernel(std::collections::BTreeSet::new()).await.unwrap(), []);
    assert!(attachments.verify(&id).await.is_ok());

    // A second ADD does not give its addresses to another.
    let (mut binary, talk) = conversation(&attachments);
    let script = async { ask(&mut binary, &request()).await };
    let ((), reply) = soon(async { tokio::join!(talk, script) }).await;
    let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
    assert!(refused.msg.contains("delete it first"), "{refused}");

    // A DEL that is cut off brings no route of a link that never was.
    let detach = Request::Detach(Detach { protocol: cni::PROTOCOL, id: id.clone() });
    let (mut cut, talk) = conversation(&attachments);
    let script = async {
        assert!(matches!(ask(&mut cut, &detach).await, Reply::Park(_)));
        drop(cut);
    };
    soon(async { tokio::join!(talk, script) }).await;
    assert_eq!(world.routes.view().await.unwrap().local, 0);
    assert!(world.ipam.endpoint(id.clone()).await.is_some());
    delete(&attachments, &id).await;
    assert!(world.is_gone(&id).await);
}

#[tokio::test]
async fn a_second_sandbox_of_a_pod_keeps_what_it_has_when_the_first_goes_late() {
    let world = World::new().await;
    let (updates, told, identities, asked) = channels();
    let attachments = attachments(&world, identities);
    let task = pods::follow(told, asked, world.ipam.clone(), world.acl.clone());
    let (old, new) = (id("aaa1"), id("bbb2"));
    let (key, first) = pod("a", "u1", tier("web"));
    // The same name with another UID, as of a StatefulSet's pod that was deleted and made anew.
    let (_, second) = pod("a", "u2", tier("web"));
    let attach_one = async |id: &EndpointId, pod: &Pod| {
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let request = attach(id, pod.reference.clone(), Labels::new());
            assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
            world.wire(id);
            assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
        };
        soon(async { tokio::join!(conversation, script) }).await;
    };
    let script = async {
        updates.send(Update::Set(key.clone(), first.clone())).await.unwrap();
        attach_one(&old, &first).await;
        updates.send(Update::Set(key.clone(), second.clone())).await.unwrap();
        attach_one(&new, &second).await;
        let addresses =
            async |id: &EndpointId| world.ipam.endpoint(id.clone()).await.map(|endpoint| endpoint.addresses);
        assert_ne!(addresses(&old).await, addresses(&new).await);
        // What the pod is now is said of its new sandbox, and not of the one of the pod that is no more.
        updates.send(Update::Set(key.clone(), Pod { labels: tier("db"), ..second.clone() })).await.unwrap();
        until(async || world.acl.show(new.clone()).await.unwrap().labels == tier("db")).await;
        assert_eq!(world.acl.show(old.clone()).await.unwrap().labels, tier("web"));
        let held = addresses(&new).await;
        delete(&attachments, &old).await;
        assert!(world.acl.show(old.clone()).await.is_none() && addresses(&old).await.is_none());
        assert_eq!((addresses(&new).await, world.routes.view().await.unwrap().local), (held, 1));
        assert_eq!(world.acl.show(new.clone()).await.unwrap().labels, tier("db"));
        // Its DEL comes once more, as kubelet sends it.
        delete(&attachments, &old).await;
        assert!(attachments.verify(&new).await.is_ok());
    };
    tokio::select! {
        () = task => panic!("the task has ended"),
        () = script => {}
    }
}
