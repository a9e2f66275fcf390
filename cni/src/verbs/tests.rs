//! Whole invocations against a fake kernel and a fake agent.

mod host_ports;
mod in_the_kernel;
mod leases;
mod limits;
mod second_interface;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use kernel::fake::{FakeKernel, Operation};
use kernel::{InterfaceAddress, Link, Netns, Route, SysctlKey, ours};
use serde_json::{Value, json};
use tempfile::TempDir;
use types::cni::{Park, Refused, Reply, Request};
use types::{InterfaceName, Prefix};

use super::*;
use crate::fake_agent::{FakeAgent, Play};

/// A group that is not the default, so that a test sees where the number comes from.
const GROUP: u32 = 99;
const ENOSPC: i32 = 28;
const LO: u32 = 1;

/// A node with one pod's namespace and a scratch run folder.
struct Bed {
    host: FakeKernel,
    pod: FakeKernel,
    netns: RefCell<Option<Netns>>,
    run_dir: TempDir,
    /// The value of CNI_PATH.
    plugins: String,
}

impl Machine for Bed {
    fn host(&self) -> Result<Box<dyn Kernel>, KernelError> {
        Ok(Box::new(self.host.clone()))
    }

    fn pod(&self, _: &Path) -> Result<PodSide, CniError> {
        let netns = self.netns.borrow_mut().take().unwrap_or_else(|| Netns::current().unwrap());
        Ok(PodSide::at_hand(netns, Box::new(self.pod.clone())))
    }
}

/// What a pod's namespace and a node look like: links, addresses, routes, and IPv6 on `lo`.
type State = (Vec<Link>, Vec<InterfaceAddress>, Vec<Route>, Option<String>);

impl Bed {
    fn new() -> Self {
        let host = FakeKernel::new();
        let netns = Netns::current().unwrap();
        let pod = host.namespace(&netns);
        // As a runtime makes it: nothing is up, IPv6 is off.
        pod.set_link_up(LO, false);
        pod.set_sysctl(lo_disable_ipv6(), "1");
        Self {
            host,
            pod,
            netns: RefCell::new(Some(netns)),
            run_dir: tempfile::tempdir().unwrap(),
            plugins: "/opt/cni/bin".to_owned(),
        }
    }

    fn agent(&self, scripts: Vec<Vec<Play>>) -> FakeAgent {
        FakeAgent::start(&self.run_dir.path().join("cni.sock"), scripts)
    }

    fn config(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "name": "net", "type": "manx", "runDir": self.run_dir.path() })
    }

    fn call(&self, command: &str, config: &Value) -> Outcome {
        let variables = BTreeMap::from([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"),
            ("CNI_PATH", self.plugins.as_str()),
        ]);
        let input = config.to_string();
        run(|name| variables.get(name).map(OsString::from), &mut input.as_bytes(), self)
    }

    fn add(&self) -> Outcome {
        self.call("ADD", &self.config("1.0.0"))
    }

    fn del(&self) -> Outcome {
        self.call("DEL", &self.config("1.0.0"))
    }

    fn pod_state(&self) -> State {
        let mut pod = self.pod.clone();
        (pod.links().unwrap(), pod.addresses().unwrap(), pod.all_routes(), pod.sysctl(&lo_disable_ipv6()))
    }

    fn host_link(&self) -> Option<Link> {
        self.host.clone().link(&host_interface()).unwrap()
    }

    fn tombstone(&self) -> Option<String> {
        std::fs::read_to_string(self.run_dir.path().join("released").join(host_interface().as_str())).ok()
    }
}

fn lo_disable_ipv6() -> SysctlKey {
    SysctlKey::global("ipv6/conf/lo/disable_ipv6")
}

fn id() -> EndpointId {
    "net/c1/eth0".parse().unwrap()
}

fn host_interface() -> InterfaceName {
    id().host_interface()
}

fn wire() -> Wire {
    Wire {
        host_interface: host_interface(),
        addresses: vec!["10.65.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        subnets: Vec::new(),
        mtu: 1_450,
        parked_group: GROUP,
        host_ports: Vec::new(),
        stale_mappings: Vec::new(),
        hears_made: true,
    }
}

fn park() -> Play {
    Play::Say(Reply::Park(Park { host_interface: host_interface(), parked_group: GROUP }))
}

fn accepts_add() -> Vec<Play> {
    vec![Play::Say(Reply::Wire(wire())), Play::Say(Reply::Done)]
}

fn refuses(code: u32, msg: &str) -> Play {
    Play::Say(Reply::Refused(Refused { code, msg: msg.to_owned() }))
}

/// The error object's code and message.
fn error(outcome: &Outcome) -> (u64, String) {
    assert!(!outcome.success, "{outcome:?}");
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    (object["code"].as_u64().unwrap(), object["msg"].as_str().unwrap().to_owned())
}

fn succeeded(outcome: &Outcome) {
    assert!(outcome.success, "{outcome:?}");
}

#[test]
fn add_tells_the_agent_who_the_pod_is_wires_it_and_prints_the_result() {
    let bed = Bed::new();
    let agent = bed.agent(vec![accepts_add()]);
    let mut config = bed.config("1.1.0");
    config["args"] =
        json!({ "cni": { "labels": { "app": "web" }, "manx.io/ports": [{ "name": "http", "port": 80 }] } });
    config["prevResult"] = json!({ "cniVersion": "1.1.0", "interfaces": [{ "name": "lo" }] });
    let outcome = bed.call("ADD", &config);
    succeeded(&outcome);

    let heard = agent.heard();
    let [Request::Attach(attach), Request::Made, Request::Wired] = heard[0].as_slice() else { panic!("{heard:?}") };
    assert_eq!((attach.protocol, attach.id.clone(), attach.pod.to_string()), (PROTOCOL, id(), "shop/web".to_owned()));
    assert_eq!(attach.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    assert_eq!(attach.ports[0].port, 80);

    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(result["interfaces"][1]["name"], host_interface().as_str());
    assert_eq!(result["interfaces"][2]["sandbox"], "/run/netns/c1");
    assert_eq!(result["interfaces"][2]["mtu"], 1_450);
    assert_eq!(
        result["ips"][1],
        json!({ "address": "fd00::2/128", "gateway": "fe80::ecee:eeff:feee:eeee", "interface": 2 })
    );

    let link = bed.host_link().unwrap();
    assert_eq!((link.up, link.mtu, link.mac, link.group), (true, 1_450, Some([0xee; 6]), 0));
    let host = host_interface();
    for (key, value) in [
        (SysctlKey::ipv4_conf(&host, "proxy_arp"), "1"),
        (SysctlKey::ipv4_neigh(&host, "proxy_delay"), "0"),
        (SysctlKey::ipv6_conf(&host, "accept_dad"), "0"),
        (SysctlKey::ipv6_conf(&host, "accept_ra"), "0"),
    ] {
        assert_eq!(bed.host.sysctl(&key).as_deref(), Some(value), "{key}");
    }
    let (links, addresses, routes, ipv6_off) = bed.pod_state();
    assert!(links.iter().all(|link| link.up));
    let addresses: Vec<_> = addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix_len)).collect();
    assert_eq!(addresses, ["10.65.0.2/32", "fd00::2/128"]);
    let routes: Vec<_> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        ["0.0.0.0/0 via 169.254.1.1 dev 2", "169.254.1.1/32 dev 2", "::/0 via fe80::ecee:eeff:feee:eeee dev 2",]
    );
    let neighbours = bed.pod.clone().neighbours().unwrap();
    assert!(neighbours.len() == 2 && neighbours.iter().all(|n| n.permanent && n.mac == [0xee; 6]), "{neighbours:?}");
    assert_eq!(ipv6_off.as_deref(), Some("0"));
}

#[test]
fn the_agent_is_told_of_the_hosts_end_before_the_pods_end_is_up_and_an_older_one_of_both_together() {
    let bed = Bed::new();
    let (mut host, mut pod) = (bed.host.clone(), bed.pod.clone());
    let look = move || {
        assert!(host.link(&host_interface()).unwrap().unwrap().up);
        assert!(!pod.link(&"eth0".parse().unwrap()).unwrap().unwrap().up);
    };
    // The pod's end waits until that was seen.
    let (seen, done) = std::sync::mpsc::channel();
    let look = move || {
        let mut look = look;
        look();
        seen.send(()).unwrap();
    };
    bed.pod.before(Operation::AddAddress, move |_| done.recv().unwrap());
    let agent = bed.agent(vec![vec![Play::Say(Reply::Wire(wire())), Play::After(Box::new(look), Reply::Done)]]);
    succeeded(&bed.add());
    assert!(matches!(agent.heard()[0].as_slice(), [Request::Attach(_), Request::Made, Request::Wired]));

    let bed = Bed::new();
    let older = Wire { hears_made: false, ..wire() };
    let agent = bed.agent(vec![vec![Play::Say(Reply::Wire(older)), Play::Say(Reply::Done)]]);
    succeeded(&bed.add());
    assert!(matches!(agent.heard()[0].as_slice(), [Request::Attach(_), Request::Wired]));
}

#[test]
fn a_pod_that_has_a_default_route_of_another_network_keeps_it() {
    let bed = Bed::new();
    let _agent = bed.agent(vec![accepts_add()]);
    let other = bed.pod.add_link("net1", true);
    let standing = Route::on_link(Prefix::default_route(Family::Ipv4), 3, other);
    bed.pod.put_route(standing.clone()).unwrap();
    let outcome = bed.add();
    succeeded(&outcome);
    let mut routes = bed.pod.all_routes();
    routes.retain(|route| route.table == kernel::MAIN_TABLE);
    assert!(routes.contains(&standing) && routes.len() == 2, "{routes:?}");
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(result["routes"], json!([{ "dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee" }]));
}

#[test]
fn whichever_call_to_the_kernel_fails_nothing_is_left_and_the_agent_hears_no_wired() {
    let mut failed = 0;
    for operation in [
        Operation::Links,
        Operation::Link,
        Operation::CreateVeth,
        Operation::ChangeLink,
        Operation::AddAddress,
        Operation::ChangeRoutes,
        Operation::SetNeighbour,
        Operation::ReadSysctl,
        Operation::WriteSysctl,
    ] {
        for in_pod in [false, true] {
            for nth in 1.. {
                let bed = Bed::new();
                let before = bed.pod_state();
                let kernel = if in_pod { &bed.pod } else { &bed.host };
                kernel.fail(operation, nth, ENOSPC);
                let agent = bed.agent(vec![accepts_add()]);
                let outcome = bed.add();
                kernel.heal();
                if outcome.success {
                    drop(agent.heard());
                    break;
                }
                failed += 1;
                let (code, msg) = error(&outcome);
                assert_eq!(code, 102, "{msg}");
                assert!(msg.contains("no space left on device"), "{msg}");
                assert!(msg.starts_with(if in_pod { "in the pod's namespace: " } else { "on the node: " }), "{msg}");
                assert_eq!(bed.host_link(), None, "{operation:?} {nth}");
                assert_eq!(bed.pod_state().0.len(), 1, "{operation:?} {nth}");
                assert_eq!(bed.pod_state(), before, "{operation:?} {nth} in pod: {in_pod}");
                // The survey comes before the agent is asked.
                let surveying = if in_pod { Operation::Links } else { Operation::Link };
                if operation != surveying || nth > 1 {
                    assert!(!agent.heard()[0].contains(&Request::Wired));
                }
            }
        }
    }
    assert!(failed > 25, "only {failed} calls failed");
}

#[test]
fn what_cannot_be_taken_back_is_named() {
    let bed = Bed::new();
    bed.host.fail_always(Operation::DeleteLink, ENOSPC);
    bed.pod.fail(Operation::ChangeRoutes, 1, ENOSPC);
    let _agent = bed.agent(vec![accepts_add()]);
    let (code, msg) = error(&bed.add());
    assert_eq!(code, 102);
    assert!(msg.contains("(left behind: on the node: cannot delete link 2"), "{msg}");
}

#[test]
fn a_refusal_keeps_the_agents_code_and_message_and_leaves_nothing() {
    for script in [
        vec![refuses(11, "pool exhausted: 10.65.0.0/16")],
        vec![Play::Say(Reply::Wire(wire())), refuses(11, "pool exhausted: 10.65.0.0/16")],
    ] {
        let bed = Bed::new();
        let before = bed.pod_state();
        let _agent = bed.agent(vec![script]);
        assert_eq!(error(&bed.add()), (11, "pool exhausted: 10.65.0.0/16".to_owned()));
        assert_eq!(bed.host_link(), None);
        assert_eq!(bed.pod_state(), before);
    }
}

#[test]
fn an_agent_that_is_absent_or_dies_midway_is_code_11_and_leaves_nothing() {
    for script in [None, Some(vec![Play::HangUp]), Some(vec![Play::Say(Reply::Wire(wire())), Play::HangUp])] {
        let bed = Bed::new();
        let before = bed.pod_state();
        let _agent = script.map(|script| bed.agent(vec![script]));
        let (code, msg) = error(&bed.add());
        assert_eq!(code, 11);
        assert!(msg.contains("cni.sock"), "{msg}");
        assert_eq!((bed.host_link(), bed.pod_state()), (None, before));
    }
}

#[test]
fn an_agent_that_does_not_keep_to_the_conversation_is_code_101() {
    let other_name = Wire { host_interface: "mxother".parse().unwrap(), ..wire() };
    let two_of_a_family =
        Wire { addresses: vec!["10.65.0.2".parse().unwrap(), "10.65.0.3".parse().unwrap()], ..wire() };
    let none = Wire { addresses: Vec::new(), ..wire() };
    for (play, culprit) in [
        (Play::Babble(b"\0\0\0\x02{]"), "malformed message"),
        (Play::Babble(b"HTTP/1.1 400 Bad Request"), "longer than"),
        (Play::Say(Reply::Done), "answers Done to Attach"),
        (refuses(101, "the binary speaks protocol 1, the agent 3"), "protocol 1"),
        (Play::Say(Reply::Wire(other_name)), "mxother"),
        (Play::Say(Reply::Wire(two_of_a_family)), "one per family"),
        (Play::Say(Reply::Wire(none)), "one per family"),
    ] {
        let bed = Bed::new();
        let _agent = bed.agent(vec![vec![play]]);
        let (code, msg) = error(&bed.add());
        assert_eq!(code, 101, "{msg}");
        assert!(msg.contains(culprit), "{msg}");
        assert_eq!(bed.host_link(), None);
    }
}

#[test]
fn a_silent_agent_is_given_up() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("cni.sock");
    let agent = FakeAgent::start(&socket, vec![vec![Play::Muse]]);
    let time_limit = AnswerTimeLimit::of(std::time::Duration::from_millis(20));
    let error = Agent::connect(&socket, time_limit).unwrap().status().unwrap_err();
    assert!(matches!(error, AgentError::Broken { .. }), "{error}");
    assert_eq!(agent.heard().len(), 1);
}

#[test]
fn an_interface_that_the_pod_has_already_is_code_4_before_anything_is_touched() {
    let bed = Bed::new();
    bed.pod.add_link("eth0", true);
    let before = bed.pod_state();
    assert_eq!(error(&bed.add()), (4, "CNI_IFNAME: eth0 exists already in the pod's namespace".to_owned()));
    assert_eq!((bed.pod_state(), bed.host.calls()), (before, vec![Operation::Link]));
}

#[test]
fn a_second_add_without_del_fails_and_leaves_the_first_as_it_is() {
    let bed = Bed::new();
    // The agent is asked once.
    let agent = bed.agent(vec![accepts_add()]);
    succeeded(&bed.add());
    let standing = bed.host_link();
    // The runtime comes with a new namespace under the old id.
    let other = Bed {
        host: bed.host,
        pod: FakeKernel::new(),
        netns: RefCell::new(None),
        run_dir: bed.run_dir,
        plugins: bed.plugins,
    };
    let (code, msg) = error(&other.add());
    assert_eq!(code, 102);
    assert!(msg.contains(host_interface().as_str()), "{msg}");
    assert_eq!(other.host_link(), standing);
    assert_eq!(agent.heard().len(), 1);
}

#[test]
fn del_parks_the_link_and_an_add_at_once_replaces_it() {
    let bed = Bed::new();
    let agent = bed.agent(vec![accepts_add(), vec![park(), Play::Say(Reply::Done)], accepts_add()]);
    succeeded(&bed.add());
    let first = bed.host_link().unwrap();
    let outcome = bed.del();
    succeeded(&outcome);
    assert_eq!((outcome.stdout.as_str(), outcome.notes.len()), ("", 0));
    let parked = bed.host_link().unwrap();
    assert_eq!((parked.index, parked.up, parked.group), (first.index, false, GROUP));
    assert_eq!(bed.tombstone(), None);
    // The old pod's namespace is gone, but its link is not yet reaped.
    bed.pod.remove_link(2);
    succeeded(&bed.add());
    let second = bed.host_link().unwrap();
    assert!(second.index != first.index && second.up && second.group == 0);
    assert_eq!(agent.heard()[1].last(), Some(&Request::Parked));
}

#[test]
fn del_succeeds_again_and_again_whatever_is_left() {
    let bed = Bed::new();
    let done = || vec![Play::Say(Reply::Done)];
    let agent = bed.agent(vec![vec![park(), Play::Say(Reply::Done)], vec![park(), Play::Say(Reply::Done)], done()]);
    for _ in 0..3 {
        succeeded(&bed.del());
    }
    assert_eq!(agent.heard().len(), 3);
    // And with no agent at all.
    succeeded(&bed.del());
}

#[test]
fn del_of_what_the_agent_does_not_know_removes_the_remains_of_a_killed_add() {
    let bed = Bed::new();
    let _agent = bed.agent(vec![accepts_add(), vec![Play::Say(Reply::Done)]]);
    succeeded(&bed.add());
    succeeded(&bed.del());
    assert_eq!(bed.host_link(), None);
}

#[test]
fn del_without_an_agent_parks_the_link_and_leaves_a_tombstone() {
    let bed = Bed::new();
    let agent = bed.agent(vec![accepts_add()]);
    succeeded(&bed.add());
    drop(agent.heard());
    let outcome = bed.del();
    succeeded(&outcome);
    assert!(outcome.notes[0].contains("no agent at "), "{outcome:?}");
    let link = bed.host_link().unwrap();
    assert_eq!((link.up, link.group), (false, ours::LINK_GROUP));
    assert_eq!(bed.tombstone().as_deref(), Some("net/c1/eth0"));
}

#[test]
fn del_without_an_agent_parks_the_link_in_the_group_that_the_agent_was_configured_with() {
    let bed = Bed::new();
    let agent = bed.agent(vec![accepts_add()]);
    succeeded(&bed.add());
    drop(agent.heard());
    std::fs::write(bed.run_dir.path().join("parked-group"), GROUP.to_string()).unwrap();
    succeeded(&bed.del());
    let link = bed.host_link().unwrap();
    assert_eq!((link.up, link.group), (false, GROUP));
}

#[test]
fn an_agent_that_started_while_the_tombstone_was_written_is_told_and_the_tombstone_goes() {
    let bed = Bed::new();
    let config = NetworkConfig::parse(bed.config("1.0.0").to_string().as_bytes()).unwrap();
    let absent = Agent::connect(&config.agent_socket, AnswerTimeLimit::DEL).unwrap_err();
    let agent = bed.agent(vec![vec![park(), Play::Say(Reply::Done)]]);
    assert_eq!(bury(&config, &id(), &absent, &mut bed.host.clone()), None);
    assert_eq!(agent.heard()[0].len(), 2);
    assert_eq!(bed.tombstone(), None);
}

#[test]
fn del_survives_an_agent_that_dies_midway_refuses_or_babbles() {
    for script in [
        vec![Play::HangUp],
        vec![park(), Play::HangUp],
        vec![Play::Babble(b"\0\0\0\x01x")],
        vec![refuses(100, "journal is full")],
        vec![Play::Say(Reply::Wire(wire()))],
    ] {
        let bed = Bed::new();
        let _agent = bed.agent(vec![accepts_add(), script]);
        succeeded(&bed.add());
        let outcome = bed.del();
        succeeded(&outcome);
        assert_eq!(outcome.notes.len(), 1, "{outcome:?}");
        assert!(!bed.host_link().unwrap().up);
        assert_eq!(bed.tombstone().as_deref(), Some("net/c1/eth0"));
    }
}

#[test]
fn del_without_agent_and_without_room_for_a_tombstone_still_succeeds() {
    let bed = Bed::new();
    std::fs::write(bed.run_dir.path().join("released"), "not a folder").unwrap();
    let outcome = bed.del();
    succeeded(&outcome);
    assert!(outcome.notes[1].starts_with("no tombstone for net/c1/eth0 in "), "{outcome:?}");
}

#[test]
fn del_fails_only_when_the_kernel_does_not_let_go_of_the_link() {
    let bed = Bed::new();
    let _agent = bed.agent(vec![accepts_add(), vec![park()]]);
    succeeded(&bed.add());
    bed.host.fail_always(Operation::ChangeLink, ENOSPC);
    assert_eq!(error(&bed.del()).0, 102);
    assert!(bed.host_link().unwrap().up);
}

#[test]
fn status_is_silent_or_code_50_with_the_reason() {
    let bed = Bed::new();
    let agent = bed.agent(vec![vec![Play::Say(Reply::Done)], vec![refuses(50, "no block yet")]]);
    let outcome = bed.call("STATUS", &bed.config("1.1.0"));
    assert_eq!(outcome, Outcome::success(String::new()));
    assert_eq!(error(&bed.call("STATUS", &bed.config("1.1.0"))), (50, "no block yet".to_owned()));
    assert_eq!(agent.heard()[0], [Request::Status { protocol: PROTOCOL }]);
    let (code, msg) = error(&bed.call("STATUS", &bed.config("1.1.0")));
    assert_eq!(code, 50);
    assert!(msg.starts_with(&format!("no agent at {}/cni.sock: ", bed.run_dir.path().display())), "{msg}");
}

#[test]
fn a_command_that_the_version_does_not_have_is_code_1_and_one_without_what_it_needs_is_code_7() {
    let bed = Bed::new();
    for (command, version, code, msg) in [
        ("CHECK", "0.3.1", 1, "CHECK needs cniVersion 0.4.0, the config says 0.3.1"),
        ("CHECK", "0.3.0", 1, "CHECK needs cniVersion 0.4.0, the config says 0.3.0"),
        ("CHECK", "0.4.0", 7, "prevResult is missing: CHECK compares with it"),
        ("GC", "1.0.0", 1, "GC needs cniVersion 1.1.0, the config says 1.0.0"),
        ("GC", "1.1.0", 7, "cni.dev/valid-attachments is missing: without it nothing is collected"),
        ("STATUS", "1.0.0", 1, "STATUS needs cniVersion 1.1.0, the config says 1.0.0"),
    ] {
        let outcome = bed.call(command, &bed.config(version));
        assert_eq!(error(&outcome), (code, msg.to_owned()));
        let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(object["cniVersion"], version);
    }
}

#[test]
fn version_answers_whatever_is_on_stdin_and_touches_nothing() {
    let bed = Bed::new();
    let outcome = bed.call("VERSION", &json!({ "cniVersion": "1.0.0" }));
    succeeded(&outcome);
    assert!(outcome.stdout.contains("\"cniVersion\":\"1.0.0\""), "{}", outcome.stdout);
    let variable = |name: &str| (name == "CNI_COMMAND").then(|| OsString::from("VERSION"));
    succeeded(&run(variable, &mut &b"{"[..], &bed));
    assert_eq!(bed.host.calls().len() + bed.pod.count(Operation::Links), 0);
}

#[test]
fn stdin_that_cannot_be_read_is_code_5_and_a_bad_config_keeps_its_version() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("torn"))
        }
    }
    let bed = Bed::new();
    let variable = |name: &str| (name == "CNI_COMMAND").then(|| OsString::from("STATUS"));
    let outcome = run(variable, &mut Broken, &bed);
    let msg = "cannot read the network configuration from stdin: torn".to_owned();
    assert_eq!(error(&outcome), (5, msg));
    let outcome = bed.call("ADD", &json!({ "cniVersion": "0.4.0", "name": "net" }));
    assert_eq!(error(&outcome), (7, "type is missing".to_owned()));
    assert!(outcome.stdout.contains("\"cniVersion\":\"0.4.0\""), "{}", outcome.stdout);
}

/// A bed with a pod that was added and has its routes, and the configuration that CHECK gets.
fn checked_bed() -> (Bed, Value) {
    let bed = Bed::new();
    let agent = bed.agent(vec![accepts_add()]);
    let outcome = bed.add();
    succeeded(&outcome);
    drop(agent.heard());
    let index = bed.host_link().unwrap().index;
    for address in wire().addresses {
        bed.host.put_route(Route::on_link(Prefix::host(address), 77, index)).unwrap();
    }
    let mut config = bed.config("1.0.0");
    config["prevResult"] = serde_json::from_str(&outcome.stdout).unwrap();
    (bed, config)
}

#[test]
fn check_is_silent_where_all_is_as_add_left_it_and_where_others_have_added_to_it() {
    let (bed, mut config) = checked_bed();
    let agent = bed.agent(vec![vec![Play::Say(Reply::Wire(wire()))], vec![Play::Say(Reply::Wire(wire()))]]);
    assert_eq!(bed.call("CHECK", &config), Outcome::success(String::new()));
    // A plugin behind this one has changed the MAC, and has added an address and a route.
    let interfaces = config["prevResult"]["interfaces"].as_array_mut().unwrap();
    interfaces[1]["mac"] = json!("02:00:00:00:00:99");
    interfaces.push(json!({ "name": "ifb0", "sandbox": "" }));
    bed.pod.clone().add_address(&InterfaceAddress::new(2, "192.0.2.7".parse().unwrap(), 24)).unwrap();
    assert_eq!(bed.call("CHECK", &config), Outcome::success(String::new()));
    assert_eq!(agent.heard()[0], [Request::Check(types::cni::Check { protocol: PROTOCOL, id: id() })]);
}

#[test]
fn check_names_what_is_wrong_in_the_kernel_on_either_side() {
    type Harm = fn(&Bed);
    let harms: [(Harm, &str); 9] = [
        (|bed| bed.pod.remove_link(2), "the pod has no interface eth0"),
        (|bed| bed.host.remove_link(2), "the node has no interface mx"),
        (|bed| bed.host.set_link_up(2, false), "is down on the node"),
        (
            |bed| {
                let mut pod = bed.pod.clone();
                let addresses = pod.addresses().unwrap();
                let of_pod = addresses.iter().find(|own| own.address == wire().addresses[0]).unwrap();
                pod.delete_address(of_pod).unwrap();
            },
            "eth0 does not have 10.65.0.2",
        ),
        (
            |bed| bed.pod.remove_routes(Prefix::default_route(Family::Ipv6)),
            "the pod has no default route of ipv6 by eth0",
        ),
        (
            |bed| {
                let gateway = crate::plan::gateway(Family::Ipv4);
                bed.pod.clone().set_neighbour(&kernel::Neighbour::permanent(2, gateway, [2; 6])).unwrap();
            },
            "the pod's neighbour 169.254.1.1 has another MAC",
        ),
        (
            |bed| bed.host.set_sysctl(SysctlKey::ipv4_conf(&host_interface(), "rp_filter"), "0"),
            "rp_filter is 0 instead of 1",
        ),
        (
            |bed| bed.host.remove_routes(Prefix::host(wire().addresses[1])),
            "the node's route to fd00::2 does not lead to mx",
        ),
        (
            |bed| {
                let mut host = bed.host.clone();
                let addresses = host.addresses().unwrap();
                let of_pair = addresses.iter().find(|own| own.index == 2 && own.address.is_ipv4()).unwrap();
                host.delete_address(of_pair).unwrap();
            },
            "does not have 169.254.1.1",
        ),
    ];
    for (harm, told) in harms {
        let (bed, config) = checked_bed();
        harm(&bed);
        let _agent = bed.agent(vec![vec![Play::Say(Reply::Wire(wire()))]]);
        let (code, msg) = error(&bed.call("CHECK", &config));
        assert_eq!(code, 104, "{msg}");
        assert!(msg.starts_with("net/c1/eth0 is not as ADD left it: ") && msg.contains(told), "{msg}");
    }
}

#[test]
fn check_says_what_the_agent_lacks_and_goes_by_the_kernel_where_there_is_no_agent() {
    let (bed, config) = checked_bed();
    let other = Wire { addresses: vec!["10.65.0.9".parse().unwrap()], ..wire() };
    let lacks = "net/c1/eth0 holds no addresses on this node";
    let _agent = bed.agent(vec![vec![refuses(100, lacks)], vec![Play::Say(Reply::Wire(other))]]);
    let (code, msg) = error(&bed.call("CHECK", &config));
    assert!(code == 104 && msg.ends_with(lacks), "{msg}");
    let (code, msg) = error(&bed.call("CHECK", &config));
    assert!(code == 104 && msg.ends_with("holds 10.65.0.9, and prevResult says 10.65.0.2, fd00::2"), "{msg}");
    // Nobody answers any more.
    let _ = std::fs::remove_file(bed.run_dir.path().join("cni.sock"));
    let outcome = bed.call("CHECK", &config);
    succeeded(&outcome);
    assert!(outcome.notes[0].contains("no agent at "), "{outcome:?}");
    bed.host.remove_routes(Prefix::host(wire().addresses[1]));
    assert_eq!(error(&bed.call("CHECK", &config)).0, 104);
}

#[test]
fn check_of_a_result_that_is_not_of_this_interface_is_code_7() {
    let (bed, mut config) = checked_bed();
    config["prevResult"]["interfaces"][1]["name"] = json!("net9");
    let told = "prevResult.interfaces has no eth0 in a sandbox".to_owned();
    assert_eq!(error(&bed.call("CHECK", &config)), (7, told));
}

#[test]
fn gc_gives_the_agent_the_list_and_says_what_it_says() {
    let bed = Bed::new();
    let mut config = bed.config("1.1.0");
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "c2", "ifname": "eth0" }]);
    let agent = bed.agent(vec![vec![Play::Say(Reply::Done)], vec![refuses(100, "net/c9/eth0: busy")]]);
    assert_eq!(bed.call("GC", &config), Outcome::success(String::new()));
    assert_eq!(error(&bed.call("GC", &config)), (100, "net/c9/eth0: busy".to_owned()));
    let Request::Collect(collect) = &agent.heard()[0][0] else { panic!("not a GC") };
    assert_eq!(collect.network.to_string(), "net");
    let listed: Vec<_> = collect.valid.iter().map(|(id, name)| format!("{id}/{name}")).collect();
    assert_eq!(listed, ["c2/eth0"]);
    assert_eq!(error(&bed.call("GC", &config)).0, 11);
}

#[test]
fn status_keeps_the_agents_51() {
    let bed = Bed::new();
    let _agent = bed.agent(vec![vec![refuses(51, "policies are not in force")]]);
    let told = "policies are not in force".to_owned();
    assert_eq!(error(&bed.call("STATUS", &bed.config("1.1.0"))), (51, told));
}

#[test]
fn del_of_what_add_refuses_works() {
    for (key, value) in [("cniVersion", json!("0.2.0")), ("cniVersion", json!("2.0.0")), ("policy", json!({ "a": 1 }))]
    {
        let bed = Bed::new();
        let _agent = bed.agent(vec![accepts_add(), vec![park(), Play::Say(Reply::Done)]]);
        succeeded(&bed.add());
        let mut config = bed.config("1.0.0");
        config[key] = value;
        assert!([1, 2].contains(&error(&bed.call("ADD", &config)).0));
        succeeded(&bed.call("DEL", &config));
        assert!(!bed.host_link().unwrap().up);
    }
}

#[test]
fn an_mtu_of_the_configuration_is_the_pods_unless_it_does_not_fit() {
    for (mtu, code) in [(1_300, None), (1_450, None), (1_451, Some(2)), (1_279, Some(2))] {
        let bed = Bed::new();
        let _agent = bed.agent(vec![accepts_add()]);
        let mut config = bed.config("1.1.0");
        config["mtu"] = json!(mtu);
        let outcome = bed.call("ADD", &config);
        match code {
            None => {
                succeeded(&outcome);
                assert_eq!(u64::from(bed.host_link().unwrap().mtu), mtu);
                let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
                assert_eq!(result["interfaces"][1]["mtu"], mtu);
            }
            Some(code) => {
                assert_eq!(error(&outcome).0, code);
                assert_eq!(bed.host_link(), None);
            }
        }
    }
}
