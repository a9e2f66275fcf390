//! What manxctl shows of policies: why a flow is allowed or not, what governs a pod, what is being denied.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{CONVERGENCE, Flood, Node, Place, Pod, Sink, TestResult, can_run_labs, wait_for, wait_until};
use types::Family;

use super::guarded::Guarded;
use super::world::{default_deny, udp};

/// The name of the service that shows denied packets.
const VIEWER: &str = "policy-log";

/// A policy as records and explanations name it.
fn policy(namespace: &str, name: &str) -> Value {
    json!({ "kind": "NetworkPolicy", "namespace": namespace, "name": name })
}

/// Whether a list of policies contains this one.
fn has(policies: &Value, policy: &Value) -> bool {
    policies.as_array().is_some_and(|policies| policies.contains(policy))
}

/// The number of our rules that log, in each family.
fn logging(node: &Node) -> Result<[usize; 2], Box<dyn Error>> {
    let count = |command: &str| {
        let saved = node.exec(&[command])?;
        Ok::<_, tests::LabError>(saved.lines().filter(|rule| rule.contains("-j NFLOG")).count())
    };
    Ok([count("iptables-save")?, count("ip6tables-save")?])
}

fn wait_logging(node: &Node, on: bool) -> TestResult {
    let what = format!("denied packets being {}", if on { "logged" } else { "logged no more" });
    wait_for(&what, CONVERGENCE, || {
        let rules = logging(node).map_err(|error| error.to_string())?;
        if rules.iter().all(|count| (*count > 0) == on) { Ok(()) } else { Err(format!("{rules:?}")) }
    })?;
    Ok(())
}

/// Runs `manxctl policy log` until [`Node::end_service`].
fn view(node: &Node) -> TestResult {
    let mut command = node.command("manxctl");
    command.args(["policy", "log", "--follow", "-o", "json"]);
    node.start_service(VIEWER, command)?;
    wait_logging(node, true)
}

/// The records shown so far. The last line may still be on its way.
fn records(node: &Node) -> Vec<Value> {
    let shown = fs::read_to_string(node.log(VIEWER)).unwrap_or_default();
    shown.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether a packet of this pod was denied for this reason.
fn is_denial(
    record: &Value,
    direction: &str,
    pod: (&str, &str),
    ends: (&Pod, &Pod),
    family: Family,
    by: &Value,
) -> bool {
    record["direction"] == direction
        && (record["pod"]["namespace"] == pod.0 && record["pod"]["name"] == pod.1)
        && record["source"] == json!(ends.0.address(family))
        && record["destination"] == json!(ends.1.address(family))
        && (record["protocol"] == 17 && record["destinationPort"] == 9000)
        && has(&record["policies"], by)
}

#[test]
fn denied_packets_are_shown_with_pod_and_policies_while_somebody_looks_and_no_rule_that_logs_stays() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = Guarded::up("shownlog")?;
    guarded.world.policy("y", "closed", default_deny(&["Egress"]))?;
    for family in Family::ALL {
        for stranger in &guarded.strangers {
            guarded.world.converges(stranger, udp(&guarded.friends[1], family, 80), false)?;
        }
    }
    let (server, [near, _]) = (&guarded.server, &guarded.strangers);
    let far = &guarded.friends[1];
    let node = guarded.node();
    let sink = Sink::start(server, 9000)?;
    let targets: Vec<SocketAddr> = server.addresses().iter().map(|own| (*own, 9000).into()).collect();
    let allowed: Vec<SocketAddr> = server.addresses().iter().map(|own| (*own, 80).into()).collect();
    let floods =
        [Flood::start(near, &targets, 50)?, Flood::start(far, &targets, 50)?, Flood::start(far, &allowed, 50)?];
    assert_eq!(logging(node)?, [0, 0]);

    view(node)?;
    for family in Family::ALL {
        // One packet is denied by the ingress of a pod here, another by the egress of another pod here.
        let (deny, closed) = (policy("x", "deny"), policy("y", "closed"));
        wait_until("what was denied being shown", CONVERGENCE, || {
            let shown = records(node);
            let is_shown =
                |direction, pod, ends, by| shown.iter().any(|one| is_denial(one, direction, pod, ends, family, by));
            is_shown("ingress", ("x", "server"), (far, server), &deny)
                && is_shown("egress", ("y", "stranger-node1"), (near, server), &closed)
        })?;
    }
    // A second viewer looks at the same time, in words; its end takes nothing from the first.
    let words = node.agent().ctl(&["policy", "log", "--seconds", "2"])?;
    assert!(
        words.lines().any(|line| line.contains("ingress of pod x/server: UDP") && line.contains("x/deny")),
        "{words}"
    );
    assert!(logging(node)?.iter().all(|count| *count > 0), "the first viewer lost its log");
    let before = records(node).len();
    wait_until("the first viewer going on", CONVERGENCE, || records(node).len() > before)?;
    let shown = records(node);
    let is_allowed = |record: &&Value| record["destinationPort"] == 80;
    assert_eq!(shown.iter().find(is_allowed), None, "an allowed packet was shown as denied");
    let counted = |pod: &str, direction: &str| {
        let of = format!("pod=\"{pod}\",direction=\"{direction}\"");
        node.agent().metric(&of).is_ok_and(|packets| packets > 0.0)
    };
    assert!(counted("server", "ingress") && counted("stranger-node1", "egress"), "by endpoint and direction");
    assert!(!counted("server", "egress") && !counted("stranger-node1", "ingress"), "nothing was dropped there");
    // Packets of the other node's pods are shown by that node.
    assert!(shown.iter().all(|record| record["pod"]["name"] != "stranger-node2"), "{shown:?}");

    // A shell without job control lets everything that it started in the background ignore SIGINT.
    node.end_service(VIEWER, Signal::SIGTERM)?;
    wait_logging(node, false)?;
    assert!(floods.into_iter().map(Flood::finish).sum::<u64>() > 0);
    assert_eq!(sink.by_source(), [].into(), "looking at it let a forbidden packet through");
    guarded.stands()?;
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_while_somebody_looks_logs_nothing_more_when_it_is_back() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::up("shownkilled")?;
    let node = guarded.node();
    let siege = guarded.besiege()?;
    view(node)?;
    node.agent().kill9()?;
    wait_until("the viewer ending with the agent", CONVERGENCE, || node.check_service(VIEWER).is_err())?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    wait_logging(node, false)?;
    // A viewer who comes back sees records again.
    let before = records(node).len();
    node.end_service(VIEWER, Signal::SIGKILL)?;
    view(node)?;
    wait_until("denied packets being shown again", CONVERGENCE, || records(node).len() > before)?;
    node.end_service(VIEWER, Signal::SIGTERM)?;
    wait_logging(node, false)?;
    siege.failed("looked at");
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn explain_tells_the_verdict_by_its_exit_code_and_names_the_policy_of_the_end_that_decides() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = Guarded::up("shownexplain")?;
    guarded.world.policy("y", "closed", default_deny(&["Egress"]))?;
    for stranger in &guarded.strangers {
        guarded.world.converges(stranger, udp(&guarded.friends[1], Family::Ipv4, 80), false)?;
    }
    let ask = |node: &str, from: &str, to: &str, port: &str, output: &str| {
        let words = ["manxctl", "policy", "explain", from, to, "--protocol", "udp", "--port", port, "-o", output];
        guarded.world.node(node).try_exec(&words)
    };
    // Either node can be asked, about pods of either.
    for node in ["node1", "node2"] {
        for (from, port, code) in [
            ("x/friend-node1", "80", 0),
            ("x/friend-node2", "80", 0),
            ("x/friend-node2", "81", 1),
            ("y/stranger-node1", "80", 1),
            ("y/stranger-node2", "80", 1),
        ] {
            let said = ask(node, from, "x/server", port, "json")?;
            let what = format!("{from} to {port} on {node}: {} {}", said.stdout, said.stderr);
            assert_eq!(said.status.code(), Some(code), "{what}");
            let said: Value = serde_json::from_str(&said.stdout)?;
            let [source, destination] = ["source", "destination"].map(|end| &said[end]["reason"]);
            assert_eq!(said["verdict"], if code == 0 { "allowed" } else { "denied" }, "{what}");
            if code == 0 {
                assert_eq!(destination["because"], "rule", "{what}");
                assert_eq!(destination["policy"], policy("x", "friends"), "{what}");
            } else {
                assert_eq!(destination["because"], "isolated", "{what}");
                assert!(has(&destination["policies"], &policy("x", "deny")), "{what}");
                assert!(has(&destination["policies"], &policy("x", "friends")), "{what}");
            }
            if from.starts_with("y/") {
                assert_eq!(source["because"], "isolated", "{what}");
                assert_eq!(source["policies"], json!([policy("y", "closed")]), "{what}");
            } else {
                assert_ne!(source["because"], "isolated", "{what}");
            }
        }
        let words = ask(node, "y/stranger-node1", "x/server", "80", "table")?.stdout;
        assert!(
            words.starts_with("denied: pod y/stranger-node1 (") && words.contains("isolated by NetworkPolicy"),
            "{words}"
        );
        let words = ask(node, "x/friend-node1", "x/server", "80", "table")?.stdout;
        assert!(
            words.starts_with("allowed: ") && words.contains("NetworkPolicy x/friends, ingress[0], from[0]"),
            "{words}"
        );
        // It is told apart whether there is no answer, or the answer is no.
        let nobody = ask(node, "x/nobody", "x/server", "80", "json")?;
        assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
        assert!(nobody.stderr.contains("x/nobody") && nobody.stdout.is_empty(), "{nobody:?}");
    }
    // A node reaches its own pods; another node's address is like any other.
    let own = ask("node1", "192.0.2.1", "x/server", "9000", "table")?;
    assert!(own.status.code() == Some(0) && own.stdout.contains("a node always reaches its own pods"), "{own:?}");
    assert_eq!(ask("node1", "192.0.2.2", "x/server", "9000", "table")?.status.code(), Some(1));
    guarded.node().agent().kill9()?;
    assert_eq!(ask("node1", "x/friend-node1", "x/server", "80", "json")?.status.code(), Some(2), "without an agent");
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn show_has_the_rules_in_force_for_a_pod_of_the_node_and_follows_them() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = Guarded::up("shownrules")?;
    let show =
        |guarded: &Guarded, output: &str| guarded.node().agent().ctl(&["policy", "show", "x/server", "-o", output]);
    let words = show(&guarded, "table")?;
    let addresses: Vec<_> = guarded.server.addresses().iter().map(ToString::to_string).collect();
    let parts =
        ["Pod x/server", "ingress: governed", "x/deny", "allows nothing", "x/friends", "UDP 80", "egress: open"];
    for part in parts.into_iter().chain(addresses.iter().map(String::as_str)) {
        assert!(words.contains(part), "{part} in {words}");
    }
    let members = |guarded: &Guarded| {
        let shown: Value = serde_json::from_str(&show(guarded, "json").ok()?).ok()?;
        let policies = shown["ingress"]["policies"].as_array()?.clone();
        let friends = policies.into_iter().find(|rules| rules["policy"] == policy("x", "friends"))?;
        friends["rules"][0]["peers"][0]["members"].as_u64()
    };
    assert_eq!(members(&guarded), Some(2), "{}", show(&guarded, "json")?);
    guarded.world.label("x.friend-node2", "friend", None)?;
    wait_until("one friend fewer", CONVERGENCE, || members(&guarded) == Some(1))?;
    guarded.world.delete_policy("x", "friends")?;
    wait_until("the policy gone", CONVERGENCE, || {
        show(&guarded, "table").is_ok_and(|words| words.contains("x/deny") && !words.contains("x/friends"))
    })?;
    guarded.world.delete_policy("x", "deny")?;
    wait_until("nothing governing it", CONVERGENCE, || {
        show(&guarded, "table").is_ok_and(|words| words.contains("ingress: open"))
    })?;
    // What governs a pod of another node is shown by that node.
    let elsewhere = guarded.world.node("node2").agent().ctl(&["policy", "show", "x/server"]);
    let elsewhere = elsewhere.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(elsewhere.contains("node1"), "{elsewhere}");
    guarded.world.lab.down()?;
    Ok(())
}
