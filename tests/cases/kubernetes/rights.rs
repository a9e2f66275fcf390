//! The agents are granted the rights that they use, and no others.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Cluster, LabError, Peering, Place, TestResult, wait_for};

use crate::{SOON, host_ports, pods, shared};

/// The user name with which the agents ask the API server.
const AGENTS: &str = "system:serviceaccount:manx-system:manx-agent";

/// A pool for Services, whose addresses the fabric learns, and a session that waits for its password.
const ADDRESSES: &str = "\
{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default},
 spec: {nodeToNodeMeshEnabled: false, serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: services},
 spec: {cidr: 203.0.113.0/24, allowedUses: [LoadBalancer]}}
---
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: locked},
 spec: {node: node1, peerIP: 198.51.100.1, asNumber: 64999, password: {secretKeyRef: {name: bgp-secrets, key: rack1}}}}
";

/// A right that is used or granted: a verb, a group of the API, and a resource.
type Right = (String, String, String);

#[test]
fn agents_are_refused_nothing_and_have_no_right_too_many() -> TestResult {
    let Some(cluster) = shared::alone("rights")? else { return Ok(()) };
    cluster.apply_resources(ADDRESSES)?;
    host_ports::switch_on(&cluster, "20000-20009")?;
    let done = use_every_right(&cluster, &cluster.namespace);
    host_ports::switch_off(&cluster)?;
    cluster.peer(Peering::RackAs)?;
    cluster.manxctl("node1", &["delete", "ippools", "services"])?;
    cluster.manxctl("node1", &["delete", "bgppeers", "locked"])?;
    done
}

fn use_every_right(cluster: &Cluster, namespace: &str) -> TestResult {
    pods::start(cluster, namespace, &[("web", "node1")])?;
    cluster.apply(&host_ports::asks(namespace, "open", &[("TCP", 8080)]).to_string())?;
    // Which nodes announce this Service depends on where its endpoints are.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": namespace },
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    });
    cluster.apply(&service.to_string())?;
    // The Node object is like that of a node that registers with it.
    cluster.kubectl(&["taint", "node", "node3", "manx.io/agent-not-ready=:NoSchedule"])?;
    wait_for("the address of the service", SOON, || {
        let service = cluster.get(&["service", "-n", namespace, "web"]).map_err(|error| error.to_string())?;
        let address = service.pointer("/status/loadBalancer/ingress/0/ip").and_then(Value::as_str);
        if address.is_some_and(|address| address.starts_with("203.0.113.")) { Ok(()) } else { Err(service.to_string()) }
    })?;
    wait_for("the end of the startup taint", SOON, || {
        let node = cluster.get(&["node", "node3"]).map_err(|error| error.to_string())?;
        let taints = node["spec"]["taints"].to_string();
        if taints.contains("manx.io/agent-not-ready") { Err(taints) } else { Ok(()) }
    })?;
    a_foreign_configuration_is_told_while_it_is_there(cluster)?;
    let granted = granted(cluster)?;
    wait_for("every right being used", SOON, || {
        let (used, _) = used_and_refused(cluster).map_err(|error| error.to_string())?;
        let unused: Vec<&Right> = granted.difference(&used).collect();
        if unused.is_empty() { Ok(()) } else { Err(format!("granted, but not used is {unused:?}")) }
    })?;
    let (used, refused) = used_and_refused(cluster)?;
    let from_elsewhere: Vec<&Right> = used.difference(&granted).collect();
    assert!(from_elsewhere.is_empty(), "allowed, but not granted by the role is {from_elsewhere:?}");
    // An API server that has just started refuses even what is granted until it has read the roles.
    let refused: Vec<&Right> = refused.difference(&granted).collect();
    assert!(refused.is_empty(), "refused was {refused:?}");
    Ok(())
}

/// The file of another network that comes first is told by the node's status, its readiness and an Event on the Node, which takes
/// the rights to make, change and delete Events.
fn a_foreign_configuration_is_told_while_it_is_there(cluster: &Cluster) -> TestResult {
    const NODE: &str = "node3";
    let machine = cluster.node(NODE);
    let events = || {
        let fields =
            format!("--field-selector=involvedObject.kind=Node,involvedObject.name={NODE},reason=CNIConfiguration");
        let events = cluster.get(&["events", "-n", "default", &fields]).map_err(|error| error.to_string())?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        Ok::<_, String>(
            events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(),
        )
    };
    // The file goes whatever comes of it.
    let done = ["10-flannel.conflist", "05-other.conflist"].into_iter().try_for_each(|name| {
        machine
            .shell(&format!(r#"echo '{{"name": "cbr0", "plugins": [{{"type": "ptp"}}]}}' >/etc/cni/net.d/{name}"#))?;
        wait_for(&format!("an Event that names {name}"), SOON, || match events()?.as_slice() {
            [one] if one.contains(name) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let status = cluster.manxctl(NODE, &["node", "status"])?;
        assert!(status.contains("(NOT READY)") && status.contains(name), "{status}");
        Ok::<_, Box<dyn std::error::Error>>(())
    });
    machine.shell("rm -f /etc/cni/net.d/10-flannel.conflist /etc/cni/net.d/05-other.conflist")?;
    done?;
    wait_for("the end of the Event", SOON, || match events()?.as_slice() {
        [] => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    Ok(cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?)
}

/// The rights that the agents have used, and those that they were refused, since the cluster came up.
fn used_and_refused(cluster: &Cluster) -> Result<(BTreeSet<Right>, BTreeSet<Right>), LabError> {
    let (mut used, mut refused) = (BTreeSet::new(), BTreeSet::new());
    // The last line may not be complete yet.
    for event in cluster.control_plane().audit_log()?.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        let event: Value = event;
        if event["user"]["username"] == AGENTS {
            let rights = if event["responseStatus"]["code"] == 403 { &mut refused } else { &mut used };
            rights.extend(right(&event));
        }
    }
    Ok((used, refused))
}

/// The rights that the agents' roles grant, in the cluster, in their own namespace, and where Events on Nodes are.
fn granted(cluster: &Cluster) -> Result<BTreeSet<Right>, LabError> {
    let role = |namespace| cluster.get(&["role", "-n", namespace, "manx-agent"]);
    let roles = [cluster.get(&["clusterrole", "manx-agent"])?, role("manx-system")?, role("default")?];
    let rules = roles.iter().filter_map(|role| role["rules"].as_array()).flatten();
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                let right = |verb| (verb, group.clone(), resource.clone());
                rights.extend(texts(rule, "verbs").into_iter().map(right));
            }
        }
    }
    Ok(rights)
}

/// The right that a request takes; none if the request is not about an object.
fn right(event: &Value) -> Option<Right> {
    let object = &event["objectRef"];
    let text = |key: &str| object[key].as_str().map(str::to_owned);
    let resource = text("resource")?;
    let resource = text("subresource").map_or_else(|| resource.clone(), |part| format!("{resource}/{part}"));
    Some((event["verb"].as_str()?.to_owned(), text("apiGroup").unwrap_or_default(), resource))
}
