//! The reference plugins ptp, bridge and macvlan, with addresses of ours.

use super::*;
use tests::pair::container;
use tests::{Place as _, can_run_labs, say_skipped};

const IPAM: &str = "manx";

/// Whether the plugin is on this machine.
fn has(node: &Node, plugin: &str) -> bool {
    let there = node.path(&format!("/opt/cni/bin/{plugin}")).exists();
    if !there {
        say_skipped(&format!("the reference plugin {plugin} is not installed (containernetworking-plugins)"));
    }
    there
}

#[test]
fn pods_that_ptp_wires_with_our_addresses_are_reached_from_everywhere_and_outlive_the_agent() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("leases-ptp")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    if !has(node, "ptp") {
        return Ok(());
    }
    let plugin = json!({ "type": "ptp", "ipMasq": false, "mtu": 1400, "ipam": { "type": IPAM } });
    let ptp = network(node, "direct", &plugin)?;
    let (local, remote) = (node.plug("a")?, other.plug("b")?);
    let (one, two) = (container(node, "one")?, container(node, "two")?);
    let (first, second) = (ptp.add(&one)?, ptp.add(&two)?);
    assert_ne!(gateways(&first), gateways(&second), "{first} {second}");
    let (of_first, of_second) = (addresses(&first), addresses(&second));
    let everywhere: [&dyn Place; 4] = [node, other, &local, &remote];
    all_reach(&everywhere, &of_first)?;
    all_reach(&everywhere, &of_second)?;
    for address in of_second.iter().chain(local.addresses()).chain(remote.addresses()) {
        let address = address.to_string();
        wait_until(&format!("one reaching {address}"), CONVERGENCE, || pings(node, "one", &[&address]))?;
    }
    assert_eq!(check(&ptp, &one, &plugin, &first)?, Value::Null);

    // Without an agent, and after it, nothing changes for them.
    node.agent().kill9()?;
    all_reach(&[node, other], &of_first)?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    all_reach(&[node, other], &of_first)?;
    assert_eq!(check(&ptp, &one, &plugin, &first)?, Value::Null);
    let again = call(&ptp, "ADD", &one, &plugin)?;
    assert_ne!(again["code"], Value::Null, "a second ADD without a DEL: {again}");
    all_reach(&[node], &of_second)?;
    let third = container(node, "three")?;
    let of_third = addresses(&ptp.add(&third)?);
    assert!(of_third.iter().all(|address| !of_first.contains(address) && !of_second.contains(address)));
    all_reach(&[node, other], &of_third)?;

    // DEL, again, without a namespace; and while no agent runs.
    ptp.del(&two)?;
    ptp.del(&Attachment { netns: None, ..two })?;
    assert!(of_second.iter().all(|address| !node.ping(*address)));
    node.agent().kill9()?;
    ptp.del(&third)?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    wait_until("the addresses of a DEL without an agent being given back", CONVERGENCE, || {
        !of_third.iter().any(|address| is_given(node, address))
    })?;
    assert!(of_first.iter().all(|address| is_given(node, address)));
    // A configuration that asks for more than is done is refused by name, and nothing is left by ptp.
    let ranges = json!({ "type": "ptp", "ipam": { "type": IPAM, "ranges": [[{ "subnet": "10.1.0.0/24" }]] } });
    let refused = call(&network(node, "direct", &ranges)?, "ADD", &third, &ranges)?;
    assert!(refused["msg"].as_str().is_some_and(|msg| msg.contains("ipam.ranges=")), "{refused}");
    lab.down()?;
    Ok(())
}

/// Whether a pod has the address, as `manxctl ipam show` says.
fn is_given(node: &Node, address: &IpAddr) -> bool {
    node.agent().ctl(&["ipam", "show", "--ip", &address.to_string()]).is_ok()
}

#[test]
fn pods_on_a_bridge_share_a_subnet_of_ours_and_are_reached_from_everywhere() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("leases-bridge")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    if !has(node, "bridge") {
        return Ok(());
    }
    let plugin = json!({ "type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": { "type": IPAM } });
    let bridge = network(node, "lan", &plugin)?;
    let (local, remote) = (node.plug("a")?, other.plug("b")?);
    let (one, two) = (container(node, "one")?, container(node, "two")?);
    let (first, second) = (bridge.add(&one)?, bridge.add(&two)?);
    assert_eq!(gateways(&first), gateways(&second), "{first} {second}");
    let everywhere: [&dyn Place; 4] = [node, other, &local, &remote];
    for result in [&first, &second] {
        all_reach(&everywhere, &addresses(result))?;
    }
    for address in addresses(&second).iter().chain(local.addresses()).chain(remote.addresses()) {
        let address = address.to_string();
        wait_until(&format!("one reaching {address}"), CONVERGENCE, || pings(node, "one", &[&address]))?;
    }
    assert_eq!(check(&bridge, &one, &plugin, &first)?, Value::Null);
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    bridge.del(&two)?;
    // The bridge keeps its address when its pods have gone; so the subnet stays this network's.
    bridge.del(&one)?;
    let plain = node.plug("c")?;
    all_reach(&[other], plain.addresses())?;
    let third = bridge.add(&two)?;
    assert_eq!(gateways(&third), gateways(&first));
    all_reach(&[node, other], &addresses(&third))?;
    lab.down()?;
    Ok(())
}

#[test]
fn pods_of_macvlan_reach_each_other_and_the_network_once_the_node_has_the_gateway() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("leases-macvlan")?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    if !has(node, "macvlan") {
        return Ok(());
    }
    let plugin = json!({ "type": "macvlan", "master": "eth1", "mode": "bridge", "ipam": { "type": IPAM } });
    let macvlan = network(node, "wire", &plugin)?;
    let (one, two) = (container(node, "one")?, container(node, "two")?);
    let (first, second) = (macvlan.add(&one)?, macvlan.add(&two)?);
    for address in addresses(&second) {
        let address = address.to_string();
        wait_until(&format!("one reaching {address}"), CONVERGENCE, || pings(node, "one", &[&address]))?;
    }
    // The kernel lets a node reach a macvlan only by one of its own.
    assert!(addresses(&first).iter().all(|address| !node.ping(*address)));
    node.exec(&["ip", "link", "add", "gateway", "link", "eth1", "type", "macvlan", "mode", "bridge"])?;
    for ip in first["ips"].as_array().into_iter().flatten() {
        let text = |key: &str| ip[key].as_str().unwrap_or_default().to_owned();
        let length = text("address").rsplit('/').next().unwrap_or_default().to_owned();
        node.exec(&["ip", "address", "add", &format!("{}/{length}", text("gateway")), "dev", "gateway"])?;
    }
    node.exec(&["ip", "link", "set", "gateway", "up"])?;
    let (local, remote) = (node.plug("a")?, other.plug("b")?);
    let everywhere: [&dyn Place; 4] = [node, other, &local, &remote];
    for result in [&first, &second] {
        all_reach(&everywhere, &addresses(result))?;
    }
    assert_eq!(check(&macvlan, &one, &plugin, &first)?, Value::Null);
    macvlan.del(&one)?;
    all_reach(&[node, other], &addresses(&second))?;
    lab.down()?;
    Ok(())
}
