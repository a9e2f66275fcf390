//! A second sandbox of a pod before the first one's DEL, as kubelet makes it; and the longest names.

use super::*;
use tests::can_run_labs;
use tests::mesh::apply;
use tests::pair::{container, links};

/// A policy that lets only pods of `app=client` in to those of `app=web`.
const FRIENDS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: friends, namespace: default }
spec:
  podSelector: { matchLabels: { app: web } }
  policyTypes: [Ingress]
  ingress: [{ from: [{ podSelector: { matchLabels: { app: client } } }] }]
";

#[test]
fn the_newer_sandbox_of_a_pod_keeps_what_it_has_when_the_older_one_goes() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("sandboxes")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let runtime = node.runtime()?;
    apply(node, FRIENDS)?;
    let client = other.plug_pod(tests::PodSpec::new("client").label("app", "client"))?;
    let stranger = other.plug("stranger")?;
    let sandbox = |name: &str| -> Result<Attachment, Box<dyn Error>> {
        let mut attachment = container(node, name)?;
        attachment.args = vec![("K8S_POD_NAMESPACE".into(), "default".into()), ("K8S_POD_NAME".into(), "web".into())];
        attachment.cni_args.insert("labels".to_owned(), json!({ "app": "web" }));
        Ok(attachment)
    };
    let (old, new) = (sandbox("older")?, sandbox("newer")?);
    let of_old = addresses(&runtime.add(&old)?);
    all_reach(&[&client], &of_old)?;
    let result = runtime.add(&new)?;
    let of_new = addresses(&result);
    assert!(of_new.iter().all(|address| !of_old.contains(address)));
    let holds = || -> TestResult {
        all_reach(&[&client], &of_new)?;
        for address in &of_new {
            assert!(!stranger.ping(*address), "{address} is reached by a stranger");
        }
        wait_until("what the newer one has being published", CONVERGENCE, || {
            let published = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/nodes/node1/endpoints/"]).unwrap_or_default();
            of_new.iter().all(|address| published.contains(&format!("\"{address}\"")))
        })?;
        Ok(())
    };
    holds()?;
    for _ in 0..2 {
        runtime.del(&old)?;
        holds()?;
    }
    wait_until("what the older one published being gone", CONVERGENCE, || {
        let published = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/nodes/node1/endpoints/"]).unwrap_or_default();
        !of_old.iter().any(|address| published.contains(&format!("\"{address}\"")))
    })?;
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    holds()?;
    lab.down()?;
    Ok(())
}

#[test]
fn a_pod_with_the_longest_names_is_as_any_other_and_leaves_nothing() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("long-names")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let plugin = json!({ "type": "manx" });
    let runtime = network(node, &"n".repeat(253), &plugin)?;
    let mut attachment = container(node, "long")?;
    attachment.container = "c".repeat(253);
    attachment.interface = "i".repeat(15);
    let name = "p".repeat(253);
    attachment.args = vec![("K8S_POD_NAMESPACE".into(), "s".repeat(63)), ("K8S_POD_NAME".into(), name)];
    // The runtime of the lab keeps results in files that have all of that in their name; so the plugin is called by itself.
    let add = || call(&runtime, "ADD", &attachment, &plugin);
    let result = add()?;
    let all = addresses(&result);
    all_reach(&[node, other], &all)?;
    assert_eq!(check(&runtime, &attachment, &plugin, &result)?, Value::Null);
    let published = || lab.etcd().ctl(&["get", "--prefix", "/manx/v1/nodes/node1/endpoints/"]).unwrap_or_default();
    wait_until("the endpoint being published", CONVERGENCE, || {
        all.iter().all(|address| published().contains(&format!("\"{address}\"")))
    })?;
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    all_reach(&[node, other], &all)?;
    node.agent().kill9()?;
    assert_eq!(call(&runtime, "DEL", &attachment, &plugin)?, Value::Null);
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    wait_until("nothing being left", CONVERGENCE, || links(node).is_empty() && published().trim().is_empty())?;
    assert_eq!(node.shell("ls -A /run/manx/released")?.trim(), "");
    lab.down()?;
    Ok(())
}
