//! Host ports that the node chooses, as docs/host-ports.md says: how they are asked for, told, reached, kept and given back.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use tests::{Cluster, Component, LabError, Place, TestResult, wait_for};

use crate::pods::{server, start, wait_ready};
use crate::{SOON, shared};

/// The node of the pods, and a node of the other rack.
const HERE: &str = "node1";
const THERE: &str = "node2";

/// Two ports of each protocol.
const RANGE: &str = "20000-20001";

/// The ports on which a pod serves HTTP, and answers to datagrams.
const HTTP: u16 = 8080;
const DATAGRAMS: u16 = 8081;

#[test]
fn a_pod_gets_free_ports_of_its_node_and_keeps_them_as_long_as_its_sandbox() -> TestResult {
    let Some(cluster) = shared::alone("hostports")? else { return Ok(()) };
    switch_on(&cluster, RANGE)?;
    let done = live(&cluster, &cluster.namespace);
    switch_off(&cluster)?;
    done
}

fn live(cluster: &Cluster, namespace: &str) -> TestResult {
    cluster.apply(&asks(namespace, "game", &[("TCP", HTTP), ("UDP", DATAGRAMS)]).to_string())?;
    start(cluster, namespace, &[("far", THERE), ("near", HERE)])?;
    wait_ready(cluster, namespace, &["game"])?;
    let told = told(cluster, namespace, "game", |_| true)?;
    let ports: Vec<_> = told.iter().map(|port| (port.container, port.protocol.as_str())).collect();
    assert_eq!(ports, [(HTTP, "TCP"), (DATAGRAMS, "UDP")]);
    assert!(told.iter().all(|port| port.addresses.len() == 2), "of both families: {told:?}");
    is_reached(cluster, namespace, "game", &told)?;

    agents_may_write_no_more_than_this(cluster, namespace)?;
    the_last_port_goes_to_one_of_two(cluster, namespace)?;

    // The agent is replaced.
    let agent = cluster.agent_pod(HERE)?;
    cluster.kubectl(&["delete", "pod", "-n", "manx-system", &agent])?;
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;
    is_reached(cluster, namespace, "game", &told)?;

    a_new_sandbox_has_ports_while_the_api_server_is_away(cluster, namespace, &told)?;

    cluster.kubectl(&["delete", "pod", "-n", namespace, "game", "first", "second", "--ignore-not-found"])?;
    wait_for("nothing being left of host ports", SOON, || {
        let left =
            "ls /run/manx/mapped; iptables-save -t nat | grep CNI-DN-; ip6tables-save -t nat | grep CNI-DN-; true";
        let left = cluster.node(HERE).shell(left).map_err(|error| error.to_string())?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    })?;
    Ok(())
}

/// One is left after the first pod. Who comes too late is refused by name, and starts when it is given back.
fn the_last_port_goes_to_one_of_two(cluster: &Cluster, namespace: &str) -> TestResult {
    for name in ["first", "second"] {
        cluster.apply(&asks(namespace, name, &[("TCP", HTTP)]).to_string())?;
    }
    let refused = "no host port of 20000-20001 is free for container port 8080/TCP (hostPorts.range)";
    let mut late = String::new();
    wait_for("one of two pods being refused", SOON, || {
        let events = cluster.get(&["events", "-n", namespace]).map_err(|error| error.to_string())?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let event = events.iter().find(|event| event["message"].as_str().is_some_and(|text| text.contains(refused)));
        let event = event.ok_or_else(|| format!("{events:?}"))?;
        late = event["involvedObject"]["name"].as_str().unwrap_or_default().to_owned();
        Ok::<_, String>(())
    })?;
    let won = if late == "first" { "second" } else { "first" };
    wait_ready(cluster, namespace, &[won])?;
    let given = told(cluster, namespace, won, |_| true)?;
    is_reached(cluster, namespace, won, &given)?;
    cluster.kubectl(&["delete", "pod", "-n", namespace, won])?;
    wait_ready(cluster, namespace, &[&late])?;
    let after = told(cluster, namespace, &late, |_| true)?;
    assert_eq!(after[0].host, given[0].host, "there is no other");
    is_reached(cluster, namespace, &late, &after)?;
    cluster.kubectl(&["delete", "pod", "-n", namespace, &late])?;
    Ok(())
}

/// DEL and ADD need no API server, and what is told afterwards is true.
fn a_new_sandbox_has_ports_while_the_api_server_is_away(
    cluster: &Cluster,
    namespace: &str,
    before: &[Told],
) -> TestResult {
    let control = cluster.control_plane();
    let machine = cluster.node(HERE);
    // The network of each record is named after the sandbox.
    let record = || machine.shell("cat /run/manx/mapped/*");
    let old = record()?;
    // Scheduler and controllers end when they cannot renew their leases.
    let away = [Component::Scheduler, Component::Controllers, Component::Apiserver];
    away.into_iter().try_for_each(|component| control.stop(component))?;
    let filter = "labels.\"io.kubernetes.pod.name\"==game,labels.\"io.cri-containerd.kind\"==sandbox";
    let done = machine
        .exec(&["ctr", "--namespace", "k8s.io", "containers", "list", "--quiet", filter])
        .and_then(|sandbox| {
            machine.exec(&["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", sandbox.trim()])
        })
        .and_then(|_| {
            wait_for("host ports of a new sandbox", SOON, || match record() {
                Ok(new) if !new.trim().is_empty() && new != old => Ok(()),
                other => Err(format!("{other:?}")),
            })
        });
    away.into_iter().rev().try_for_each(|component| control.start(component))?;
    control.wait_ready(|words| cluster.kubectl(words))?;
    done?;
    // The Pod object says for a while yet that the container of before is ready.
    wait_for("the container in the new sandbox", SOON, || cluster.pod(namespace, "game").map(drop))?;
    // There are no other ports than those that the sandbox before had.
    let after = told(cluster, namespace, "game", |after| after == before)?;
    is_reached(cluster, namespace, "game", &after)
}

/// What the role allows is more than that; the admission policy says no.
fn agents_may_write_no_more_than_this(cluster: &Cluster, namespace: &str) -> TestResult {
    // kubectl reads what it patches, which agents may not.
    cluster.kubectl(&["create", "role", "-n", namespace, "reader", "--verb=get", "--resource=pods"])?;
    let agents = "--serviceaccount=manx-system:manx-agent";
    cluster.kubectl(&["create", "rolebinding", "-n", namespace, "reader", "--role=reader", agents])?;
    let as_agent_of = |node: Option<&str>, pod: &str, patch: &Value| {
        let (patch, node) =
            (patch.to_string(), node.map(|node| format!("authentication.kubernetes.io/node-name={node}")));
        let mut line = vec!["patch", "pod", "-n", namespace, pod, "--type=merge", "-p", &patch];
        line.push("--as=system:serviceaccount:manx-system:manx-agent");
        if let Some(node) = &node {
            line.extend(["--as-user-extra", node]);
        }
        cluster.try_kubectl(&line)
    };
    let annotates = |key: &str| json!({ "metadata": { "annotations": { key: "[]" } } });
    let labels = json!({ "metadata": { "labels": { "app": "other" } } });
    // Few fields of a running pod's specification can be changed at all; this is one.
    let deadline = json!({ "spec": { "activeDeadlineSeconds": 100_000 } });
    // This pod has no host ports, so that its annotation is nobody's.
    for (node, patch, is_allowed) in [
        (Some(HERE), &annotates("manx.io/hostports"), true),
        (Some(THERE), &annotates("manx.io/hostports"), false),
        (None, &annotates("manx.io/hostports"), false),
        (Some(HERE), &annotates("manx.io/hostport"), false),
        (Some(HERE), &labels, false),
        (Some(HERE), &deadline, false),
    ] {
        let output = as_agent_of(node, "near", patch)?;
        assert_eq!(output.status.success(), is_allowed, "{node:?} {patch}: {output:?}");
        assert!(is_allowed || output.stderr.contains("manx-agent-pods"), "{output:?}");
    }
    Ok(())
}

/// A container port as the annotation tells of it.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    container: u16,
    protocol: String,
    host: u16,
    addresses: Vec<IpAddr>,
}

/// What is told on a pod, as soon as it is what is wanted.
fn told(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    is_wanted: impl Fn(&[Told]) -> bool,
) -> Result<Vec<Told>, LabError> {
    let mut found = Vec::new();
    wait_for(&format!("the annotation of {pod}"), SOON, || {
        let object = cluster.get(&["pod", "-n", namespace, pod]).map_err(|error| error.to_string())?;
        let annotations = &object["metadata"]["annotations"];
        let text = annotations["manx.io/hostports"].as_str().ok_or_else(|| annotations.to_string())?;
        let list: Vec<Value> = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
        let port = |item: &Value| {
            let number = |key: &str| u16::try_from(item[key].as_u64()?).ok();
            let addresses = item["hostIPs"].as_array()?.iter().map(|address| address.as_str()?.parse().ok());
            Some(Told {
                container: number("containerPort")?,
                protocol: item["protocol"].as_str()?.to_owned(),
                host: number("hostPort")?,
                addresses: addresses.collect::<Option<_>>()?,
            })
        };
        found = list.iter().map(port).collect::<Option<Vec<_>>>().ok_or_else(|| text.to_owned())?;
        if !found.is_empty() && is_wanted(&found) { Ok(()) } else { Err(text.to_owned()) }
    })?;
    Ok(found)
}

/// Waits until every host port leads to the pod: from outside, from another node's pod, from the node, and from the pod itself.
fn is_reached(cluster: &Cluster, namespace: &str, pod: &str, told: &[Told]) -> TestResult {
    let (far, itself) = (cluster.pod(namespace, "far")?, cluster.pod(namespace, pod)?);
    let from: [&dyn Place; 4] = [cluster.external_host(), &far, cluster.node(HERE), &itself];
    for place in from {
        for port in told {
            for address in &port.addresses {
                let target = SocketAddr::new(*address, port.host);
                let way = format!("{}/{} from {}", target, port.protocol, place.name());
                wait_for(&way, SOON, || {
                    let answer = if port.protocol == "UDP" {
                        datagram(place, target).map_err(|error| error.to_string())?
                    } else {
                        place.http_get(target, "/hostname").map_err(|error| error.to_string())?.body
                    };
                    if answer.trim() == pod { Ok(()) } else { Err(answer) }
                })?;
            }
        }
    }
    Ok(())
}

/// Asks the server for its name by a datagram.
fn datagram(from: &dyn Place, to: SocketAddr) -> Result<String, LabError> {
    let (address, port) = (to.ip(), to.port());
    let line = format!("exec 3<>/dev/udp/{address}/{port}; echo -n hostname >&3; timeout 2 head -c 4 <&3");
    from.exec(&["bash", "-c", &line])
}

/// A server on the node that asks for host ports of all that it declares.
pub(crate) fn asks(namespace: &str, name: &str, ports: &[(&str, u16)]) -> Value {
    let mut pod = server(namespace, name, HERE);
    pod["metadata"]["annotations"] = json!({ "manx.io/hostport": "auto" });
    let ports = ports.iter().map(|(protocol, port)| json!({ "containerPort": port, "protocol": protocol }));
    pod["spec"]["containers"][0]["ports"] = ports.collect();
    pod["spec"]["containers"][0]["args"] = json!(["netexec", "--http-port=8080", "--udp-port=8081"]);
    pod
}

/// Sets the range, as an operator does by `agent.env`.
pub(crate) fn switch_on(cluster: &Cluster, range: &str) -> TestResult {
    set(cluster, &format!("MANX_HOST_PORTS_RANGE={range}"))
}

/// Takes it off again.
pub(crate) fn switch_off(cluster: &Cluster) -> TestResult {
    set(cluster, "MANX_HOST_PORTS_RANGE-")
}

fn set(cluster: &Cluster, variable: &str) -> TestResult {
    cluster.kubectl(&["set", "env", "-n", "manx-system", "daemonset/manx-agent", "-c", "agent", variable])?;
    Ok(cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?)
}
