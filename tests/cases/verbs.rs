//! CNI's verbs in all versions, by a runtime, to a running agent.

use std::error::Error;

use serde_json::{Value, json};
use tests::pair::{ETCD, POOLS, container, links};
use tests::{Attachment, CONVERGENCE, Lab, Node, Options, Place, Runtime, TestResult, can_run_labs, wait_until};

use crate::pair;

fn up(test: &str) -> Result<Lab, Box<dyn Error>> {
    Ok(Lab::up(&pair(test, &format!("{ETCD}{POOLS}"))?, &Options::unique(test))?)
}

/// A runtime whose network is of a version.
fn runtime(node: &Node, version: &str) -> Result<Runtime, String> {
    let text = json!({ "cniVersion": version, "name": "manx", "plugins": [{ "type": "manx" }] }).to_string();
    Runtime::from_conflist(node.namespace().clone(), &text)
}

/// One call of the plugin, with any configuration; null where it says nothing, and its error object where it refuses.
fn call(node: &Node, verb: &str, attachment: &Attachment, config: &Value) -> Result<Value, Box<dyn Error>> {
    let env = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", attachment.container.as_str()),
        ("CNI_NETNS", attachment.netns.as_deref().unwrap_or_default()),
        ("CNI_IFNAME", attachment.interface.as_str()),
    ];
    let output = node.runtime()?.run("manx", &env, &config.to_string())?;
    if output.status.success() && output.stdout.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_str(&output.stdout)?)
}

fn config(version: &str, key: &str, value: &Value) -> Value {
    let mut config = json!({ "cniVersion": version, "name": "manx", "type": "manx" });
    config[key] = value.clone();
    config
}

#[test]
fn a_pod_comes_is_checked_and_goes_in_every_version() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("versions")?;
    let node = lab.node("node1");
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let attachment = container(node, &format!("v{}", version.replace('.', "")))?;
        let result = runtime(node, version)?.add(&attachment)?;
        assert_eq!(result["cniVersion"], version);
        let family = if version < "1.0.0" { json!("4") } else { Value::Null };
        assert_eq!(result["ips"][0]["version"], family, "{result}");
        let checked = call(node, "CHECK", &attachment, &config(version, "prevResult", &result))?;
        if version < "0.4.0" {
            assert_eq!(checked["code"], 1, "{checked}");
        } else {
            assert_eq!(checked, Value::Null, "{version}");
        }
        // The file was switched to a version that ADD refuses, and pods of before are to go.
        let of_before = config("0.2.0", "x", &Value::Null);
        assert_eq!(call(node, "ADD", &attachment, &of_before)?["code"], 1);
        assert_eq!(call(node, "DEL", &attachment, &of_before)?, Value::Null);
    }
    wait_until("every link being deleted", CONVERGENCE, || links(node).is_empty())?;
    lab.down()?;
    Ok(())
}

#[test]
fn check_names_what_is_lost_and_does_not_mind_an_agent_that_is_away() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("check")?;
    let node = lab.node("node1");
    let attachment = container(node, "checked")?;
    let result = runtime(node, "1.0.0")?.add(&attachment)?;
    let config = config("1.0.0", "prevResult", &result);
    let check = || call(node, "CHECK", &attachment, &config);
    assert_eq!(check()?, Value::Null);
    node.agent().kill9()?;
    assert_eq!(check()?, Value::Null, "an agent that is away");
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    assert_eq!(check()?, Value::Null, "another life of the agent");
    let text = result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
    let address = text.split('/').next().unwrap_or_default();

    // Whatever another program takes away is named. It stays away: the agent repairs routes, so the look is at once.
    node.shell(&format!(
        "for set in $(ipset list -n | grep manx-); do ipset del $set {address} 2>/dev/null; done; true"
    ))?;
    let said = check()?;
    assert_eq!(said["code"], 104, "{said}");
    assert!(said["msg"].as_str().unwrap_or_default().contains(&format!("{address} is mapped to no class")), "{said}");
    node.exec(&["nsenter", "--net=/run/netns/checked", "ip", "address", "del", &text, "dev", "eth0"])?;
    let said = check()?;
    assert!(said["msg"].as_str().unwrap_or_default().contains(&format!("eth0 does not have {address}")), "{said}");
    let gone = call(node, "DEL", &attachment, &config)?;
    assert_eq!(gone, Value::Null);
    let said = check()?;
    for part in ["holds no addresses on this node", "is down on the node"] {
        let said = said["msg"].as_str().unwrap_or_default();
        assert!(said.contains(part) || said.contains("the node has no interface"), "{part}: {said}");
    }
    lab.down()?;
    Ok(())
}

#[test]
fn gc_takes_what_is_not_listed_and_status_says_whether_add_works() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("collected")?;
    let node = lab.node("node1");
    let runtime = runtime(node, "1.1.0")?;
    let (kept, left) = (container(node, "kept")?, container(node, "left")?);
    for attachment in [&kept, &left] {
        runtime.add(attachment)?;
    }
    let bare = config("1.1.0", "x", &Value::Null);
    assert_eq!(call(node, "GC", &kept, &bare)?["code"], 7);
    assert_eq!(call(node, "GC", &kept, &config("1.0.0", "cni.dev/valid-attachments", &json!([])))?["code"], 1);
    let listed = json!([{ "containerID": "kept", "ifname": "eth0" }]);
    assert_eq!(call(node, "GC", &kept, &config("1.1.0", "cni.dev/valid-attachments", &listed))?, Value::Null);
    wait_until("the link of the pod that is not listed being deleted", CONVERGENCE, || links(node).len() == 1)?;
    let shown = node.agent().ctl(&["ipam", "show"])?;
    assert_eq!(call(node, "STATUS", &kept, &bare)?, Value::Null, "{shown}");
    runtime.del(&left)?;
    node.agent().freeze()?;
    let silent = call(node, "STATUS", &kept, &bare)?;
    node.agent().thaw()?;
    assert_eq!(silent["code"], 50, "{silent}");
    assert_eq!(call(node, "GC", &kept, &config("1.1.0", "cni.dev/valid-attachments", &json!([])))?, Value::Null);
    wait_until("every link being deleted", CONVERGENCE, || links(node).is_empty())?;
    lab.down()?;
    Ok(())
}

#[test]
fn what_a_configuration_asks_for_is_done_or_refused_by_name() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("wishes")?;
    let node = lab.node("node1");
    let attachment = container(node, "wishes")?;
    for (key, value, told) in [
        ("ipam", json!({ "type": "calico-ipam", "ipv4_pools": ["10.42.0.0/16"] }), "ipam."),
        ("policy", json!({ "type": "k8s" }), "policy="),
        ("kubernetes", json!({ "kubeconfig": "/etc/cni/net.d/calico-kubeconfig" }), "kubernetes="),
        ("mtu", json!(60_000), "mtu=60000"),
    ] {
        let said = call(node, "ADD", &attachment, &config("0.3.1", key, &value))?;
        assert_eq!(said["code"], 2, "{said}");
        assert!(said["msg"].as_str().unwrap_or_default().starts_with(told), "{said}");
    }
    let added = call(node, "ADD", &attachment, &config("1.1.0", "mtu", &json!(1_280)))?;
    assert_eq!(added["interfaces"][1]["mtu"], 1_280, "{added}");
    let link = node.exec(&["nsenter", "--net=/run/netns/wishes", "ip", "-o", "link", "show", "dev", "eth0"])?;
    assert!(link.contains("mtu 1280"), "{link}");
    assert_eq!(call(node, "DEL", &attachment, &config("0.3.1", "policy", &json!({ "type": "k8s" })))?, Value::Null);
    lab.down()?;
    Ok(())
}

#[test]
fn the_gateway_answers_where_the_node_has_strict_arp_and_the_pod_another_mac() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("strictarp")?;
    let node = lab.node("node1");
    node.shell("ip route del default || true")?;
    let pod = node.plug("a")?;
    node.shell("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")?;
    for harm in ["ip neigh del 169.254.1.1 dev eth0", "ip link set eth0 address 02:00:00:00:00:42"] {
        pod.shell(harm)?;
        for server in ["192.0.2.1", "2001:db8::1"] {
            assert!(pod.ping(server.parse()?), "{server} after {harm}");
        }
        for address in pod.addresses() {
            assert!(node.ping(*address), "{address} after {harm}");
        }
    }
    lab.down()?;
    Ok(())
}
