//! A node that Manx leaves: nothing of ours stays, and everything of others.

use std::fs;

use serde_json::Value;
use tests::pair::{ETCD, POOLS};
use tests::{CONVERGENCE, Lab, Node, Options, Place, PodSpec, TestResult, can_run_labs, wait_for};
use types::{Family, InterfaceName};

use crate::pair;

/// Makes things of others on the node, of each kind that we have something of.
const OTHERS: &str = "
    iptables-nft -t mangle -N others
    iptables-nft -t mangle -A others -p udp -j ACCEPT
    iptables-nft -t mangle -I FORWARD -m comment --comment 'not manx' -j others
    iptables-nft -t filter -A INPUT -p tcp --dport 9 -j DROP
    ip6tables-nft -t raw -A PREROUTING -p udp --dport 9 -j DROP
    iptables-legacy -t filter -A OUTPUT -p udp --dport 9 -j DROP
    ip6tables-legacy -t filter -A OUTPUT -p udp --dport 9 -j DROP
    nft add table inet others
    nft add chain inet others c
    nft add rule inet others c tcp dport 9 drop
    ipset create others hash:ip
    ipset add others 198.51.100.1
    ip link add mxothers type veth peer name other0
    ip link set mxothers up group 77
    ip link set other0 up
    ip address add 198.51.100.2/24 dev mxothers
    ip route add 198.51.100.128/25 dev mxothers proto 79
    ip route add unreachable 203.0.113.0/24 proto static
    ip -6 route add unreachable 2001:db8:77::/64 proto 79
    ip route add unreachable 203.0.113.0/24 proto 77 table 100
    echo '{\"plugins\": [{\"type\": \"bridge\"}]}' >/etc/cni/net.d/99-others.conflist
    echo others >/etc/systemd/networkd.conf.d/60-others.conf
    mkdir -p /var/lib/manx-etcd && echo data >/var/lib/manx-etcd/data
";

/// Makes what an older Manx may have left in the variant of iptables that is not in use now.
const OLDER: &str = "
    iptables-legacy -t mangle -N manx-old
    iptables-legacy -t mangle -A manx-old -j RETURN
    iptables-legacy -t mangle -A FORWARD -m comment --comment manx:2a -j manx-old
";

/// All that can be seen of the node, line by line.
fn state(lab: &Lab, node: &Node) -> Result<Vec<String>, String> {
    // Counters change by themselves, and comments hold the time of the saving.
    let mut script = String::new();
    for program in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
        script += &format!("{program}-save 2>/dev/null | sed '/^#/d; s/ \\[[0-9:]*\\]$//; s/^/{program} /'\n");
    }
    script += "nft list table inet others
        ipset save
        ip -4 route show table all
        ip -6 route show table all
        ip -o link show
        ip -o address show
        cd / && find etc/cni etc/systemd opt/cni run/manx var/lib/manx var/lib/manx-etcd ! -type d -printf '/%p %y %s %T@\\n' | sort";
    let node = node.shell(&script).map_err(|error| error.to_string())?;
    let keys = lab.etcd().ctl(&["get", "--prefix", "", "--keys-only"]).map_err(|error| error.to_string())?;
    let lines = node.lines().chain(keys.lines().filter(|line| !line.is_empty()));
    Ok(lines.map(|line| line.trim().to_owned()).collect())
}

/// Whether such a line is about something of node1's Manx.
fn is_ours(line: &str) -> bool {
    let marks = ["proto 77 ", "proto 78 ", "/10-manx.conflist", "/opt/cni/bin/manx ", "/opt/cni/bin/portmap "];
    let places = ["/run/manx/", "/var/lib/manx/", "/manx/v1/nodes/node1/"];
    let words = || line.split([' ', ':', '"', '@']);
    let is_marked = marks.iter().any(|mark| line.contains(mark)) && !line.contains("table 100");
    is_marked
        || line.contains("50-manx.conf")
        || line.contains("comment manx:")
        || line.contains("comment \"manx:")
        || places.iter().any(|place| line.starts_with(place))
        || words().any(|word| word.starts_with("manx-") || word.parse().is_ok_and(|name: InterfaceName| name.is_ours()))
}

/// The blocks that a node owns.
fn blocks(lab: &Lab, node: &str) -> Result<usize, String> {
    let said = lab.etcd().ctl(&["get", "--prefix", "/manx/v1/blocks/", "--print-value-only"]);
    let said = said.map_err(|error| error.to_string())?;
    Ok(said.lines().filter(|line| line.contains(&format!("\"owner\":\"{node}\""))).count())
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guard, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{from: [{ipBlock: {cidr: 10.42.0.0/16}}]}]
";

#[test]
fn nothing_of_ours_is_left_on_a_node_that_is_cleaned_and_everything_of_others() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("clean", &format!("{ETCD}{POOLS}"))?, &Options::unique("clean").without_agents())?;
    let (node, other) = (lab.node("node1"), lab.node("node2"));
    let agent = node.agent();
    // In the lab the CNI configuration is a mount, which nobody can delete; the test puts a file in its place.
    node.shell(
        "cp /etc/cni/net.d/10-manx.conflist /run/c && umount /etc/cni/net.d/10-manx.conflist &&
         cp /run/c /etc/cni/net.d/10-manx.conflist && mkdir -p /var/lib/image /etc/systemd && rm -f /opt/cni/bin/portmap &&
         cp -L /opt/cni/bin/manx /var/lib/image/ && echo portmap >/var/lib/image/portmap",
    )?;
    agent.ctl(&["node", "install", "--from", "/var/lib/image"])?;
    for node in lab.manx_nodes() {
        node.agent().start()?;
    }
    for node in lab.manx_nodes() {
        node.agent().wait_ready(CONVERGENCE)?;
    }
    fs::write(node.path("/etc/manx/policy.yaml"), POLICY)?;
    agent.ctl(&["apply", "-f", "/etc/manx/policy.yaml"])?;
    let (here, there) = (node.plug("a")?, other.plug("b")?);
    let gone = node.sandbox(PodSpec::new("gone"))?;
    let attachment = gone.attachment();
    node.runtime()?.add(&attachment)?;
    wait_for("the pods reaching each other", CONVERGENCE, || {
        if here.ping(there.address(Family::Ipv4)) { Ok(()) } else { Err("no answer") }
    })?;
    node.shell(OTHERS)?;
    lab.etcd().ctl(&["put", "/others/key", "value"])?;

    // While there is an agent, nothing is touched, whether it answers or not.
    for hide in ["true", "rm /run/manx/agent.sock"] {
        node.shell(hide)?;
        let error = agent.ctl(&["node", "clean"]).expect_err("an agent runs").to_string();
        assert!(error.contains("an agent runs on this node"), "{error}");
    }
    assert!(here.ping(there.address(Family::Ipv4)));

    agent.terminate()?;
    // A DEL without an agent leaves its link parked, and a tombstone.
    node.runtime()?.del(&attachment)?;
    node.shell(OLDER)?;
    let before = state(&lab, node)?;
    let (ours, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|line| is_ours(line));
    for part in [
        "iptables-nft -A manx-",
        "iptables-nft -A FORWARD",
        "ip6tables-nft -A manx-",
        "iptables-legacy -A manx-old",
        "create manx-",
        "proto 77",
        "proto 78",
        "group 77",
        "/etc/cni/net.d/10-manx.conflist",
        "/opt/cni/bin/manx",
        "/opt/cni/bin/portmap",
        "/etc/systemd/networkd.conf.d/50-manx.conf",
        "/run/manx/released/",
        "/var/lib/manx/journal.db",
        "/manx/v1/nodes/node1/registration",
    ] {
        assert!(ours.iter().any(|line| line.contains(part)), "{part} in\n{}", ours.join("\n"));
    }
    assert!(blocks(&lab, "node1")? > 0);
    let theirs = blocks(&lab, "node2")?;

    let clean = ["node", "clean", "--from", "/var/lib/image"];
    let said = agent.ctl(&clean)?;
    for part in ["interface mx", "set manx-", "table mangle (nft)", "table mangle (legacy)", "key blocks/10.42."] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    assert_eq!((blocks(&lab, "node1")?, blocks(&lab, "node2")?), (0, theirs));
    same(&others, &state(&lab, node)?)?;
    assert!(!node.path("/var/lib/manx").exists() && !node.path("/run/manx").exists());
    assert_eq!(agent.ctl(&clean)?.trim(), "nothing of Manx was on this node");
    same(&others, &state(&lab, node)?)?;

    // A set that another program's rule uses stays, and is named; the rest goes.
    node.shell(
        "ipset create manx-held hash:ip && ipset create manx-free hash:ip &&
         iptables-nft -A INPUT -m set --match-set manx-held src -j ACCEPT",
    )?;
    let error = agent.ctl(&clean).expect_err("a set in use").to_string();
    assert!(error.contains("set manx-held stays") && error.contains("removed set manx-free"), "{error}");
    node.shell("iptables-nft -D INPUT -m set --match-set manx-held src -j ACCEPT")?;
    assert!(agent.ctl(&clean)?.contains("removed set manx-held"));

    // The data of the etcd for trying out goes when that is asked for.
    assert!(agent.ctl(&["node", "clean", "--etcd-data"])?.contains("removed /var/lib/manx-etcd"));
    lab.etcd().stop()?;
    let error = agent.ctl(&clean).expect_err("no etcd").to_string();
    assert!(error.contains("keys of node1 in etcd stay") && error.contains("--keep-keys"), "{error}");
    agent.ctl(&["node", "clean", "--keep-keys"])?;

    // After that, Manx can be installed again.
    lab.etcd().start()?;
    agent.ctl(&["node", "install", "--from", "/var/lib/image"])?;
    node.shell("cp /run/c /etc/cni/net.d/10-manx.conflist")?;
    agent.start()?;
    agent.wait_ready(CONVERGENCE)?;
    let again = node.plug("again")?;
    wait_for("the new pod reaching the other node's", CONVERGENCE, || {
        if again.ping(there.address(Family::Ipv4)) { Ok(()) } else { Err("no answer") }
    })?;
    lab.down()?;
    Ok(())
}

/// Compares what was there before with what is there after; an error names the lines that are in one alone. The other
/// node may take a block, or an office.
fn same(before: &[String], after: &[String]) -> TestResult {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let moves = |line: &str| ["/manx/v1/blocks/", "/manx/v1/elected/"].iter().any(|key| line.starts_with(key));
        these.iter().filter(|line| !moves(line) && !those.contains(line)).cloned().collect()
    };
    let (missing, more) = (only(before, after), only(after, before));
    if missing.is_empty() && more.is_empty() {
        return Ok(());
    }
    Err(format!("gone:\n{}\nmore:\n{}", missing.join("\n"), more.join("\n")).into())
}

#[test]
fn a_node_whose_name_another_machine_has_keeps_that_ones_keys() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("cleanname", &format!("{ETCD}{POOLS}"))?, &Options::unique("cleanname"))?;
    let node = lab.node("node1");
    node.agent().terminate()?;
    let program = ["env", "MANX_NODE_NAME=node2", "manxctl", "node", "clean"];
    let output = node.try_exec(&program)?;
    assert!(!output.status.success() && output.stderr.contains("a live agent on another machine"), "{}", output.stderr);
    let said: Value = serde_json::from_str(&lab.node("node2").agent().ctl(&["node", "status", "-o", "json"])?)?;
    assert_eq!(said["ready"], true, "{said}");
    assert!(blocks(&lab, "node2")? > 0);
    lab.down()?;
    Ok(())
}
