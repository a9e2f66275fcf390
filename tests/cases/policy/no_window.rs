//! There is no moment at which a pod under a policy is open: neither when it is plugged in, nor while its agent is
//! away.

use std::net::SocketAddr;

use serde_json::json;
use tests::{
    CONVERGENCE, CniError, Flood, LabError, Node, Place, PodSpec, Probe, Sink, TestResult, can_run_labs, wait_until,
};
use types::Family;

use super::world::{OUTSIDE, World, at, default_deny, next_addresses, udp};

/// A port that no policy admits to.
const FORBIDDEN: u16 = 9000;
/// The port that friends may send to.
const ALLOWED: u16 = 9001;

/// How many datagrams must have been sent in vain before the test may say that none passes.
const IN_VAIN: u64 = 3_000;

/// Pods of the namespace `x` take and send nothing but what goes between friends among them on one port.
fn isolated(test: &str) -> Result<World, Box<dyn std::error::Error>> {
    let mut world = World::up(test)?;
    world.namespace("x", &[])?;
    world.policy("x", "default-deny", default_deny(&["Ingress", "Egress"]))?;
    let friends = json!([{ "podSelector": { "matchLabels": { "friend": "yes" } } }]);
    let ports = json!([{ "protocol": "UDP", "port": ALLOWED }]);
    world.policy(
        "x",
        "friends",
        json!({
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": friends, "ports": ports }], "egress": [{ "to": friends, "ports": ports }],
        }),
    )?;
    world.plug("node1", PodSpec::in_namespace("x", "friend").label("friend", "yes"))?;
    world.plug("node1", PodSpec::in_namespace("y", "stranger"))?;
    world.plug("node2", PodSpec::in_namespace("y", "far"))?;
    Ok(world)
}

#[test]
fn a_pod_under_default_deny_gets_and_sends_no_forbidden_packet_from_the_moment_its_interface_exists() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = isolated("nowindow")?;
    let (stranger, far) = (world.pod("y.stranger").clone(), world.pod("y.far").clone());
    let mut last = stranger.clone();
    let friend = world.pod("x.friend").clone();
    // The policies are in force once a pod that was there before is closed.
    world.converges(&stranger, udp(&friend, Family::Ipv4, 80), false)?;
    let sinks = [
        Sink::start(&stranger, FORBIDDEN)?,
        Sink::start(&far, FORBIDDEN)?,
        Sink::start(world.node("client"), FORBIDDEN)?,
    ];
    let goals: Vec<SocketAddr> =
        [stranger.addresses(), far.addresses(), &OUTSIDE].into_iter().flat_map(|some| at(some, FORBIDDEN)).collect();
    for round in 0..3 {
        let guesses = next_addresses(&last, 3);
        for guess in &guesses {
            world.host_route("node1", *guess)?;
        }
        let floods = [
            Flood::start(&stranger, &at(&guesses, FORBIDDEN), 500)?,
            Flood::start(&far, &at(&guesses, FORBIDDEN), 500)?,
            Flood::start(world.node("client"), &at(&guesses, FORBIDDEN), 500)?,
        ];
        let allowed = Flood::start(&friend, &at(&guesses, ALLOWED), 200)?;

        let node = world.node("node1");
        let sandbox = node.sandbox(PodSpec::in_namespace("x", &format!("new{round}")).label("friend", "yes"))?;
        let (forbidden, welcome) = (Sink::start(&sandbox, FORBIDDEN)?, Sink::start(&sandbox, ALLOWED)?);
        // The process in the pod sends before the pod has an interface.
        let escape = Flood::start(&sandbox, &goals, 1_000)?;
        let pod = node.plug_sandbox(&sandbox)?;
        for address in pod.addresses() {
            assert!(guesses.contains(address), "{address} was flooded too late: {guesses:?}");
        }
        wait_until("what is allowed arriving in both families", CONVERGENCE, || {
            welcome.by_source().len() == 2 && welcome.count() > 200
        })?;
        assert_eq!(forbidden.by_source(), [].into(), "a forbidden packet reached the pod");
        let escaped = |sink: &Sink| pod.addresses().iter().any(|own| sink.by_source().contains_key(own));
        assert!(!sinks.iter().any(escaped), "a forbidden packet left the pod");
        let sent: u64 = floods.into_iter().map(Flood::finish).sum();
        assert!(sent > 0 && escape.finish() > 0 && allowed.finish() > 0);
        last = pod;
    }
    // The instruments see what passes: without the policies everything arrives.
    let forbidden = Sink::start(&last, FORBIDDEN)?;
    let flood = Flood::start(&far, &at(last.addresses(), FORBIDDEN), 500)?;
    let escape = Flood::start(&last, &goals, 500)?;
    world.delete_policy("x", "friends")?;
    world.delete_policy("x", "default-deny")?;
    wait_until("everything passing without policies", CONVERGENCE, || {
        forbidden.count() > 0
            && sinks.iter().all(|sink| last.addresses().iter().all(|own| sink.by_source().contains_key(own)))
    })?;
    drop((flood, escape));
    world.lab.down()?;
    Ok(())
}

/// How an agent ends before the next one starts.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The agent is killed (SIGKILL).
    Kill,
    /// The agent is asked to end (SIGTERM).
    Terminate,
    /// The agent is killed, and the next one is of another version.
    Upgrade,
}

/// Gives every rule of ours another stamp, at one instant, as if an agent that writes each of them differently had made it.
fn leave_rules_of_another_version(node: &Node) -> TestResult {
    for command in ["iptables", "ip6tables"] {
        for table in ["mangle", "raw", "nat"] {
            let stamped = format!("{command}-save -t {table} | sed 's/manx:[0-9a-f]/manx:7/'");
            node.shell(&format!("{stamped} | {command}-restore -T {table}"))?;
            let left = node.exec(&["sh", "-c", &format!("{command}-save -t {table} | grep -c 'manx:[^7]' || true")])?;
            assert_eq!(left.trim(), "0", "{command} {table}");
        }
    }
    Ok(())
}

#[test]
fn an_agent_killed_stopped_or_upgraded_loses_nothing_allowed_and_lets_nothing_forbidden_pass() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = isolated("policyrestart")?;
    // Peers may use any port, since the probe's echo chooses its own.
    let peers = json!([{ "podSelector": { "matchLabels": { "friend": "yes" } } }]);
    let spec = json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{ "from": peers }], "egress": [{ "to": peers }],
    });
    world.policy("x", "friends", spec)?;
    let server = world.plug("node1", PodSpec::in_namespace("x", "server").label("friend", "yes"))?;
    let near = world.pod("x.friend").clone();
    let far = world.plug("node2", PodSpec::in_namespace("x", "far").label("friend", "yes"))?;
    let (stranger, distant) = (world.pod("y.stranger").clone(), world.pod("y.far").clone());
    for family in Family::ALL {
        for friend in [&near, &far] {
            world.converges(friend, udp(&server, family, 80), true)?;
        }
        for other in [&stranger, &distant] {
            world.converges(other, udp(&server, family, 80), false)?;
        }
    }
    let sink = Sink::start(&server, FORBIDDEN)?;
    let node = world.node("node1");
    for end in [End::Kill, End::Terminate, End::Upgrade] {
        let mut probes = Vec::new();
        for family in Family::ALL {
            for friend in [&near, &far] {
                probes.push(Probe::start(friend, &server, server.address(family), 250)?);
            }
        }
        let targets = at(server.addresses(), FORBIDDEN);
        let floods = [Flood::start(&stranger, &targets, 500)?, Flood::start(&distant, &targets, 500)?];
        match end {
            End::Kill | End::Upgrade => node.agent().kill9()?,
            End::Terminate => node.agent().terminate()?,
        }
        // A flow that begins while there is no agent is judged all the same.
        world.converges(&near, udp(&server, Family::Ipv4, 80), true)?;
        world.converges(&stranger, udp(&server, Family::Ipv4, 80), false)?;
        match end {
            End::Kill | End::Terminate => node.agent().start()?,
            End::Upgrade => {
                leave_rules_of_another_version(node)?;
                // The next agent has another setting for what a pod may send to its node.
                node.agent().start_with(&[("MANX_POLICY_ENDPOINT_TO_HOST", "policed")])?;
            }
        }
        node.agent().wait_ready(CONVERGENCE)?;
        world.converges(&near, udp(&server, Family::Ipv6, 80), true)?;
        world.converges(&distant, udp(&server, Family::Ipv6, 80), false)?;
        for probe in probes {
            let report = probe.finish();
            assert_eq!(report.lost, 0, "{end:?}: {report:?}");
        }
        let sent: u64 = floods.into_iter().map(Flood::finish).sum();
        assert!(sent > 500, "{sent}");
        assert_eq!(sink.count(), 0, "{end:?}: forbidden packets passed");
    }
    world.lab.down()?;
    Ok(())
}

#[test]
fn without_its_agent_a_new_pod_has_no_network_at_all() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let world = isolated("closed")?;
    let node = world.node("node1");
    let stranger = world.pod("y.stranger");
    let sink = Sink::start(stranger, FORBIDDEN)?;
    node.agent().kill9()?;
    let sandbox = node.sandbox(PodSpec::in_namespace("x", "new"))?;
    let escape = Flood::start(&sandbox, &at(stranger.addresses(), FORBIDDEN), 1_000)?;
    let refused = node.plug_sandbox(&sandbox);
    assert!(matches!(&refused, Err(LabError::Cni(error)) if error.code() == Some(11)), "{refused:?}");
    assert!(matches!(refused, Err(LabError::Cni(CniError::Refused { .. }))));
    drop(escape);
    assert_eq!(sink.count(), 0);
    sandbox.delete()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    node.plug_pod(PodSpec::in_namespace("x", "new"))?;
    world.lab.down()?;
    Ok(())
}

#[test]
fn while_etcd_is_away_the_last_policy_stays_in_force_for_old_and_for_new_pods_and_over_a_restart() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = isolated("policynoetcd")?;
    let (stranger, friend, far) =
        (world.pod("y.stranger").clone(), world.pod("x.friend").clone(), world.pod("y.far").clone());
    world.converges(&stranger, udp(&friend, Family::Ipv4, 80), false)?;
    let sink = Sink::start(&friend, FORBIDDEN)?;
    let flood = Flood::start(&far, &at(friend.addresses(), FORBIDDEN), 500)?;
    world.lab.etcd().stop()?;
    for round in ["running", "restarted"] {
        let node = world.node("node1");
        if round == "restarted" {
            node.agent().kill9()?;
            node.agent().start()?;
            node.agent().wait_ready(CONVERGENCE)?;
        }
        let new = world.plug("node1", PodSpec::in_namespace("x", round).label("friend", "yes"))?;
        let welcome = Sink::start(&new, ALLOWED)?;
        let closed = Sink::start(&new, FORBIDDEN)?;
        let floods = [
            Flood::start(&friend, &at(new.addresses(), ALLOWED), 200)?,
            Flood::start(&stranger, &at(new.addresses(), FORBIDDEN), 500)?,
        ];
        wait_until("a new pod's friend reaching it", CONVERGENCE, || welcome.count() > 300)?;
        assert_eq!(closed.count(), 0, "{round}: a new pod was open");
        drop(floods);
    }
    assert!(flood.finish() > IN_VAIN / 10);
    assert_eq!(sink.count(), 0, "forbidden packets passed while etcd was away");
    // When the agent is back, it follows policies again.
    world.lab.etcd().start()?;
    world.delete_policy("x", "default-deny")?;
    world.delete_policy("x", "friends")?;
    world.converges(&far, udp(&friend, Family::Ipv4, 80), true)?;
    world.lab.down()?;
    Ok(())
}
