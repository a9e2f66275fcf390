//! Chains of plugins as operators write them: the reference plugins behind `manx`, each with ADD, CHECK, DEL and a second DEL, over
//! a restart of the agent.

use std::error::Error;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::pair::{ETCD, POOLS, container, links};
use tests::{
    Attachment, CONVERGENCE, CniError, Lab, Node, Options, Place, Runtime, TestResult, addresses, can_run_labs,
    wait_until,
};
use types::{ContainerId, InterfaceName};

use crate::pair;

/// A lab, or none on a machine that lacks the plugin.
fn up(test: &str, plugin: &str) -> Result<Option<Lab>, Box<dyn Error>> {
    if !can_run_labs() {
        return Ok(None);
    }
    if !std::path::Path::new("/usr/lib/cni").join(plugin).exists() {
        tests::say_skipped(&format!("there is no {plugin} in /usr/lib/cni (package containernetworking-plugins)"));
        return Ok(None);
    }
    Ok(Some(Lab::up(&pair(test, &format!("{ETCD}{POOLS}"))?, &Options::unique(test))?))
}

/// A runtime whose network has another plugin behind ours.
fn runtime(node: &Node, version: &str, plugin: &Value) -> Result<Runtime, String> {
    let text = json!({ "cniVersion": version, "name": "manx", "plugins": [{ "type": "manx" }, plugin] }).to_string();
    Runtime::from_conflist(node.namespace().clone(), &text)
}

fn host_end(attachment: &Attachment) -> Result<String, Box<dyn Error>> {
    let (id, interface) = (ContainerId::new(attachment.container.as_str())?, attachment.interface.parse()?);
    Ok(InterfaceName::of_attachment(&id, &interface).to_string())
}

/// A command in the pod's network namespace.
fn inside(node: &Node, attachment: &Attachment, line: &str) -> Result<String, tests::LabError> {
    node.shell(&format!("nsenter --net=/run/netns/{} {line}", attachment.container))
}

/// The pod reaches both nodes in both families, and is reached from its own and from the other one.
fn traffic_passes(lab: &Lab, attachment: &Attachment, result: &Value) -> TestResult {
    let node = lab.node("node1");
    for server in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
        inside(node, attachment, &format!("ping -nqc1 -W2 {server}"))?;
    }
    let addresses = addresses(result);
    assert_eq!(addresses.len(), 2, "{result}");
    for address in addresses {
        assert!(node.ping(address), "{address}");
        assert!(lab.node("node2").ping(address), "{address} from the other node");
    }
    Ok(())
}

fn restart(node: &Node) -> TestResult {
    node.agent().kill9()?;
    node.agent().start()?;
    Ok(node.agent().wait_ready(CONVERGENCE)?)
}

#[test]
fn bandwidth_limits_both_ways_at_the_hosts_end_and_leaves_nothing() -> TestResult {
    let Some(lab) = up("chainbandwidth", "bandwidth")? else { return Ok(()) };
    let node = lab.node("node1");
    // Rates that are in the file, and rates that the runtime has of the pod (its annotations, under Kubernetes).
    let rates = json!({ "ingressRate": 8_000_000, "ingressBurst": 2_000_000, "egressRate": 16_000_000, "egressBurst": 4_000_000 });
    let mut fixed = rates.clone();
    fixed["type"] = json!("bandwidth");
    let by_capability = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
    for (name, plugin, version) in [("fixed", fixed, "1.0.0"), ("asked", by_capability, "0.4.0")] {
        let runtime = runtime(node, version, &plugin)?;
        let mut attachment = container(node, name)?;
        if name == "asked" {
            attachment.capabilities.insert("bandwidth".to_owned(), rates.clone());
        }
        let result = runtime.add(&attachment)?;
        let host = host_end(&attachment)?;
        let limits = || {
            let ifb = node.exec(&["ip", "-o", "link", "show", "type", "ifb"])?;
            let ifb: Vec<_> = ifb.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next()).collect();
            let [ifb] = ifb.as_slice() else { return Err(format!("{ifb:?}").into()) };
            let of = |device: &str| node.exec(&["tc", "qdisc", "show", "dev", device]);
            Ok::<_, Box<dyn Error>>((of(&host)?, of(ifb)?))
        };
        for life in ["at first", "after a restart of the agent"] {
            let (to_pod, from_pod) = limits()?;
            assert!(to_pod.contains("tbf") && to_pod.contains("rate 8Mbit"), "{life}: {to_pod}");
            assert!(to_pod.contains("ingress"), "what the pod sends is led to the other device: {life}: {to_pod}");
            assert!(from_pod.contains("tbf") && from_pod.contains("rate 16Mbit"), "{life}: {from_pod}");
            traffic_passes(&lab, &attachment, &result)?;
            runtime.check(&attachment)?;
            if life == "at first" {
                restart(node)?;
            }
        }
        runtime.del(&attachment)?;
        runtime.del(&attachment)?;
        assert_eq!(node.exec(&["ip", "-o", "link", "show", "type", "ifb"])?, "");
        wait_until("the host's end being deleted", CONVERGENCE, || links(node).is_empty())?;
    }
    lab.down()?;
    Ok(())
}

#[test]
fn what_tuning_changes_of_a_pod_survives_and_the_pod_goes_on() -> TestResult {
    let Some(lab) = up("chaintuning", "tuning")? else { return Ok(()) };
    let node = lab.node("node1");
    let plugin = json!({
        "type": "tuning", "mac": "02:00:5e:10:00:02", "mtu": 1400,
        "sysctl": { "net.ipv4.conf.eth0.arp_notify": "1", "net.core.somaxconn": "500" },
    });
    let runtime = runtime(node, "0.4.0", &plugin)?;
    let attachment = container(node, "tuned")?;
    let result = runtime.add(&attachment)?;
    let pod = &result["interfaces"][1];
    assert_eq!((pod["name"].as_str(), pod["mac"].as_str()), (Some("eth0"), Some("02:00:5e:10:00:02")), "{result}");
    for life in ["at first", "after a restart of the agent"] {
        let link = inside(node, &attachment, "ip -o link show dev eth0")?;
        assert!(link.contains("02:00:5e:10:00:02") && link.contains("mtu 1400"), "{life}: {link}");
        let sysctls = inside(node, &attachment, "sysctl -n net.ipv4.conf.eth0.arp_notify net.core.somaxconn")?;
        assert_eq!(sysctls.split_whitespace().collect::<Vec<_>>(), ["1", "500"], "{life}");
        traffic_passes(&lab, &attachment, &result)?;
        runtime.check(&attachment)?;
        if life == "at first" {
            restart(node)?;
        }
    }
    runtime.del(&attachment)?;
    runtime.del(&attachment)?;
    wait_until("the host's end being deleted", CONVERGENCE, || links(node).is_empty())?;
    lab.down()?;
    Ok(())
}

#[test]
fn sbr_finds_its_gateway_and_the_pod_goes_by_a_table_of_its_own() -> TestResult {
    let Some(lab) = up("chainsbr", "sbr")? else { return Ok(()) };
    let node = lab.node("node1");
    let runtime = runtime(node, "1.0.0", &json!({ "type": "sbr" }))?;
    let attachment = container(node, "sourced")?;
    let result = runtime.add(&attachment)?;
    for life in ["at first", "after a restart of the agent"] {
        for (family, address) in ["-4", "-6"].into_iter().zip(addresses(&result)) {
            let rules = inside(node, &attachment, &format!("ip {family} rule"))?;
            let rule = rules.lines().find(|rule| rule.contains(&format!("from {address}")));
            assert!(rule.is_some_and(|rule| rule.contains("lookup 10")), "{life}: {rules}");
            // What has the address goes by the table; what has none yet has no way out, as sbr has it.
            for server in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
                if server.contains(':') == address.is_ipv6() {
                    inside(node, &attachment, &format!("ping -nqc1 -W2 -I {address} {server}"))?;
                }
            }
            assert!(node.ping(address) && lab.node("node2").ping(address), "{life}: {address}");
        }
        runtime.check(&attachment)?;
        if life == "at first" {
            restart(node)?;
        }
    }
    runtime.del(&attachment)?;
    // A second DEL of sbr fails by itself where the interface has gone (1.1.1); ours does not.
    let ours = json!({ "cniVersion": "1.0.0", "name": "manx", "plugins": [{ "type": "manx" }] }).to_string();
    Runtime::from_conflist(node.namespace().clone(), &ours)?.del(&attachment)?;
    wait_until("the host's end being deleted", CONVERGENCE, || links(node).is_empty())?;
    lab.down()?;
    Ok(())
}

#[test]
fn portmap_maps_the_runtimes_ports_to_the_pod() -> TestResult {
    let Some(lab) = up("chainportmap", "portmap")? else { return Ok(()) };
    let node = lab.node("node1");
    let plugin = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let runtime = runtime(node, "1.0.0", &plugin)?;
    let mut attachment = container(node, "mapped")?;
    let ports = json!([{ "hostPort": 18_080, "containerPort": 8080, "protocol": "tcp" }]);
    attachment.capabilities.insert("portMappings".to_owned(), ports);
    let result = runtime.add(&attachment)?;
    traffic_passes(&lab, &attachment, &result)?;
    let mut server = node.namespace().command("nsenter");
    server.args(["--net=/run/netns/mapped", "python3", "-m", "http.server", "--directory", "/run", "8080"]);
    node.start_service("server", server)?;
    let target: SocketAddr = "192.0.2.1:18080".parse()?;
    let answers = |node: &Node| node.http_get(target, "/").is_ok_and(|answer| answer.status == 200);
    wait_until("the pod answering at its host port", CONVERGENCE, || answers(lab.node("node2")))?;
    // portmap 1.1.1 looks for the rules of IPv4 in the tables of IPv6, and so fails every CHECK by itself.
    let check = || match runtime.check(&attachment) {
        Err(CniError::Refused { plugin, msg, .. })
            if plugin == "portmap" && msg.contains("could not check ipv6 dnat") =>
        {
            Ok(())
        }
        checked => checked,
    };
    check()?;
    restart(node)?;
    assert!(answers(lab.node("node2")));
    check()?;
    runtime.del(&attachment)?;
    runtime.del(&attachment)?;
    assert!(!node.shell("iptables-save -t nat")?.contains("CNI-DN-"));
    wait_until("the host's end being deleted", CONVERGENCE, || links(node).is_empty())?;
    lab.down()?;
    Ok(())
}
