//! The lab itself: what it makes works, and nothing of it is left, however it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::mesh::{RATE, all_established, mesh};
use tests::{
    Apiserver, Capture, CniError, Lab, LabError, Options, Place, Probe, ProcessId, Role, TestResult, Topology,
    can_run_labs, topology_file, wait_until,
};
use types::Family;
use types::resource::Resource;

/// How long the kernel may take, on a busy machine, for what it does by itself.
const SOON: Duration = Duration::from_secs(20);

/// Two hosts with a link, one of them with the reference CNI plugins, and an etcd.
const PAIR: &str = "
name: pair
topology:
  defaults: { kind: linux, image: alpine }
  nodes:
    left:
      exec: [ip address add 192.0.2.1/24 dev eth1, ip address add 2001:db8::1/64 dev eth1]
      binds: [bridge.conflist:/etc/cni/net.d/10-bridge.conflist:ro]
    right:
      exec: [ip address add 192.0.2.2/24 dev eth1, ip address add 2001:db8::2/64 dev eth1]
    etcd:
      image: quay.io/coreos/etcd
      env: { ETCD_LISTEN_CLIENT_URLS: 'http://0.0.0.0:2379', ETCD_ADVERTISE_CLIENT_URLS: 'http://127.0.0.1:2379' }
  links:
    - endpoints: ['left:eth1', 'right:eth1']
";

const BRIDGE: &str = r#"{ "cniVersion": "1.0.0", "name": "pods", "plugins": [
    { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": { "type": "host-local",
        "ranges": [[{ "subnet": "10.9.0.0/24" }], [{ "subnet": "fd00:9::/64" }]] } },
    { "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.log_martians": "1" } } ] }"#;

fn pair(test: &str) -> Result<PathBuf, std::io::Error> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("bridge.conflist"), BRIDGE)?;
    fs::write(folder.join("pair.clab.yml"), PAIR)?;
    Ok(folder.join("pair.clab.yml"))
}

fn manx_lab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manx-lab"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What the kernel knows of a lab; all of it has to go with the lab.
struct Footprint {
    folder: PathBuf,
    processes: Vec<ProcessId>,
    namespaces: BTreeSet<u64>,
}

impl Footprint {
    fn of(folder: &Path) -> Self {
        let text = fs::read(folder.join("state.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&text).unwrap_or_default();
        let records = state["namespaces"].as_object().into_iter().flat_map(|records| records.values());
        let processes: Vec<ProcessId> = records
            .flat_map(|record| ["unshare", "init"].map(|which| serde_json::from_value(record[which].clone())))
            .collect::<Result<_, _>>()
            .unwrap();
        let namespaces = processes.iter().filter_map(|process| network_of(process.pid)).collect();
        Self { folder: folder.to_owned(), processes, namespaces }
    }

    /// The processes that are still in one of the lab's network namespaces.
    fn inhabitants(&self) -> Vec<i32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| network_of(*pid).is_some_and(|inode| self.namespaces.contains(&inode))).collect()
    }

    fn wait_dead(&self) -> TestResult {
        assert!(!self.processes.is_empty(), "the lab had not begun");
        wait_until("the lab's processes to be gone", SOON, || {
            self.inhabitants().is_empty() && !self.processes.iter().any(|process| process.is_alive())
        })
        .map_err(|error| format!("{error}: {:?} live on", self.inhabitants()).into())
    }

    fn assert_gone(&self) -> TestResult {
        self.wait_dead()?;
        assert!(!self.folder.exists(), "{} is left", self.folder.display());
        let name = self.folder.file_name().unwrap().to_str().unwrap();
        assert!(!fs::read_to_string("/proc/mounts")?.contains(name), "a mount is left");
        assert!(!Lab::list().iter().any(|lab| lab == name), "the lab is still listed");
        Ok(())
    }
}

fn network_of(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|file| file.ino())
}

#[test]
fn the_shipped_topologies_are_what_they_claim_to_be() -> TestResult {
    let mesh = Topology::read(&topology_file("mesh.clab.yml"))?;
    assert_eq!(mesh.of_role(Role::Manx).collect::<Vec<_>>(), ["node1", "node2", "node3"]);
    assert_eq!(mesh.of_role(Role::Frr).collect::<Vec<_>>(), ["tor"]);
    let reflectors = Topology::read(&topology_file("reflectors.clab.yml"))?;
    assert_eq!(reflectors.of_role(Role::Manx).count(), 5);
    assert_eq!(reflectors.of_role(Role::Frr).collect::<Vec<_>>(), ["rr2"]);
    let racks = Topology::read(&topology_file("racks.clab.yml"))?;
    assert_eq!(racks.of_role(Role::Machine).count(), 6);
    assert_eq!(racks.of_role(Role::ControlPlane).count(), 1);
    assert_eq!(racks.of_role(Role::Frr).collect::<Vec<_>>(), ["spine", "tor1", "tor2"]);
    for file in [&mesh, &reflectors, &racks] {
        for bind in file.nodes.values().flat_map(|node| &node.binds) {
            assert!(bind.source.is_file(), "{} is not there", bind.source.display());
        }
    }
    Ok(())
}

#[test]
fn the_files_beside_the_topologies_are_ones_that_manx_takes() -> TestResult {
    for (name, resources) in [("mesh", 6), ("reflectors", 5)] {
        let read = |file: &str| fs::read_to_string(topology_file(name).join(file));
        let settings: Value = serde_saphyr::from_str(&read("agent.yaml")?)?;
        let config = config::assemble(&settings, &BTreeMap::new(), "node1")?;
        assert_eq!(config.initial_pools.len(), 2);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&read("resources.yaml")?)?;
        assert_eq!(documents.len(), resources);
        for document in documents {
            Resource::from_value(document)?;
        }
    }
    for (name, resources) in [("peers.yaml", 4), ("no-mesh.yaml", 1), ("pools.yaml", 1)] {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&fs::read_to_string(topology_file("racks").join(name))?)?;
        assert_eq!(documents.len(), resources, "{name}");
        documents.into_iter().try_for_each(|document| Resource::from_value(document).map(drop))?;
    }
    Ok(())
}

#[test]
fn the_mesh_comes_up_with_a_routed_fabric_frr_and_etcd_and_goes_down_without_a_trace() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&topology_file("mesh.clab.yml"), &Options::unique("mesh").without_agents())?;
    let footprint = Footprint::of(lab.folder());
    assert_eq!(footprint.namespaces.len(), 7, "six nodes and the management network");
    let node = lab.node("node1");
    for address in ["172.31.2.3", "fd00:31:3::3", "172.20.31.10", "fd00:20:31::10"] {
        assert!(node.ping(address.parse()?), "node1 does not reach {address}");
    }
    let neighbours = lab.node("tor").frr().vtysh("show bgp summary json")?;
    assert!(neighbours.contains("172.31.1.3") && neighbours.contains("fd00:31:3::3"), "{neighbours}");
    let health = node.http_get("172.20.31.10:2379".parse()?, "/health")?;
    assert_eq!(health.status, 200, "{}", health.body);
    assert_eq!(node.exec(&["hostname"])?.trim(), "node1");
    assert!(node.path("/etc/manx/agent.yaml").is_file());
    assert!(!Path::new("/etc/manx/resources.yaml").exists(), "a node's /etc is not the host's");
    lab.down()?;
    footprint.assert_gone()
}

#[test]
fn labs_of_one_topology_run_side_by_side_and_know_nothing_of_each_other() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("side-by-side")?;
    let one = Lab::up(&file, &Options::unique("side"))?;
    let two = Lab::up(&file, &Options::unique("side"))?;
    one.etcd().ctl(&["put", "who", "one"])?;
    two.etcd().ctl(&["put", "who", "two"])?;
    assert_eq!(one.etcd().ctl(&["get", "--print-value-only", "who"])?.trim(), "one");
    one.node("right").exec(&["ip", "link", "set", "eth1", "down"])?;
    assert!(!one.node("left").ping("192.0.2.2".parse()?));
    assert!(two.node("left").ping("192.0.2.2".parse()?));
    one.down()?;
    assert!(two.node("left").ping("2001:db8::2".parse()?));
    Ok(())
}

#[test]
fn of_two_meshes_with_the_same_addresses_one_goes_down_and_the_other_loses_no_packet() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (gone, _, _) = mesh("twin")?;
    let (lab, one, two) = mesh("twin")?;
    let footprint = Footprint::of(gone.folder());
    let start = |family| Probe::start(&one, &two, two.address(family), RATE);
    let probes = Family::ALL.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
    gone.down()?;
    footprint.assert_gone()?;
    wait_until("the sessions of the other one", SOON, || all_established(lab.node("node1")) == Some(6))?;
    for probe in probes {
        let report = probe.finish();
        assert_eq!((report.lost, report.sent > 0), (0, true), "{report:?}");
    }
    Ok(lab.down()?)
}

#[test]
fn a_name_that_is_taken_is_refused() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("taken")?;
    let lab = Lab::up(&file, &Options::unique("taken"))?;
    let again = Lab::up(&file, &Options::default().named(lab.name()));
    assert!(matches!(again, Err(LabError::NameTaken(name)) if name == lab.name()));
    assert!(lab.node("left").ping("192.0.2.2".parse()?), "the first is unharmed");
    Ok(())
}

/// Starts `manx-lab up` and waits until it is in the middle of it.
fn half_up(name: &str, file: &Path) -> Result<(Child, Footprint), Box<dyn std::error::Error>> {
    let child = manx_lab().args(["up", "--without-agents", "--name", name]).arg(file).spawn()?;
    let folder = Path::new("/run/manx-lab").join(name);
    let mut footprint = None;
    wait_until("half a lab", SOON, || {
        footprint = Some(Footprint::of(&folder)).filter(|footprint| footprint.processes.len() >= 4);
        footprint.is_some()
    })?;
    Ok((child, footprint.ok_or("no footprint")?))
}

#[test]
fn a_lab_killed_while_it_comes_up_leaves_no_process_and_down_removes_the_rest() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let name = format!("killed-{}", std::process::id());
    let (mut child, footprint) = half_up(&name, &topology_file("mesh.clab.yml"))?;
    child.kill()?;
    child.wait()?;
    footprint.wait_dead()?;
    // Another lab that comes up meanwhile may have removed it already.
    let down = manx_lab().args(["down", &name]).status()?;
    assert!(down.success() || !footprint.folder.exists());
    footprint.assert_gone()
}

#[test]
fn the_next_lab_takes_down_what_a_crashed_one_left() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = pair("crashed")?;
    let (mut child, footprint) = half_up(&format!("crashed-{}", std::process::id()), &file)?;
    child.kill()?;
    child.wait()?;
    footprint.wait_dead()?;
    Lab::up(&file, &Options::unique("next"))?.down()?;
    footprint.assert_gone()
}

#[test]
fn ctrl_c_takes_everything_down() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (mut child, footprint) = half_up(&format!("ctrlc-{}", std::process::id()), &topology_file("mesh.clab.yml"))?;
    let process = i32::try_from(child.id()).ok().and_then(ProcessId::of).ok_or("manx-lab is gone")?;
    process.signal(Signal::SIGINT)?;
    let status = child.wait()?;
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    footprint.assert_gone()
}

/// What a program has printed so far.
type Said = Lines<BufReader<ChildStdout>>;

/// Starts `manx-lab demo`; returns what it has printed and what the lab consists of, once it has printed `until`.
fn demo(name: &str, until: &str) -> Result<(Child, Said, Footprint), Box<dyn std::error::Error>> {
    let mut child = manx_lab().args(["demo", "--name", name]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let said = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with(until));
    let footprint = Footprint::of(&Path::new("/run/manx-lab").join(name));
    assert!(said && !footprint.processes.is_empty(), "the demo did not come to {until:?}");
    Ok((child, lines, footprint))
}

#[test]
fn the_demo_shows_all_that_it_announces_and_leaves_nothing() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (mut child, lines, footprint) = demo(&format!("demo-{}", std::process::id()), "== Plugging in")?;
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    assert!(child.wait()?.success(), "{}", lines.join("\n"));
    let titles: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("== ")).collect();
    let expected = [
        "Waiting for BGP",
        "The BGP peers of each node",
        "The blocks",
        "The router's own view",
        "Who reaches whom",
        "One packet from node1/a to node2/a",
        "Killing the agent of node1",
        "The router announces the address of node2/a as its own",
        "Policies",
        "Why does node2/b not reach node1/a?",
        "Taking everything down",
    ];
    assert_eq!(titles.len(), expected.len(), "{titles:?}");
    assert!(titles.iter().zip(expected).all(|(title, begin)| title.starts_with(begin)), "{titles:?}");
    footprint.assert_gone()
}

#[test]
fn ctrl_c_in_the_middle_of_the_demo_leaves_nothing() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    // At that point probes are under way, and an agent is being started again.
    let (mut child, lines, footprint) = demo(&format!("demo-ctrlc-{}", std::process::id()), "  killed")?;
    let process = i32::try_from(child.id()).ok().and_then(ProcessId::of).ok_or("manx-lab is gone")?;
    process.signal(Signal::SIGINT)?;
    let rest = lines.collect::<Result<Vec<_>, _>>()?.join("\n");
    assert_eq!(child.wait()?.code(), Some(130), "{rest}");
    assert!(rest.contains("SIGINT: taking down"), "{rest}");
    footprint.assert_gone()
}

#[test]
fn a_lab_left_running_can_be_entered_and_taken_down_by_name() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let name = format!("left-{}", std::process::id());
    let up = manx_lab().args(["up", "--name", &name]).arg(pair("left-running")?).status()?;
    assert!(up.success());
    let footprint = Footprint::of(&Path::new("/run/manx-lab").join(&name));
    let run = |words: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let output = manx_lab().args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    assert!(run(&["list"])?.lines().any(|line| line == name));
    assert!(run(&["shell", "--lab", &name, "left", "--", "ip", "address"])?.contains("192.0.2.1/24"));
    assert!(run(&["plug", "--lab", &name, "left", "web"])?.contains("left/web has 10.9.0.2 and fd00:9::2"));
    assert!(run(&["shell", "--lab", &name, "left/web", "--", "ip", "address"])?.contains("10.9.0.2/24"));
    run(&["unplug", "--lab", &name, "left", "web"])?;
    let again = manx_lab().args(["up", "--name", &name]).arg(pair("left-running")?).status()?;
    assert!(!again.success(), "a lab that is up is not brought up again");
    assert!(run(&["shell", "--lab", &name, "left", "--", "hostname"])?.contains("left"));
    run(&["down", &name])?;
    footprint.assert_gone()
}

#[test]
fn pods_are_plugged_in_through_a_chain_of_plugins_and_found_by_their_addresses() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("pods")?, &Options::unique("pods"))?;
    let node = lab.node("left");
    let (a, b) = (lab.pod("left", "a")?, lab.pod("left", "b")?);
    for family in Family::ALL {
        wait_until(&format!("a to reach b by {family}"), SOON, || a.ping(b.address(family)))?;
    }
    assert!(a.exec(&["sysctl", "net.ipv4.conf.eth0.log_martians"])?.contains("= 1"), "the second plugin ran");

    let (v4, capture) = (b.address(Family::Ipv4), Capture::start(&b, "eth0", "icmp[icmptype] == icmp-echo", 1, 10)?);
    assert!(a.ping(v4));
    let packets = capture.finish()?;
    let packet = packets.first().ok_or("no packet")?;
    assert!(packet.contains(&format!("{} > {v4}: ICMP echo request", a.address(Family::Ipv4))), "{packet}");

    node.unplug("a")?;
    assert!(!node.exec(&["ip", "netns", "list"])?.lines().any(|line| line.starts_with("a ")));
    let refused = node.runtime()?.add(&tests::Attachment { interface: "x/y".to_owned(), ..b.attachment.clone() });
    assert!(matches!(refused, Err(CniError::Refused { ref msg, .. }) if msg.contains("interface")), "{refused:?}");
    assert!(matches!(lab.node("right").plug("c"), Err(LabError::Cni(CniError::Network { .. }))));
    assert!(!lab.node("right").exec(&["ip", "netns", "list"])?.contains('c'), "nothing is left of the pod");
    Ok(())
}

#[test]
fn a_probe_counts_what_is_lost_and_nothing_else() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("probe")?, &Options::unique("probe"))?;
    let (left, right) = (lab.node("left"), lab.node("right"));
    let started = |address: &str| Probe::start(left, right, address.parse().unwrap(), 200);
    let (four, six) = (started("192.0.2.2")?, started("2001:db8::2")?);
    right.exec(&["sleep", "0.5"])?;
    let (four, six) = (four.finish(), six.finish());
    assert!(four.sent > 0 && four.lost == 0 && four.errors.is_empty(), "{four:?}");
    assert!(six.sent > 0 && six.lost == 0 && six.errors.is_empty(), "{six:?}");

    // The link is down until the end: what is sent meanwhile may wait for it and arrive after all.
    let cut = started("192.0.2.2")?;
    right.shell("ip link set eth1 down; sleep 0.3")?;
    let cut = cut.finish();
    assert!(cut.lost > 0 && cut.lost <= cut.sent, "{cut:?}");
    Ok(())
}

#[test]
fn etcd_keeps_its_data_over_a_crash_and_a_service_that_ends_is_told_with_its_last_words() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("services")?, &Options::unique("services"))?;
    lab.etcd().ctl(&["put", "key", "kept"])?;
    lab.etcd().stop()?;
    assert!(lab.etcd().ctl(&["--dial-timeout=1s", "--command-timeout=1s", "get", "key"]).is_err());
    lab.etcd().start()?;
    assert_eq!(lab.etcd().ctl(&["get", "--print-value-only", "key"])?.trim(), "kept");
    lab.etcd().freeze()?;
    assert!(lab.etcd().ctl(&["--command-timeout=1s", "get", "key"]).is_err());
    lab.etcd().thaw()?;
    lab.etcd().wait_healthy(SOON)?;
    // A lab can be taken down whatever state its services are in.
    lab.etcd().freeze()?;

    let node = lab.node("left");
    let mut command = node.command("sh");
    command.args(["-c", "sleep 0.2; echo these are its last words; exit 3"]);
    node.start_service("brief", command)?;
    let told = lab.wait_until("never", SOON, || node.check_service("brief").is_err());
    told?;
    let error = node.check_service("brief").unwrap_err().to_string();
    assert!(error.contains("brief on left") && error.contains("these are its last words"), "{error}");
    Ok(lab.down()?)
}

#[test]
fn the_api_server_keeps_what_it_was_told_over_a_crash() -> TestResult {
    if !Apiserver::can_run() {
        return Ok(());
    }
    let lab = Lab::up(&pair("apiserver")?, &Options::unique("apiserver"))?;
    let etcd = lab.nodes().find(|node| node.role() == Role::Etcd).ok_or("no etcd")?;
    let server = Apiserver::start(etcd)?;
    let namespace = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kept" } });
    let (_, made) = server.client()?.call("POST", "/api/v1/namespaces", Some(&namespace))?;
    server.stop()?;
    let mut client = Apiserver::start(etcd)?.client()?;
    let (_, kept) = client.call("GET", "/api/v1/namespaces/kept", None)?;
    assert_eq!(kept["metadata"]["uid"], made["metadata"]["uid"]);
    let labels = serde_json::json!({ "metadata": { "labels": { "a": "b" } } });
    let (_, labelled) = client.call("PATCH", "/api/v1/namespaces/kept", Some(&labels))?;
    assert_eq!(labelled["metadata"]["labels"]["a"], "b");
    let refused = client.call("GET", "/api/v1/namespaces/absent", None).unwrap_err();
    assert!(refused.to_string().contains("404"), "{refused}");
    Ok(lab.down()?)
}
