//! NetworkPolicy as the API server has it: the real one, with agents on two nodes.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::reach::Question;
use tests::{Apiserver, CONVERGENCE, CniError, Flood, LabError, Place, Pod, PodSpec, Sink, TestResult};
use tests::{wait_for, wait_until};
use types::Family;
use types::policy::Protocol;

use super::watched::{ALLOWED, Cast, WatchedNodes, admitting, friends};
use super::world::{at, next_addresses, udp};

/// A port that no policy admits to.
const FORBIDDEN: u16 = 9000;

/// The CNI error code "try again later" (CNI spec section 5, "Error").
const TRY_AGAIN: u32 = 11;

/// The error code with which the plugin refused an ADD.
fn code(refused: &LabError) -> Option<u32> {
    match refused {
        LabError::Cni(error) => error.code(),
        _ => None,
    }
}

#[test]
fn what_the_api_server_says_of_policies_namespaces_and_pods_is_in_force_on_both_nodes_and_follows_its_changes()
-> TestResult {
    let Some((mut cluster, cast)) = WatchedNodes::with_pods("apifollow")? else { return Ok(()) };
    let Cast { server, friend, stranger } = &cast;
    let passes = |cluster: &WatchedNodes, from: &Pod, passes: bool| {
        Family::ALL.into_iter().try_for_each(|family| cluster.world.converges(from, udp(server, family, 80), passes))
    };
    // Labels that the runtime claims count for nothing.
    let told = cluster.client.create_pod("node2", &PodSpec::in_namespace("x", "liar"))?;
    let liar = cluster.world.plug("node2", told.label("friend", "yes"))?;
    passes(&cluster, &liar, false)?;
    // Now the labels of a pod change.
    cluster.label("namespaces/x/pods/liar", "friend", Some("yes"))?;
    passes(&cluster, &liar, true)?;
    cluster.label("namespaces/x/pods/liar", "friend", Some("no"))?;
    passes(&cluster, &liar, false)?;
    cluster.label("namespaces/x/pods/friend", "friend", None)?;
    passes(&cluster, friend, false)?;
    cluster.label("namespaces/x/pods/friend", "friend", Some("yes"))?;
    passes(&cluster, friend, true)?;
    // Now the labels of a namespace change.
    let red = json!({ "namespaceSelector": { "matchLabels": { "team": "red" } } });
    cluster.policy("PUT", "friends", &admitting(&json!([friends(), red])))?;
    cluster.label("namespaces/y", "team", Some("red"))?;
    passes(&cluster, stranger, true)?;
    cluster.label("namespaces/y", "team", Some("blue"))?;
    passes(&cluster, stranger, false)?;
    passes(&cluster, friend, true)?;
    // Now the labels of the pod that the policy is for change.
    cluster.label("namespaces/x/pods/server", "role", None)?;
    passes(&cluster, stranger, true)?;
    cluster.label("namespaces/x/pods/server", "role", Some("server"))?;
    cluster.only_friends_pass(&cast)?;
    // Now the policy names a port by its name in the pod.
    let web = json!([{ "protocol": "UDP", "port": "web" }]);
    let spec = json!({ "podSelector": { "matchLabels": { "role": "server" } },
                       "ingress": [{ "from": [friends()], "ports": web }] });
    cluster.policy("PUT", "friends", &spec)?;
    for family in Family::ALL {
        cluster.world.converges(friend, udp(server, family, 81), true)?;
        cluster.world.converges(friend, udp(server, family, 80), false)?;
        cluster.world.converges(stranger, udp(server, family, 81), false)?;
    }
    cluster.delete_policy("friends")?;
    for family in Family::ALL {
        for port in [80, 81] {
            cluster.world.converges(stranger, udp(server, family, port), true)?;
        }
    }
    cluster.world.lab.down()?;
    Ok(())
}

#[test]
fn a_pod_that_is_plugged_in_has_the_policy_of_its_pod_object_from_its_first_packet_on() -> TestResult {
    let Some((mut cluster, cast)) = WatchedNodes::with_pods("apifirst")? else { return Ok(()) };
    let mut last = cast.stranger.clone();
    for round in 0..3 {
        let guesses = next_addresses(&last, 3);
        let forbidden = Flood::start(&cast.stranger, &at(&guesses, FORBIDDEN), 500)?;
        let allowed = Flood::start(&cast.friend, &at(&guesses, ALLOWED), 200)?;
        // The labels stand nowhere except in the object.
        let spec = PodSpec::in_namespace("x", &format!("new{round}")).label("role", "server");
        let told = cluster.client.create_pod("node2", &spec)?;
        let node = cluster.world.node("node2");
        let sandbox = node.sandbox(told)?;
        let (closed, welcome) = (Sink::start(&sandbox, FORBIDDEN)?, Sink::start(&sandbox, ALLOWED)?);
        let pod = node.plug_sandbox(&sandbox)?;
        for address in pod.addresses() {
            assert!(guesses.contains(address), "{address} was flooded too late: {guesses:?}");
        }
        wait_until("what is allowed arriving in both families", CONVERGENCE, || {
            welcome.by_source().len() == 2 && welcome.count() > 200
        })?;
        assert_eq!(closed.by_source(), [].into(), "a forbidden packet reached the pod");
        assert!(forbidden.finish() > 0 && allowed.finish() > 0);
        last = pod;
    }
    cluster.world.lab.down()?;
    Ok(())
}

#[test]
fn a_pod_that_has_ended_is_nobody_s_friend_any_more() -> TestResult {
    let Some((mut cluster, cast)) = WatchedNodes::with_pods("apiended")? else { return Ok(()) };
    let Cast { server, friend, .. } = &cast;
    let other = cluster.plug("node2", &PodSpec::in_namespace("x", "other").label("friend", "yes"))?;
    for (phase, ended) in [("Succeeded", friend), ("Failed", &other)] {
        cluster.world.converges(ended, udp(server, Family::Ipv4, 80), true)?;
        let name = ended.name();
        let name = name.rsplit('.').next().unwrap_or_default();
        let change = json!({ "status": { "phase": phase } });
        cluster.call("PATCH", &format!("/api/v1/namespaces/x/pods/{name}/status"), &change)?;
        for family in Family::ALL {
            cluster.world.converges(ended, udp(server, family, 80), false)?;
        }
        if phase == "Succeeded" {
            cluster.world.converges(&other, udp(server, Family::Ipv4, 80), true)?;
        }
    }
    cluster.world.lab.down()?;
    Ok(())
}

#[test]
fn an_add_waits_for_its_pod_object_and_without_it_is_to_be_tried_again_and_leaves_nothing() -> TestResult {
    let Some(mut cluster) = WatchedNodes::up("apiunknown")? else { return Ok(()) };
    cluster.namespace("x")?;
    let node = cluster.world.lab.node("node1");
    let left = || {
        let links = node.exec(&["ip", "-o", "link"])?;
        let links: Vec<_> = links.lines().filter(|line| line.contains(": mx")).map(str::to_owned).collect();
        let endpoints = node.agent().ctl(&["get", "workloadendpoints", "--all-namespaces", "-o", "json"])?;
        let routes =
            node.shell("ip route show proto 77 dev lo; ip -4 route show proto 77; ip -6 route show proto 77")?;
        let routes = routes.lines().filter(|route| route.contains("dev mx")).map(str::to_owned).collect::<Vec<_>>();
        Ok::<_, LabError>((links, endpoints.trim().to_owned(), routes))
    };
    let nothing = (Vec::new(), "[]".to_owned(), Vec::new());
    assert_eq!(left()?, nothing);
    // The API server does not know the first pod, has bound the second to the other node, and has another pod of the
    // third's name.
    let elsewhere = cluster.client.create_pod("node2", &PodSpec::in_namespace("x", "elsewhere"))?;
    let server = cluster.client.create_pod("node1", &PodSpec::in_namespace("x", "server"))?;
    let other = "00000000-1111-2222-3333-444444444444";
    for spec in [PodSpec::in_namespace("x", "unknown").uid(other), elsewhere, server.uid(other)] {
        let sandbox = node.sandbox(spec)?;
        let (runtime, attachment, begun) = (node.runtime()?, sandbox.attachment(), Instant::now());
        let refused = runtime.add(&attachment);
        let waited = begun.elapsed();
        // This looks before the DEL that a runtime calls next.
        assert_eq!(left()?, nothing);
        let Err(refused @ CniError::Refused { .. }) = refused else { panic!("not refused: {refused:?}") };
        assert_eq!(refused.code(), Some(TRY_AGAIN), "{refused}");
        assert!(refused.to_string().contains(&sandbox.spec().name), "{refused}");
        assert!(waited > Duration::from_secs(4), "it did not wait: {waited:?}");
        runtime.del(&attachment)?;
        sandbox.delete()?;
    }
    // The runtime may be ahead of the watch: the object comes while ADD waits.
    let sandbox = node.sandbox(PodSpec::in_namespace("x", "late"))?;
    let (plugged, made) = thread::scope(|scope| {
        let add = scope.spawn(|| node.plug_sandbox(&sandbox));
        let asking = wait_until("ADD asking the agent", CONVERGENCE, || {
            let connections = node.exec(&["ss", "-xH", "state", "established"]);
            connections.is_ok_and(|connections| connections.contains("cni.sock"))
        });
        let made = cluster.client.create_pod("node1", &PodSpec::in_namespace("x", "late"));
        (add.join(), asking.map(|()| made))
    });
    made??;
    plugged.map_err(|_| "the thread panicked")??;
    // An operator can look in these places.
    let (links, endpoints, routes) = left()?;
    assert!(links.len() == 1 && endpoints.contains("late") && routes.len() >= 2, "{links:?} {endpoints} {routes:?}");
    cluster.world.lab.down()?;
    Ok(())
}

#[test]
fn pods_are_told_by_uid_those_of_one_name_and_static_ones_among_them() -> TestResult {
    let Some((mut cluster, cast)) = WatchedNodes::with_pods("apiuid")? else { return Ok(()) };
    // The first pod of the name is open, the second governed: what is known of the first is not taken for the second.
    let spec = PodSpec::in_namespace("x", "again");
    let first = cluster.plug("node1", &spec)?;
    cluster.world.converges(&cast.stranger, udp(&first, Family::Ipv4, 80), true)?;
    cluster.world.unplug("x.again")?;
    let now = json!({ "gracePeriodSeconds": 0 });
    cluster.call("DELETE", "/api/v1/namespaces/x/pods/again", &now)?;
    let second = cluster.client.create_pod("node1", &spec.label("role", "server"))?;
    let second = cluster.world.plug("node1", second)?;
    // This is a static pod: the runtime knows it by a hash, the API server by another UID, with that hash in an
    // annotation.
    let hash = "7c1d5f2b9a4e4c0d8f6b3a2e1d0c9b8a";
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "static", "labels": { "role": "server" },
                      "annotations": { "kubernetes.io/config.hash": hash } },
        "spec": { "nodeName": "node1", "containers": [{ "name": "c", "image": "i" }] },
    });
    cluster.call("POST", "/api/v1/namespaces/x/pods", &object)?;
    let fixed = cluster.world.plug("node1", PodSpec::in_namespace("x", "static").uid(hash))?;
    for pod in [&second, &fixed] {
        for family in Family::ALL {
            cluster.world.converges(&cast.friend, udp(pod, family, 80), true)?;
            cluster.world.converges(&cast.stranger, udp(pod, family, 80), false)?;
        }
    }
    cluster.world.lab.down()?;
    Ok(())
}

#[test]
fn while_the_api_server_is_away_its_last_policies_stay_in_force_over_restarts_and_are_followed_again_after()
-> TestResult {
    let Some((mut cluster, cast)) = WatchedNodes::with_pods("apiaway")? else { return Ok(()) };
    let Cast { server, friend, stranger } = &cast;
    let role = |name: &str| PodSpec::in_namespace("x", name).label("role", "server");
    // These pods are plugged in later; once the agent has plugged in one that was made after them, it has heard of
    // them.
    let (known, again) =
        (cluster.client.create_pod("node1", &role("known"))?, cluster.client.create_pod("node1", &role("again"))?);
    cluster.plug("node1", &PodSpec::in_namespace("y", "after"))?;

    let (closed, welcome) = (Sink::start(server, FORBIDDEN)?, Sink::start(server, ALLOWED)?);
    let forbidden = Flood::start(stranger, &at(server.addresses(), FORBIDDEN), 500)?;
    let wrong = Flood::start(stranger, &at(server.addresses(), ALLOWED), 500)?;
    let allowed = Flood::start(friend, &at(server.addresses(), ALLOWED), 200)?;
    let goes_on = |what: &str| {
        let before = welcome.count();
        wait_until(&format!("the friend's packets {what}"), CONVERGENCE, || welcome.count() > before + 200)
    };
    goes_on("before")?;

    Apiserver::on(cluster.world.node("etcd")).stop()?;
    for node in ["node1", "node2"] {
        wait_for(&format!("{node} telling what it does not follow"), CONVERGENCE, || {
            let said = cluster.status(node);
            let all = ["networkpolicies", "namespaces", "pods"];
            if all.iter().all(|kind| said.contains(&format!("{kind} are not followed"))) { Ok(()) } else { Err(said) }
        })?;
    }
    goes_on("without the API server")?;
    for (known, restarted) in [(known, false), (again, true)] {
        if restarted {
            for node in cluster.world.lab.manx_nodes() {
                node.agent().kill9()?;
                node.agent().start_with(&[("MANX_KUBERNETES", "/etc/manx/kubeconfig")])?;
            }
            for node in cluster.world.lab.manx_nodes() {
                node.agent().wait_ready(CONVERGENCE)?;
            }
        }
        cluster.only_friends_pass(&cast)?;
        // A pod that the API server told of before it went away has its policy; a pod that it did not tell of is not
        // let in.
        let pod = cluster.world.plug("node1", known)?;
        for family in Family::ALL {
            cluster.world.converges(friend, udp(&pod, family, 80), true)?;
            cluster.world.converges(stranger, udp(&pod, family, 80), false)?;
        }
        let refused = cluster.world.node("node1").plug_pod(PodSpec::in_namespace("x", "unknown"));
        let Err(refused) = refused else { panic!("an unknown pod was plugged in") };
        assert_eq!(code(&refused), Some(TRY_AGAIN), "{refused}");
        goes_on("after that")?;
    }
    assert!(forbidden.finish() + wrong.finish() > 3_000);
    assert_eq!(closed.by_source(), [].into(), "forbidden packets passed while the API server was away");
    let from_strangers = |sink: &Sink| stranger.addresses().iter().any(|own| sink.by_source().contains_key(own));
    assert!(!from_strangers(&welcome), "the stranger passed while the API server was away");
    assert!(allowed.finish() > 0);

    cluster.client = Apiserver::start(cluster.world.node("etcd"))?.client()?;
    cluster.policy("PUT", "friends", &admitting(&json!([{ "namespaceSelector": {} }])))?;
    for family in Family::ALL {
        cluster.world.converges(stranger, udp(server, family, 80), true)?;
        cluster.world.converges(stranger, udp(server, family, 81), false)?;
    }
    for node in ["node1", "node2"] {
        wait_for(&format!("{node} having no complaint"), CONVERGENCE, || {
            let said = cluster.status(node);
            if said.contains("not followed") { Err(said) } else { Ok(()) }
        })?;
    }
    // This pod was made since then.
    let new = cluster.plug("node1", &PodSpec::in_namespace("x", "new"))?;
    cluster.world.converges(stranger, Question::new(Protocol::Tcp, new.address(Family::Ipv4), 80), true)?;
    cluster.world.lab.down()?;
    Ok(())
}
