//! A pod with interfaces of two networks of ours, as Multus plugs it in.

use super::*;
use tests::can_run_labs;
use tests::mesh::apply;
use tests::pair::container;

const PLUGIN: &str = r#"{ "type": "manx" }"#;

/// A policy that lets nobody in to the pods of `app=closed`, and pods of `app=closed` out to nobody.
const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed, namespace: default }
spec:
  podSelector: { matchLabels: { app: closed } }
  policyTypes: [Ingress, Egress]
";

#[test]
fn both_interfaces_are_reached_by_their_own_addresses_and_one_stays_when_the_other_goes() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("two-networks")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let plugin: Value = serde_json::from_str(PLUGIN)?;
    let (first, second) = (network(node, "manx", &plugin)?, network(node, "storage", &plugin)?);
    let remote = other.plug("b")?;
    let eth0 = container(node, "multi")?;
    let net1 = Attachment { interface: "net1".to_owned(), ..eth0.clone() };
    let of_eth0 = first.add(&eth0)?;
    let default =
        |family: &str| node.exec(&["nsenter", "--net=/run/netns/multi", "ip", family, "route", "show", "default"]);
    let before = [default("-4")?, default("-6")?];
    let of_net1 = second.add(&net1)?;
    assert_eq!([default("-4")?, default("-6")?], before, "the first one's default route stays");
    let from: [&dyn Place; 3] = [&remote, other, node];
    for result in [&of_eth0, &of_net1] {
        all_reach(&from, &addresses(result))?;
    }
    // What it sends from either address comes back to that.
    for source in addresses(&of_eth0).iter().chain(&addresses(&of_net1)) {
        let target = remote.addresses().iter().find(|address| address.is_ipv4() == source.is_ipv4());
        let (source, target) = (source.to_string(), target.map(ToString::to_string).unwrap_or_default());
        assert!(pings(node, "multi", &["-I", &source, &target]), "{target} from {source}");
    }
    assert_eq!(check(&first, &eth0, &plugin, &of_eth0)?, Value::Null);
    assert_eq!(check(&second, &net1, &plugin, &of_net1)?, Value::Null);

    // DEL of the second, and the second anew; CHECK says what is lost.
    second.del(&net1)?;
    all_reach(&from, &addresses(&of_eth0))?;
    assert_eq!(check(&first, &eth0, &plugin, &of_eth0)?, Value::Null);
    let of_net1 = second.add(&net1)?;
    for result in [&of_eth0, &of_net1] {
        all_reach(&from, &addresses(result))?;
    }
    let ipv4 = addresses(&of_net1).first().map(ToString::to_string).unwrap_or_default();
    let rules = node.exec(&["nsenter", "--net=/run/netns/multi", "ip", "rule"])?;
    assert_eq!(rules.lines().filter(|line| line.contains("from ") && !line.contains("from all")).count(), 1, "{rules}");
    node.exec(&["nsenter", "--net=/run/netns/multi", "ip", "rule", "del", "from", &ipv4])?;
    let said = check(&second, &net1, &plugin, &of_net1)?;
    assert_eq!(said["code"], 104, "{said}");
    assert!(said["msg"].as_str().is_some_and(|msg| msg.contains(&format!("no rule from {ipv4} lookup"))), "{said}");
    second.del(&net1)?;
    let of_net1 = second.add(&net1)?;

    // DEL of the first.
    first.del(&eth0)?;
    all_reach(&from, &addresses(&of_net1))?;
    assert_eq!(check(&second, &net1, &plugin, &of_net1)?, Value::Null);
    second.del(&net1)?;
    lab.down()?;
    Ok(())
}

#[test]
fn policy_holds_for_both_addresses_of_a_pod() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("two-policed")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let plugin: Value = serde_json::from_str(PLUGIN)?;
    let (first, second) = (network(node, "manx", &plugin)?, network(node, "storage", &plugin)?);
    let remote = other.plug("b")?;
    let mut eth0 = container(node, "multi")?;
    eth0.cni_args.insert("labels".to_owned(), json!({ "app": "closed" }));
    let net1 = Attachment { interface: "net1".to_owned(), ..eth0.clone() };
    let results = [first.add(&eth0)?, second.add(&net1)?];
    let all: Vec<IpAddr> = results.iter().flat_map(addresses).collect();
    assert_eq!(all.len(), 4);
    all_reach(&[&remote], &all)?;
    apply(node, CLOSED)?;
    for address in &all {
        wait_until(&format!("{address} being closed"), CONVERGENCE, || !remote.ping(*address))?;
        let target = remote.addresses().iter().find(|target| target.is_ipv4() == address.is_ipv4());
        let (source, target) = (address.to_string(), target.map(ToString::to_string).unwrap_or_default());
        assert!(!pings(node, "multi", &["-I", &source, &target]), "{target} from {source}");
    }
    node.agent().ctl(&["delete", "networkpolicy", "closed", "-n", "default"])?;
    all_reach(&[&remote], &all)?;
    lab.down()?;
    Ok(())
}
