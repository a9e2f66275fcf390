//! Agents are replaced by those of the version before.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{Cluster, LabError, Machine, Place, TestResult, wait_for};
use types::Family;

use crate::pods::{self, Traffic};
use crate::{SOON, shared};

/// The image of this version, and the name that it gets as the next version's: the test itself puts there what the next
/// version would leave behind.
const THIS: &str = concat!("docker.io/manx/agent:v", env!("CARGO_PKG_VERSION"));
const NEXT: &str = "docker.io/manx/agent:next";

/// Adds to every object in a node's databases a field that no version has yet, and counts the objects.
const MORE_IN_JOURNAL: &str = "
    UPDATE row SET value = CAST(json_set(CAST(value AS TEXT), '$.spec.next', json('[1]')) AS BLOB) WHERE kind <> 'meta';
    UPDATE row SET value = CAST(json_set(CAST(value AS TEXT), '$.spec.ports[0].next', 1) AS BLOB)
        WHERE kind = 'endpoint' AND json_type(CAST(value AS TEXT), '$.spec.ports[0]') = 'object';
    SELECT count(*) FROM row WHERE kind = 'endpoint' AND CAST(value AS TEXT) LIKE '%\"next\"%'";
const MORE_IN_CACHE: &str = "
    UPDATE entry SET value = CAST(json_set(CAST(value AS TEXT), '$.spec.next', json('[1]')) AS BLOB)
        WHERE key NOT LIKE 'resources/%' AND json_type(CAST(value AS TEXT), '$.spec') = 'object';
    SELECT count(*) FROM entry WHERE CAST(value AS TEXT) LIKE '%\"next\"%'";

#[test]
fn a_downgrade_by_one_version_loses_no_packet_over_what_the_next_one_left_behind() -> TestResult {
    let Some(cluster) = shared::alone("downgrade")? else { return Ok(()) };
    let namespace = cluster.namespace.as_str();
    for (name, node) in [("near", "node1"), ("far", "node2")] {
        let mut pod = pods::server(namespace, name, node);
        pod["spec"]["containers"][0]["ports"] = json!([{ "name": "http", "containerPort": 8080 }]);
        cluster.apply(&pod.to_string())?;
    }
    pods::wait_ready(&cluster, namespace, &["near", "far"])?;
    let (near, far) = (cluster.pod(namespace, "near")?, cluster.pod(namespace, "far")?);
    let traffic = Traffic::start(&cluster, &near, &far)?;

    for machine in cluster.machines() {
        machine.node().exec(&["ctr", "--namespace", "k8s.io", "images", "tag", "--force", THIS, NEXT])?;
    }
    let (agent, install) = (format!("agent={NEXT}"), format!("install={NEXT}"));
    cluster.kubectl(&["set", "image", "-n", "manx-system", "daemonset/manx-agent", &agent, &install])?;
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;
    let changed = add_to_the_store(&cluster)?;
    assert!(changed.iter().any(|key| key.starts_with("/manx/v1/nodes/node1/registration")), "{changed:?}");
    assert!(changed.iter().any(|key| key.starts_with("/manx/v1/nodes/node2/endpoints/")), "{changed:?}");
    assert!(changed.iter().any(|key| key.starts_with("/manx/v1/blocks/")), "{changed:?}");
    // The agent of this node has ended, so nobody else has these files open.
    let machine = cluster.machine("node2");
    machine.stop_kubelet(Signal::SIGTERM)?;
    end_agent(machine)?;
    for (file, more) in [("journal.db", MORE_IN_JOURNAL), ("cache.db", MORE_IN_CACHE)] {
        let objects = machine.node().exec(&["sqlite3", &format!("/var/lib/manx/{file}"), more])?;
        assert!(objects.trim().parse::<u32>()? > 0, "{file}: {objects}");
    }

    cluster.kubectl(&["rollout", "undo", "-n", "manx-system", "daemonset/manx-agent"])?;
    machine.start_kubelet()?;
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;
    pods::start(&cluster, namespace, &[("after-1", "node1"), ("after-2", "node2"), ("after-3", "node3")])?;
    let target = format!("{}:8080", far.address(Family::Ipv4));
    for pod in ["after-1", "after-3"] {
        wait_for(&format!("{target} from {pod}"), SOON, || {
            cluster.exec(namespace, pod, &["/agnhost", "connect", &target, "--timeout=2s"])
        })?;
    }
    traffic.lost_nothing()?;
    let ours = cluster.get(&["daemonset", "-n", "manx-system", "manx-agent"])?;
    assert_eq!(ours["spec"]["template"]["spec"]["containers"][0]["image"], THIS);
    for machine in cluster.machines() {
        let pod = cluster.agent_pod(&machine.name())?;
        let said = cluster.kubectl(&["logs", "-n", "manx-system", &pod, "-c", "agent"])?;
        let refused: Vec<&str> =
            said.lines().filter(|line| line.contains("left out") || line.contains("newer")).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", machine.name());
    }
    Ok(())
}

/// Ends the agent of a machine whose kubelet is away, as a crash does.
fn end_agent(machine: Machine<'_>) -> TestResult {
    let pid = machine.node().exec(&["pgrep", "-x", "manx-agent"])?;
    machine.node().exec(&["kill", "-KILL", pid.trim()])?;
    wait_for("the agent's end", SOON, || {
        let there = machine.node().try_exec(&["pgrep", "-x", "manx-agent"]).map_err(|error| error.to_string())?;
        if there.status.success() { Err(there.stdout) } else { Ok(()) }
    })?;
    Ok(())
}

/// Adds to everything that agents write in etcd a field that no version has yet; returns the keys.
fn add_to_the_store(cluster: &Cluster) -> Result<Vec<String>, LabError> {
    let service = cluster.get(&["service", "-n", "manx-system", "etcd"])?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let node = cluster.node("node1");
    // These are the agents' certificates, where the kubelet has put them.
    let ask = format!(
        "cd $(ls -d /var/lib/kubelet/pods/*/volumes/kubernetes.io~secret/etcd | head -1) &&
         ETCDCTL_API=3 exec etcdctl --endpoints https://{address}:2379 --cacert ca.crt --cert tls.crt --key tls.key \"$@\""
    );
    let etcdctl = |words: &[&str]| node.exec(&[&["sh", "-c", &ask, "sh"], words].concat());
    let said = etcdctl(&["get", "--prefix", "/manx/v1/"])?;
    let lines: Vec<&str> = said.lines().collect();
    let mut changed = Vec::new();
    for entry in lines.chunks(2) {
        let &[key, value] = entry else { continue };
        let mut value: Value = serde_json::from_str(value).unwrap_or_default();
        // Objects that operators write are not the agents' to add to.
        if let Some(Value::Object(spec)) = value.get_mut("spec").filter(|_| !key.contains("/resources/")) {
            spec.insert("next".to_owned(), json!({ "of": [1] }));
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port["next"] = json!(1);
            }
            // A key without a lease is put without one: etcdctl keeps a lease only if it is told to.
            let keep = if key.ends_with("/alive") || key.ends_with("/holder") {
                "--ignore-lease=true"
            } else {
                "--ignore-lease=false"
            };
            etcdctl(&["put", keep, key, &value.to_string()])?;
            changed.push(key.to_owned());
        }
    }
    Ok(changed)
}
