//! Measures the whole way of a label: from the answer of the API server to a change of a pod's label on one node, until
//! the kernel of another node acts on it.

use std::net::SocketAddr;
use std::time::Duration;

use ::tests::{ApiClient, Apiserver, Lab, Place, Pod, PodSpec, wait_for};
use anyhow::ensure;
use serde_json::{Value, json};
use types::Family;

use super::cluster::NAMESPACE;
use super::stream::first_passing;
use crate::scene::{Scene, tell};

/// The port that the policy admits to.
const PORT: u16 = 10_000;

/// How long a node's agent may not know a pod that was just made, or have no route to the other node.
const ROUTE_TIME_LIMIT: Duration = Duration::from_secs(30);

/// The times in milliseconds; none if nobody has built the API server.
pub(crate) fn label_to_kernel(samples: usize) -> anyhow::Result<Option<Vec<f64>>> {
    if Apiserver::program().is_none() {
        tell(format_args!(
            "SKIPPED: from a label to the kernel: there is no kube-apiserver (tests/kubernetes/build.sh)"
        ));
        return Ok(None);
    }
    let scene = Scene { topology: "policy-kubernetes.clab.yml", env: &[] };
    let times = scene.play(prepare, |lab| measure(lab, samples))?;
    Ok(Some(times))
}

/// Starts the API server, and makes the nodes, a namespace and a policy in it.
fn prepare(lab: &Lab) -> anyhow::Result<()> {
    tell(format_args!("starting the API server"));
    let server = Apiserver::start(lab.node("etcd"))?;
    let mut client = server.client()?;
    for node in lab.manx_nodes() {
        server.introduce(node)?;
    }
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    client.call("POST", "/api/v1/namespaces", Some(&namespace))?;
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "friends" },
        "spec": {
            "podSelector": { "matchLabels": { "role": "server" } },
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "friend": "yes" } } }],
                          "ports": [{ "protocol": "UDP", "port": PORT }] }],
        },
    });
    client.call(
        "POST",
        &format!("/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"),
        Some(&policy),
    )?;
    Ok(())
}

fn measure(lab: &Lab, samples: usize) -> anyhow::Result<Vec<f64>> {
    // This process started the same API server before, so another value for it serves as well.
    let mut client = ApiClient::connect(lab.node("etcd"))?;
    let changing = plug(lab, &mut client, "node1", "client")?;
    let server = plug(lab, &mut client, "node2", "server")?;
    let address = server.address(Family::Ipv4);
    wait_for("the way to the other node", ROUTE_TIME_LIMIT, || {
        // The policy drops echo requests; what is waited for is the route.
        let route = lab.node("node1").exec(&["ip", "route", "get", &address.to_string()]);
        route.map_err(|error| error.to_string()).and_then(
            |route| {
                if route.contains("dev eth1") { Ok(()) } else { Err(route) }
            },
        )
    })?;
    let target = SocketAddr::new(address, PORT);
    let (from, to) = (changing.netns()?, server.netns()?);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/client");
    let label = |value: Value| json!({ "metadata": { "labels": { "friend": value } } });
    let mut times = Vec::new();
    for _ in 0..samples {
        super::stream::closed(&from, changing.address(Family::Ipv4), &to, target)?;
        times.push(first_passing(&from, changing.address(Family::Ipv4), &to, target, || {
            Ok(client.call("PATCH", &path, Some(&label("yes".into())))?.0)
        })?);
        client.call("PATCH", &path, Some(&label(Value::Null)))?;
    }
    ensure!(times.len() == samples, "a sample is missing");
    Ok(times)
}

/// Makes a Pod object on a node and plugs the pod in.
fn plug(lab: &Lab, client: &mut ApiClient, node: &str, name: &str) -> anyhow::Result<Pod> {
    let spec = client.create_pod(node, &PodSpec::in_namespace(NAMESPACE, name).label("role", name))?;
    Ok(lab.node(node).plug_pod(spec)?)
}
