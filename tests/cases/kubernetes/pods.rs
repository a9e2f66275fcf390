//! Pods that the tests make, and the traffic between them.

use serde_json::{Value, json};
use tests::{AGNHOST_IMAGE, Cluster, ClusterPod, LabError, Place, Probe, ProbeReport};
use types::Family;

/// How many datagrams a second go between pods, both families together, and as many from the host outside. Each is
/// answered, so as many go the other way.
const PER_SECOND: u32 = 1000;

/// A pod on a node that answers HTTP on port 8080, and is ready when the kubelet has reached it there.
pub(crate) fn server(namespace: &str, name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
        "spec": { "nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": AGNHOST_IMAGE, "args": ["netexec", "--http-port=8080"],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
        }] },
    })
}

/// Waits until pods are ready.
pub(crate) fn wait_ready(cluster: &Cluster, namespace: &str, names: &[&str]) -> Result<(), LabError> {
    let line = ["wait", "-n", namespace, "pod", "--for=condition=Ready", "--timeout=60s"];
    let line: Vec<&str> = line.iter().chain(names).copied().collect();
    cluster.kubectl(&line).map(drop)
}

/// Makes such pods on nodes, and waits until they are ready.
pub(crate) fn start(cluster: &Cluster, namespace: &str, pods: &[(&str, &str)]) -> Result<(), LabError> {
    for (name, node) in pods {
        cluster.apply(&server(namespace, name, node).to_string())?;
    }
    let names: Vec<&str> = pods.iter().map(|(name, _)| *name).collect();
    wait_ready(cluster, namespace, &names)
}

/// Traffic that must go on whatever happens to Kubernetes and to Manx: datagrams between pods in two racks in both
/// families, and from behind the fabric.
pub(crate) struct Traffic(Vec<(&'static str, Probe)>);

impl Traffic {
    pub(crate) fn start(cluster: &Cluster, near: &ClusterPod, far: &ClusterPod) -> Result<Self, LabError> {
        let host: &dyn Place = cluster.external_host();
        let ways: [(_, &dyn Place, Family, u32); 3] = [
            ("between pods, IPv4", near, Family::Ipv4, PER_SECOND / 2),
            ("between pods, IPv6", near, Family::Ipv6, PER_SECOND / 2),
            ("from the external host", host, Family::Ipv4, PER_SECOND),
        ];
        let probe = |(way, from, family, rate)| Ok((way, Probe::start(from, far, far.address(family), rate)?));
        ways.into_iter().map(probe).collect::<Result<_, LabError>>().map(Self)
    }

    /// Ends the traffic; it is an error if a datagram was lost.
    pub(crate) fn lost_nothing(self) -> Result<(), String> {
        let reports: Vec<(_, ProbeReport)> = self.0.into_iter().map(|(way, probe)| (way, probe.finish())).collect();
        let whole = reports.iter().all(|(_, report)| report.lost == 0 && report.errors.is_empty() && report.sent > 0);
        if whole { Ok(()) } else { Err(format!("traffic was cut: {reports:?}")) }
    }
}
