//! One node's agent: its configuration, its name, its CNI conversations, and what operators are told when something is
//! wrong.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::pair::{ETCD, POOLS, container, first_address, links};
use tests::{CONVERGENCE, Lab, Node, Options, Place, TestResult, can_run_labs, wait_until};
use types::{ContainerId, Family, InterfaceName};

use crate::pair;

fn up(test: &str, agent: &str) -> Result<Lab, Box<dyn std::error::Error>> {
    Ok(Lab::up(&pair(test, agent)?, &Options::unique(test))?)
}

/// How many routes to single pods a node has.
fn pod_routes(node: &Node) -> Vec<String> {
    let all = ["-4", "-6"].map(|family| node.exec(&["ip", family, "route", "show", "proto", "77"]).unwrap_or_default());
    all.iter().flat_map(|text| text.lines()).filter(|line| !line.contains("unreachable")).map(str::to_owned).collect()
}

#[test]
fn del_then_at_once_add_of_the_same_attachment_works_and_gives_another_address() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("delandadd", &format!("{ETCD}{POOLS}"))?;
    let node = lab.node("node1");
    let (runtime, attachment) = (node.runtime()?, container(node, "again")?);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        assert!(
            seen.insert(first_address(&runtime.add(&attachment)?)),
            "an address was given out before its cool-down"
        );
        let error = runtime.add(&attachment).expect_err("a second ADD of one attachment");
        assert!(error.code().is_some(), "{error}");
        runtime.del(&attachment)?;
        runtime.del(&attachment)?;
    }
    wait_until("every link being deleted", CONVERGENCE, || links(node).is_empty())?;
    assert_eq!(pod_routes(node), Vec::<String>::new());
    lab.down()?;
    Ok(())
}

#[test]
fn del_works_without_the_agent_and_the_agent_makes_it_good_when_it_is_back() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("noagent", &format!("{ETCD}{POOLS}kernel: {{linkGroup: 99}}\n"))?;
    let node = lab.node("node1");
    let (runtime, gone, stays) = (node.runtime()?, container(node, "gone")?, container(node, "stays")?);
    let (address, kept) = (first_address(&runtime.add(&gone)?), first_address(&runtime.add(&stays)?));
    node.agent().kill9()?;
    let refused = runtime.add(&container(node, "new")?).expect_err("ADD without an agent");
    assert_eq!(refused.code(), Some(11), "{refused}");
    assert!(refused.to_string().contains("cni.sock"), "{refused}");
    runtime.del(&gone)?;
    runtime.del(&gone)?;
    assert_eq!(
        node.exec(&["ip", "-o", "link", "show", "group", "99"])?.lines().count(),
        1,
        "parked where the agent looks"
    );
    assert!(!pod_routes(node).iter().any(|route| address.starts_with(route.split(' ').next().unwrap_or(" "))));
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    let kept_link = ContainerId::new("stays").map(|id| InterfaceName::of_attachment(&id, &"eth0".parse().unwrap()))?;
    wait_until("only the other pod's link being left", CONVERGENCE, || links(node) == [kept_link.to_string()])?;
    let ctl = |address: &str| node.agent().ctl(&["ipam", "show", "--ip", address.split('/').next().unwrap_or(address)]);
    wait_until("the release being published", CONVERGENCE, || ctl(&address).is_err() && ctl(&kept).is_ok())?;
    assert_eq!(fs::read_dir(node.path("/run/manx/released"))?.count(), 0, "the tombstone is consumed");
    lab.down()?;
    Ok(())
}

#[test]
fn a_del_that_a_stalled_agent_did_not_hear_is_made_good_when_it_runs_again() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("stalled", &format!("{ETCD}{POOLS}"))?;
    let node = lab.node("node1");
    let (runtime, gone) = (node.runtime()?, container(node, "gone")?);
    let address = first_address(&runtime.add(&gone)?);
    node.agent().freeze()?;
    runtime.del(&gone)?;
    node.agent().thaw()?;
    let show = || node.agent().ctl(&["ipam", "show", "--ip", address.split('/').next().unwrap_or(&address)]);
    wait_until("the release", CONVERGENCE, || show().is_err())?;
    wait_until("the tombstone being consumed", CONVERGENCE, || {
        fs::read_dir(node.path("/run/manx/released")).is_ok_and(|mut files| files.next().is_none())
    })?;
    // The same attachment is added again, as a new one: nothing that the old one left takes it down.
    let again = first_address(&runtime.add(&gone)?);
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    assert!(node.agent().ctl(&["ipam", "show", "--ip", again.split('/').next().unwrap_or(&again)]).is_ok());
    assert_eq!(links(node).len(), 1);
    lab.down()?;
    Ok(())
}

#[test]
fn an_exhausted_pool_is_code_11_naming_it_and_a_failed_add_leaks_nothing() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    // There are two blocks of four addresses: one for each node.
    let pools = "initialPools: [{cidr: 10.42.0.0/29, blockSize: 30}]\ncoolDown: 1s\n";
    let lab = up("exhausted", &format!("{ETCD}{pools}"))?;
    let node = lab.node("node1");
    let runtime = node.runtime()?;
    let mut attachments = Vec::new();
    for number in 0..4 {
        let attachment = container(node, &format!("pod{number}"))?;
        runtime.add(&attachment)?;
        attachments.push(attachment);
    }
    let before = (links(node).len(), pod_routes(node));
    let refused = runtime.add(&container(node, "toomany")?).expect_err("a fifth of four addresses");
    assert_eq!(refused.code(), Some(11), "{refused}");
    assert!(refused.to_string().contains("ipv4-ippool"), "{refused}");
    assert_eq!((links(node).len(), pod_routes(node)), before, "nothing is left of the attempt");
    // Once an address has been released and has rested, it is given out again.
    runtime.del(&attachments.remove(0))?;
    let last = container(node, "last")?;
    wait_until("the address being free again", CONVERGENCE, || runtime.add(&last).is_ok())?;
    lab.down()?;
    Ok(())
}

#[test]
fn malformed_calls_of_the_plugin_get_the_specs_json_and_code_and_change_nothing() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("malformed", &format!("{ETCD}{POOLS}"))?;
    let node = lab.node("node1");
    let runtime = node.runtime()?;
    let config = r#"{"cniVersion":"1.0.0","name":"manx","type":"manx"}"#;
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/var/run/netns/none"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let with = |name: &'static str, value: &'static str| env.map(|(n, v)| (n, if n == name { value } else { v }));
    for (env, stdin, code, part) in [
        (with("CNI_COMMAND", "FETCH"), config, 4, "FETCH"),
        (with("CNI_IFNAME", "a/b"), config, 4, "a/b"),
        (with("CNI_CONTAINERID", "-"), config, 4, "CNI_CONTAINERID"),
        (env, "{", 6, ""),
        (env, r#"{"cniVersion":"0.2.0","name":"manx","type":"manx"}"#, 1, "0.2.0"),
        (env, r#"{"cniVersion":"1.0.0","name":"a b","type":"manx"}"#, 7, "a b"),
    ] {
        let output = runtime.run("manx", &env, stdin)?;
        let error: Value = serde_json::from_str(&output.stdout)?;
        assert_eq!(error["code"], code, "{error}");
        assert!(error.to_string().contains(part), "{part} in {error}");
        assert!(!output.status.success());
    }
    let output = runtime.run("manx", &env, config)?;
    assert!(output.stdout.contains("/var/run/netns/none"), "{}", output.stdout);
    let versions = runtime.plugin_versions()?;
    assert_eq!(versions["supportedVersions"], serde_json::json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let status = env.map(|(n, v)| (n, if n == "CNI_COMMAND" { "STATUS" } else { v }));
    let version11 = r#"{"cniVersion":"1.1.0","name":"manx","type":"manx"}"#;
    assert!(runtime.run("manx", &status, version11)?.status.success());
    node.agent().kill9()?;
    let output = runtime.run("manx", &status, version11)?;
    assert!(output.stdout.contains("50"), "{}", output.stdout);
    assert!(links(node).is_empty());
    lab.down()?;
    Ok(())
}

#[test]
fn a_second_live_agent_of_a_nodes_name_is_refused_and_the_first_goes_on() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("second", &format!("{ETCD}{POOLS}"))?;
    let impostor = lab.node("node2");
    impostor.agent().terminate()?;
    let program = binary("manx-agent");
    let output = impostor.try_exec(&["env", "MANX_NODE_NAME=node1", "MANX_STATE_DIR=/var/lib/second", &program])?;
    assert!(!output.status.success());
    assert!(output.stderr.contains("node1") && output.stderr.contains("another live agent"), "{}", output.stderr);
    lab.node("node1").agent().check()?;
    lab.node("node1").agent().ready()?;
    lab.node("node1").plug("a")?;
    lab.down()?;
    Ok(())
}

#[test]
fn bad_configuration_ends_the_agent_with_an_error_that_names_the_key() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("badconfig", ETCD)?, &Options::unique("badconfig").without_agents())?;
    let node = lab.node("node1");
    let program = binary("manx-agent");
    for (text, part) in [
        ("etdc: {}\n", "etdc"),
        ("etcd: {endpoints: [nonsense]}\n", "etcd.endpoints"),
        ("initialPools: [{cidr: 10.0.0.0/28, blockSize: 26}]\n", "blockSize 26 does not fit 10.0.0.0/28"),
        ("addressDetection: {ipv4: interface=eth9}\n", "eth9"),
        ("bgp: {restartTime: never}\n", "bgp.restartTime"),
    ] {
        fs::write(node.path("/etc/manx/bad.yaml"), text)?;
        let output = node.try_exec(&[&program, "--config", "/etc/manx/bad.yaml"])?;
        assert!(!output.status.success() && output.stderr.contains(part), "{part} in {}", output.stderr);
    }
    lab.down()?;
    Ok(())
}

#[test]
fn manxctl_says_what_it_tried_where_nobody_answers_and_refuses_what_is_not_implemented() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("ctl", &format!("{ETCD}{POOLS}"))?;
    let node = lab.node("node1");
    let ctl = |words: &[&str]| node.agent().ctl(words);
    fs::write(
        node.path("/etc/manx/bad.yaml"),
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.9.0.0/16, ipipMode: Always, vxlanMode: Always}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: BGPFilter, metadata: {name: f}, spec: {}}\n",
    )?;
    let error = ctl(&["apply", "-f", "/etc/manx/bad.yaml"]).expect_err("unimplemented fields").to_string();
    for part in ["ipipMode: Always", "vxlanMode: Always", "BGPFilter"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let pools: Value = serde_json::from_str(&ctl(&["get", "ippools", "-o", "json"])?)?;
    assert_eq!(pools.as_array().map(Vec::len), Some(2), "nothing of the bad file was applied: {pools}");
    assert!(ctl(&["get", "ippools", "default-ipv4-ippool", "-o", "yaml"])?.contains("cidr: 10.42.0.0/16"));
    assert!(ctl(&["get", "ippool", "none"]).is_err());

    node.agent().kill9()?;
    let error = ctl(&["node", "status"]).expect_err("no agent").to_string();
    assert!(error.contains("/run/manx/agent.sock"), "{error}");
    lab.etcd().stop()?;
    let error = ctl(&["get", "ippools"]).expect_err("no etcd").to_string();
    assert!(error.contains("172.20.40.10:2379"), "{error}");
    lab.down()?;
    Ok(())
}

#[test]
fn agents_that_start_before_etcd_does_are_a_cluster_once_it_is_there() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("beforeetcd", &format!("{ETCD}{POOLS}"))?;
    let lab = Lab::up(&file, &Options::unique("beforeetcd").without_agents())?;
    lab.etcd().stop()?;
    for node in lab.manx_nodes() {
        node.agent().start()?;
    }
    let node = lab.node("node1");
    wait_until("the agent saying what it waits for", CONVERGENCE, || {
        node.agent().ctl(&["node", "status"]).is_ok_and(|status| status.contains("172.20.40.10"))
    })?;
    lab.etcd().start()?;
    for node in lab.manx_nodes() {
        node.agent().wait_ready(CONVERGENCE)?;
    }
    let (here, there) = (node.plug("a")?, lab.node("node2").plug("b")?);
    for family in Family::ALL {
        wait_until("the pods reaching each other", CONVERGENCE, || here.ping(there.address(family)))?;
    }
    lab.down()?;
    Ok(())
}

#[test]
fn a_node_without_etcd_works_alone_from_its_local_store() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("alone", POOLS)?;
    let node = lab.node("node1");
    let (one, two) = (node.plug("a")?, node.plug("b")?);
    for family in Family::ALL {
        assert!(one.ping(two.address(family)), "{family}");
    }
    let agent = node.agent();
    assert!(agent.ctl(&["ipam", "show", "--show-blocks"])?.contains("10.42."));
    assert!(agent.ctl(&["get", "ippools"])?.contains("default-ipv6-ippool"));
    agent.kill9()?;
    agent.start()?;
    agent.wait_ready(CONVERGENCE)?;
    assert!(agent.ctl(&["ipam", "show", "--ip", &one.address(Family::Ipv4).to_string()])?.contains('a'));
    node.unplug("a")?;
    wait_until("the link being deleted", CONVERGENCE, || links(node).len() == 1)?;
    lab.down()?;
    Ok(())
}

#[test]
fn the_gateway_of_a_pod_answers_arp_on_a_node_without_a_default_route() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("arp", &format!("{ETCD}{POOLS}"))?;
    let node = lab.node("node1");
    node.shell("ip route del default || true")?;
    let pod = node.plug("a")?;
    // The wiring gives the pod a permanent entry; without that entry, the node has to answer.
    pod.exec(&["ip", "neigh", "del", "169.254.1.1", "dev", "eth0"])?;
    assert!(pod.ping(
        node.exec(&["sh", "-c", "ip -4 -o addr show eth1 | sed 's/.*inet \\([^/]*\\).*/\\1/'"])?.trim().parse()?
    ));
    let neighbour = pod.exec(&["ip", "neigh", "show", "169.254.1.1"])?;
    assert!(neighbour.contains("ee:ee:ee:ee:ee:ee"), "{neighbour}");
    lab.down()?;
    Ok(())
}

fn binary(name: &str) -> String {
    let folder = std::env::var("MANX_BIN_DIR").map(PathBuf::from).unwrap_or_else(|_| {
        Path::new(env!("CARGO_BIN_EXE_manx-lab")).parent().unwrap_or_else(|| Path::new("/")).to_owned()
    });
    folder.join(name).display().to_string()
}

#[test]
fn a_drained_node_is_sent_nothing_until_that_is_undone_or_its_agent_starts_again() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("drain", &format!("{ETCD}{POOLS}"))?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let (here, there) = (node.plug("a")?, other.plug("b")?);
    let agent = node.agent();
    let routes = || -> usize {
        let all = ["-4", "-6"].map(|family| other.exec(&["ip", family, "route", "show", "proto", "78"]));
        all.iter().flatten().flat_map(|text| text.lines()).count()
    };
    let reach = || wait_until("the pods reaching each other", CONVERGENCE, || there.ping(here.address(Family::Ipv4)));
    reach()?;
    agent.ctl(&["node", "drain"])?;
    wait_until("the other node having no route to it", CONVERGENCE, || routes() == 0)?;
    // The node's sessions stay: it hears of others, and none of what it took back comes again.
    let status = agent.ctl(&["node", "status"])?;
    assert!(status.contains("problem: drained") && status.contains("established"), "{status}");
    agent.ready()?;
    assert_eq!(agent.ctl(&["node", "drain", "--undo"])?.trim(), "not drained");
    reach()?;
    agent.ctl(&["node", "drain"])?;
    wait_until("the other node having no route to it", CONVERGENCE, || routes() == 0)?;
    agent.terminate()?;
    agent.start()?;
    agent.wait_ready(CONVERGENCE)?;
    reach()?;
    lab.down()?;
    Ok(())
}
