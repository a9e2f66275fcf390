//! Manx as it is deployed.

use serde_json::{Value, json};
use tests::{AGNHOST_IMAGE, Place, TestResult};

use crate::{SOON, shared};

#[test]
fn nodes_are_ready_and_pods_in_two_racks_and_the_fabric_reach_each_other() -> TestResult {
    let Some(cluster) = shared::alongside("reach")? else { return Ok(()) };
    let namespace = cluster.namespace.as_str();
    let pod = |name: &str, node: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
            "spec": { "nodeName": node, "containers": [{
                "name": "c", "image": AGNHOST_IMAGE, "args": ["netexec", "--http-port=8080"],
            }] },
        })
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "far", "namespace": namespace },
        "spec": {
            "selector": { "app": "far" }, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    });
    for object in [pod("near", "node1"), pod("far", "node2"), service] {
        cluster.apply(&object.to_string())?;
    }
    cluster.kubectl(&["wait", "-n", namespace, "pod", "near", "far", "--for=condition=Ready", "--timeout=60s"])?;
    let far = cluster.get(&["pod", "-n", namespace, "far"])?;
    let addresses = far["status"]["podIPs"].as_array().ok_or("the pod has no addresses")?;
    let addresses: Vec<&str> = addresses.iter().filter_map(|address| address["ip"].as_str()).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let connects = |target: &str| cluster.exec(namespace, "near", &["/agnhost", "connect", target, "--timeout=3s"]);
    for address in addresses {
        let target = if address.contains(':') { format!("[{address}]:8080") } else { format!("{address}:8080") };
        tests::wait_for(&format!("{target} from the other rack"), SOON, || connects(&target))?;
        assert!(cluster.external_host().ping(address.parse()?), "{address} does not answer the host behind the fabric");
    }
    tests::wait_for("the service by its name", SOON, || connects(&format!("far.{namespace}.svc.cluster.local:80")))?;
    let nodes = cluster.get(&["nodes"])?;
    let conditions =
        nodes["items"].as_array().into_iter().flatten().flat_map(|node| node["status"]["conditions"].as_array());
    let unavailable: Vec<&Value> =
        conditions.flatten().filter(|condition| condition["type"] == "NetworkUnavailable").collect();
    assert!(unavailable.iter().all(|condition| condition["status"] == "False"), "{unavailable:?}");
    Ok(())
}
