//! Runtimes that call more than ADD and DEL, in the order in which they call: Nomad and CRI-O.

use serde_json::json;
use tests::pair::{ETCD, POOLS, container};
use tests::traces::nothing_is_left;
use tests::{Attachment, CONVERGENCE, Lab, Node, Options, Place, Runtime, TestResult, can_run_labs, wait_until};

use crate::pair;

/// Nomad's network of kind `cni` as its documentation chains it, with `manx` where it has `bridge`.
fn nomad(node: &Node) -> Result<Runtime, String> {
    let conflist = json!({ "cniVersion": "1.0.0", "name": "nomad", "plugins": [
        { "type": "loopback" },
        { "type": "manx" },
        { "type": "firewall", "backend": "iptables", "iptablesAdminChainName": "NOMAD-ADMIN" },
        { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
    ]});
    Runtime::from_conflist(node.namespace().clone(), &conflist.to_string())
}

/// The addresses that ADD gave.
fn addresses(runtime: &Runtime, attachment: &Attachment) -> Result<Vec<std::net::IpAddr>, Box<dyn std::error::Error>> {
    let result = runtime.add(attachment)?;
    let given = result["ips"].as_array().into_iter().flatten();
    let given =
        given.filter(|ip| ip["address"].as_str().is_some_and(|text| !text.starts_with("127.") && text != "::1/128"));
    let texts = given.filter_map(|ip| ip["address"].as_str()?.split('/').next());
    Ok(texts.map(str::parse).collect::<Result<_, _>>()?)
}

#[test]
fn nomads_allocations_pass_the_check_of_a_client_that_starts_again_whatever_the_agent_did_meanwhile() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("nomad", &format!("{ETCD}{POOLS}"))?, &Options::unique("nomad"))?;
    let (node, neighbour) = (lab.node("node1"), lab.node("node2"));
    let runtime = nomad(node)?;
    let mut allocations = Vec::new();
    // None has ports to map: portmap 1.1.1, which Debian 12 has, looks in ip6tables for IPv4's rules at CHECK, and fails.
    for number in 1..=2 {
        let mut allocation = container(node, &format!("3f6ec7ae-0001-0002-0003-00000000000{number}"))?;
        allocation.args = vec![("IgnoreUnknown".to_owned(), "true".to_owned())];
        let addresses = addresses(&runtime, &allocation)?;
        assert_eq!(addresses.len(), 2, "{addresses:?}");
        allocations.push((allocation, addresses));
    }
    let all_pass = |when: &str| -> TestResult {
        for (allocation, addresses) in &allocations {
            runtime.check(allocation).map_err(|error| format!("{when}: {error}"))?;
            for address in addresses {
                wait_until(&format!("{address} to be reached from the other node {when}"), CONVERGENCE, || {
                    neighbour.ping(*address)
                })?;
            }
        }
        Ok(())
    };
    all_pass("at once")?;
    node.agent().kill9()?;
    all_pass("while no agent runs")?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    all_pass("in another life of the agent")?;

    // A network that is broken for real is one that Nomad sets up again.
    let Some(((broken, _), (whole, _))) = allocations.first().zip(allocations.last()) else { return Ok(()) };
    let netns = format!("--net=/run/netns/{}", broken.container);
    node.exec(&["nsenter", &netns, "ip", "route", "del", "default"])?;
    let refused = runtime.check(broken).err().ok_or("a pod without its default route passed CHECK")?;
    assert_eq!(refused.code(), Some(104), "{refused}");
    assert!(refused.to_string().contains("route"), "{refused}");
    runtime.check(whole)?;
    runtime.del(broken)?;
    let again = addresses(&runtime, broken)?;
    runtime.check(broken)?;
    for address in again {
        assert!(node.ping(address), "{address}");
    }
    for (allocation, _) in &allocations {
        runtime.del(allocation)?;
    }
    nothing_is_left(&lab, node)?;
    lab.down()?;
    Ok(())
}

#[test]
fn crio_waits_for_status_then_collects_what_the_last_boot_left_and_plugs_pods_in_and_out() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("crio", &format!("{ETCD}{POOLS}"))?, &Options::unique("crio"))?;
    let node = lab.node("node1");
    let conflist = json!({ "cniVersion": "1.1.0", "name": "manx", "plugins": [{ "type": "manx" }] });
    let runtime = Runtime::from_conflist(node.namespace().clone(), &conflist.to_string())?;
    let [kept, left, forgotten] = ["kept", "left", "forgotten"].map(|name| container(node, name));
    let (kept, left, forgotten) = (kept?, left?, forgotten?);
    for attachment in [&kept, &left, &forgotten] {
        runtime.add(attachment)?;
    }
    // Of one pod CRI-O has lost what it knew, its result with it. All of them run on while it and the agent are away.
    std::fs::remove_file(node.path("/var/lib/cni/results/manx-forgotten-eth0"))?;
    node.agent().kill9()?;

    // It polls until the network is there, and then says once what it still has.
    let refused = runtime.status().err().ok_or("STATUS was silent without an agent")?;
    assert_eq!(refused.code(), Some(50), "{refused}");
    node.agent().start()?;
    wait_until("STATUS to be silent", CONVERGENCE, || runtime.status().is_ok())?;
    runtime.gc(&[&kept])?;
    for gone in [&left, &forgotten] {
        let refused = runtime.check(gone).err().ok_or("what GC took passed CHECK")?;
        assert_eq!(refused.code(), Some(7), "there is no result any more: {refused}");
    }
    wait_until("the pods that GC was not told of being gone", CONVERGENCE, || tests::pair::links(node).len() == 1)?;
    runtime.check(&kept)?;

    let pod = container(node, "fresh")?;
    let given = addresses(&runtime, &pod)?;
    runtime.check(&pod)?;
    for address in given {
        assert!(node.ping(address), "{address}");
    }
    for attachment in [&pod, &kept] {
        runtime.del(attachment)?;
        node.exec(&["ip", "netns", "delete", &attachment.container])?;
        runtime.del(&Attachment { netns: None, ..attachment.clone() })?;
    }
    nothing_is_left(&lab, node)?;
    lab.down()?;
    Ok(())
}
