//! Truth tables: everybody asks everybody, and the kernel must say what the oracle says, after every step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use oracle::{Exemptions, NamedPort, Phase, PodName, PolicyName, Probe, Protocol, Row, TruthTable, truth_table};
use serde_json::{Value, json};
use tests::reach::{Question, ask_all};
use tests::{Place, PodSpec, TestResult, can_run_labs};
use types::EndpointPort;

use super::world::{OUTSIDE, PORTS, World, default_deny, node_addresses};

/// How long a change may take to take effect everywhere.
const CONVERGENCE: Duration = Duration::from_secs(20);

/// The name that [`World`] gives the host outside.
const HOST: &str = "client";

impl World {
    /// The cluster as the oracle sees it.
    fn as_told(&self) -> oracle::World {
        let spec = |object: &Value| object.get("spec").cloned().unwrap_or_default();
        let pods = self.endpoints.values().map(|endpoint| {
            let port = |port: &EndpointPort| NamedPort {
                name: port.name.clone(),
                protocol: match port.protocol {
                    types::policy::Protocol::Tcp => Protocol::Tcp,
                    types::policy::Protocol::Udp => Protocol::Udp,
                    types::policy::Protocol::Sctp => Protocol::Sctp,
                },
                number: port.port,
            };
            let pod = oracle::Pod {
                labels: endpoint.spec.labels.clone(),
                node: endpoint.node.clone(),
                addresses: endpoint.pod.addresses().to_vec(),
                ports: endpoint.spec.ports.iter().map(port).collect(),
                phase: Phase::Running,
                host_network: false,
            };
            (PodName::new(&endpoint.spec.namespace, &endpoint.spec.name), pod)
        });
        oracle::World {
            namespaces: self.namespaces.clone(),
            nodes: self.lab.manx_nodes().map(|node| (node.name(), node_addresses(&node.name()).to_vec())).collect(),
            pods: pods.collect(),
            externals: [(HOST.to_owned(), OUTSIDE.to_vec())].into(),
            policies: self
                .policies
                .iter()
                .map(|((namespace, name), object)| (PolicyName::new(namespace, name), spec(object)))
                .collect(),
        }
    }

    /// The place of one of the oracle's parties: NAMESPACE/NAME, a node, or the host.
    fn party(&self, name: &str) -> &dyn Place {
        match name.split_once('/') {
            Some((namespace, name)) => self.pod(&PodSpec::in_namespace(namespace, name).sandbox()),
            None => self.lab.node(name),
        }
    }

    /// Waits until the kernel agrees with the oracle on everything, and looks twice more whether it stays so.
    fn agrees(&self, step: &str) -> TestResult {
        let told = self.as_told();
        let ports: Vec<(Protocol, u16)> = PORTS
            .iter()
            .flat_map(|port| [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (protocol, *port)))
            .chain([(Protocol::Icmp, 0)])
            .collect();
        let concerns_a_pod = |probe: &Probe| probe.from.contains('/') || probe.to.contains('/');
        let probes = Probe::all(&told, &ports).into_iter().filter(concerns_a_pod);
        let rows = truth_table(&told, probes, Exemptions::default());
        let (deadline, mut agreed) = (Instant::now() + CONVERGENCE, 0);
        while agreed < 3 {
            let table = self.measure(rows.clone())?;
            let leaks = table.differences().any(|row| !row.expected.allowed);
            if table.differences().next().is_none()
                || (agreed > 0 && !leaks && self.passes_after_all(&table, deadline)?)
            {
                agreed += 1;
            } else if agreed > 0 {
                return Err(
                    format!("{step}: the kernel agreed with the oracle and did not stay so\n{table}{told}").into()
                );
            } else if Instant::now() > deadline {
                return Err(format!(
                    "{step}: the kernel does not agree with the oracle after {CONVERGENCE:?}\n{table}{told}"
                )
                .into());
            }
        }
        Ok(())
    }

    /// Whether every probe that should have passed and did not does so when it is asked again: on a busy machine a
    /// probe can come too late. A probe that passed and should not have has no such excuse.
    fn passes_after_all(&self, table: &TruthTable, deadline: Instant) -> Result<bool, Box<dyn std::error::Error>> {
        let mut late: Vec<Row> = table.differences().cloned().collect();
        while !late.is_empty() && Instant::now() < deadline {
            late = self.measure(late)?.differences().cloned().collect();
        }
        Ok(late.is_empty())
    }

    /// Asks everything once.
    fn measure(&self, rows: Vec<Row>) -> Result<TruthTable, Box<dyn std::error::Error>> {
        let mut by_asker: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in rows {
            by_asker.entry(row.probe.from.clone()).or_default().push(row);
        }
        let asked: Vec<(&dyn Place, Vec<Question>)> =
            by_asker.iter().map(|(asker, rows)| (self.party(asker), rows.iter().map(question).collect())).collect();
        let mut table = TruthTable::default();
        for (rows, verdicts) in by_asker.into_values().zip(ask_all(&asked)?) {
            for (row, verdict) in rows.into_iter().zip(verdicts) {
                if let tests::reach::Verdict::Failed(problem) = &verdict {
                    return Err(
                        format!("{} -> {} {}: {problem}", row.probe.from, row.probe.to, row.probe.packet).into()
                    );
                }
                table.record(row, verdict.passed());
            }
        }
        Ok(table)
    }
}

fn question(row: &Row) -> Question {
    let packet = row.probe.packet;
    Question { protocol: oracle::handover::protocol(packet.protocol), address: packet.destination, port: packet.port }
}

/// Nine pods in three namespaces, over two nodes so that every namespace and every name is on both. The port that is
/// called `web` is another one in every second pod, and none in `c`.
fn nine(test: &str) -> Result<World, Box<dyn std::error::Error>> {
    let mut world = World::up(test)?;
    for (row, namespace) in ["x", "y", "z"].into_iter().enumerate() {
        world.namespace(namespace, &[("ns", namespace)])?;
        for (column, name) in ["a", "b", "c"].into_iter().enumerate() {
            let node = if (row + column) % 2 == 0 { "node1" } else { "node2" };
            world.plug(node, pod(namespace, name))?;
        }
    }
    Ok(world)
}

fn pod(namespace: &str, name: &str) -> PodSpec {
    let spec = PodSpec::in_namespace(namespace, name).label("pod", name);
    let web = |port, protocol| EndpointPort { name: "web".to_owned(), protocol, port };
    match name {
        "a" => spec.port(web(80, types::policy::Protocol::Tcp)).port(web(80, types::policy::Protocol::Udp)),
        "b" => spec.port(web(81, types::policy::Protocol::Tcp)),
        _ => spec,
    }
}

fn labelled(pod: &str) -> Value {
    json!({ "podSelector": { "matchLabels": { "pod": pod } } })
}

fn namespaced(namespace: &str) -> Value {
    json!({ "namespaceSelector": { "matchLabels": { "ns": namespace } } })
}

#[test]
fn the_kernel_says_what_the_specification_says_after_every_change_of_policies_labels_namespaces_and_pods() -> TestResult
{
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = nine("truth")?;
    world.agrees("no policy")?;

    world.policy("x", "deny", default_deny(&["Ingress"]))?;
    world.agrees("ingress to x is denied")?;
    world.policy("x", "some", json!({
        "podSelector": {}, "ingress": [{ "from": [
            { "namespaceSelector": { "matchLabels": { "ns": "y" } }, "podSelector": { "matchLabels": { "pod": "a" } } },
            labelled("b"),
        ], "ports": [{ "port": 80 }, { "protocol": "UDP", "port": 81 }] }],
    }))?;
    world.agrees("y/a and x/b may reach x on TCP 80 and UDP 81")?;
    world.policy("x", "some", json!({
        "podSelector": { "matchLabels": { "pod": "a" } },
        "ingress": [{ "from": [namespaced("z")], "ports": [{ "protocol": "SCTP" }, { "protocol": "TCP", "port": 80, "endPort": 81 }] }],
    }))?;
    world.agrees("the policy is about x/a alone, and about other peers and ports")?;

    world.namespace("y", &[("ns", "z"), ("was", "y")])?;
    world.agrees("y is labelled like z")?;
    world.label("x.b", "pod", Some("a"))?;
    world.agrees("x/b is labelled like x/a")?;
    world.label("x.b", "pod", None)?;
    world.agrees("x/b has no label")?;
    world.namespace("y", &[("ns", "y")])?;
    world.label("x.b", "pod", Some("b"))?;
    world.agrees("labels as they were")?;

    world.policy("y", "out", json!({
        "podSelector": { "matchExpressions": [{ "key": "pod", "operator": "NotIn", "values": ["b"] }] },
        "policyTypes": ["Egress"],
        "egress": [{ "to": [namespaced("x"), namespaced("z")], "ports": [{ "port": "web" }, { "protocol": "UDP", "port": "web" }] }],
    }))?;
    world.agrees("y/a and y/c may reach what is called web in x and z")?;
    let near: Vec<String> = world.pod("z.a").addresses().iter().map(ToString::to_string).collect();
    let [v4, v6] = near.as_slice() else { return Err("not two addresses".into()) };
    world.policy("z", "blocks", json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [{ "ipBlock": { "cidr": "198.51.100.0/24" } }, { "ipBlock": { "cidr": "::/0", "except": ["2001:db8::/64"] } }] }],
        "egress": [{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": [format!("{v4}/32"), "198.51.100.0/25"] } },
                             { "ipBlock": { "cidr": "2001:db8:64::/48" } }] }],
    }))?;
    world.agrees("blocks of addresses, inside and outside the cluster")?;
    world.policy("z", "except", json!({
        "podSelector": { "matchLabels": { "pod": "b" } }, "policyTypes": ["Egress"],
        "egress": [{ "to": [{ "ipBlock": { "cidr": format!("{v4}/32") } }, { "ipBlock": { "cidr": format!("{v6}/128") } }],
                     "ports": [{ "protocol": "UDP", "port": 80 }] }],
    }))?;
    world.agrees("what one policy excepts, another allows")?;

    world.unplug("z.a")?;
    world.agrees("z/a is gone")?;
    world.plug("node2", pod("z", "a").label("late", "yes"))?;
    world.agrees("z/a is back, on the other node")?;
    world.plug("node1", pod("y", "d").label("pod", "a"))?;
    world.agrees("one more pod that is labelled like y/a")?;
    world.unplug("y.d")?;

    world.delete_policy("z", "blocks")?;
    world.agrees("no more blocks")?;
    world.delete_policy("x", "deny")?;
    world.agrees("x is denied by nothing but the policy that allows")?;
    for (namespace, name) in [("x", "some"), ("y", "out"), ("z", "except")] {
        world.delete_policy(namespace, name)?;
    }
    world.agrees("no policy any more")?;
    world.lab.down()?;
    Ok(())
}

#[test]
fn null_empty_object_and_empty_list_mean_what_the_specification_says() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = nine("corners")?;
    for (what, spec) in [
        ("no types and no rules", json!({ "podSelector": {} })),
        ("ingress with an empty rule", json!({ "podSelector": {}, "ingress": [{}] })),
        ("ingress with an empty list", json!({ "podSelector": {}, "ingress": [] })),
        (
            "ingress rules with type Egress alone",
            json!({ "podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}] }),
        ),
        ("egress with an empty rule and no types", json!({ "podSelector": {}, "egress": [{}] })),
        ("egress with an empty list and no types", json!({ "podSelector": {}, "egress": [] })),
        (
            "an empty list of peers",
            json!({ "podSelector": {}, "ingress": [{ "from": [], "ports": [{ "port": 81 }] }] }),
        ),
        ("an empty list of ports", json!({ "podSelector": {}, "ingress": [{ "from": [labelled("a")], "ports": [] }] })),
        ("all namespaces", json!({ "podSelector": {}, "ingress": [{ "from": [{ "namespaceSelector": {} }] }] })),
        (
            "all pods of the own namespace",
            json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] }),
        ),
        ("SCTP alone", json!({ "podSelector": {}, "ingress": [{ "ports": [{ "protocol": "SCTP", "port": 80 }] }] })),
        ("a protocol without port", json!({ "podSelector": {}, "ingress": [{ "ports": [{ "protocol": "UDP" }] }] })),
        ("a name that no pod has", json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": "absent" }] }] })),
        (
            "by the namespace's name",
            json!({ "podSelector": {}, "ingress": [{ "from": [
            { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "z" } } }] }] }),
        ),
        (
            "DoesNotExist",
            json!({ "podSelector": { "matchExpressions": [{ "key": "absent", "operator": "DoesNotExist" }] },
            "policyTypes": ["Ingress", "Egress"] }),
        ),
    ] {
        world.policy("y", "corner", spec)?;
        world.agrees(what)?;
    }
    world.lab.down()?;
    Ok(())
}
