//! Pods with host ports, against a portmap that is a script: it keeps what it is called with, and fails where it is told to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use types::host_ports::HostPort;
use types::policy::Protocol;

use super::*;

const PORT: HostPort = HostPort { protocol: Protocol::Tcp, container_port: 8080, host_port: 20_000 };

/// Writes `COMMAND.env` and `COMMAND.conf` beside itself. A file `fail-COMMAND` there is the error that it answers with.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
env | grep ^CNI_ | sort > "$here/$CNI_COMMAND.env"
cat > "$here/$CNI_COMMAND.conf"
echo "$CNI_COMMAND" >> "$here/calls"
if [ -e "$here/fail-$CNI_COMMAND" ]; then cat "$here/fail-$CNI_COMMAND"; exit 1; fi
echo '{}'
"#;

struct Portmap(PathBuf);

impl Portmap {
    /// In a folder of its own below the run folder, which the bed's CNI_PATH names from now on.
    fn install(bed: &mut Bed) -> Self {
        let folder = bed.run_dir.path().join("bin");
        fs::create_dir(&folder).unwrap();
        let program = folder.join("portmap");
        fs::write(&program, SCRIPT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        bed.plugins = format!("/nowhere:{}", folder.display());
        Self(folder)
    }

    /// The commands that it got since it was asked last.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.0.join("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    fn config(&self, command: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.0.join(format!("{command}.conf"))).unwrap()).unwrap()
    }

    fn environment(&self, command: &str) -> String {
        fs::read_to_string(self.0.join(format!("{command}.env"))).unwrap()
    }

    fn fail(&self, command: &str) {
        let error = json!({ "code": 999, "msg": "the lock is held", "details": "by somebody" });
        fs::write(self.0.join(format!("fail-{command}")), error.to_string()).unwrap();
    }

    fn mend(&self, command: &str) {
        fs::remove_file(self.0.join(format!("fail-{command}"))).unwrap();
    }
}

fn gives_a_port(stale: &[EndpointId]) -> Vec<Play> {
    let wire = Wire { host_ports: vec![PORT], stale_mappings: stale.to_vec(), ..wire() };
    vec![Play::Say(Reply::Wire(wire)), Play::Say(Reply::Done)]
}

fn accepts_del() -> Vec<Play> {
    vec![park(), Play::Say(Reply::Done)]
}

fn records(bed: &Bed) -> usize {
    fs::read_dir(bed.run_dir.path().join("mapped")).map_or(0, Iterator::count)
}

#[test]
fn portmap_maps_the_ports_that_the_agent_names_under_a_network_name_of_its_own() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    let agent = bed.agent(vec![gives_a_port(&[]), accepts_del()]);
    succeeded(&bed.add());
    assert_eq!(portmap.calls(), ["ADD"]);
    let config = portmap.config("ADD");
    assert_eq!(config["name"], format!("net-hostports-{}", host_interface()));
    let mapping = json!([{ "hostPort": 20_000, "containerPort": 8080, "protocol": "tcp" }]);
    assert_eq!(config["runtimeConfig"]["portMappings"], mapping);
    assert_eq!(config["prevResult"]["cniVersion"], config["cniVersion"]);
    assert_eq!(config["prevResult"]["ips"][0]["address"], "10.65.0.2/32");
    assert_eq!(config["prevResult"]["interfaces"][1]["sandbox"], "/run/netns/c1");
    let environment = portmap.environment("ADD");
    for line in ["CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/c1"] {
        assert!(environment.lines().any(|it| it == line), "{environment}");
    }
    assert_eq!(records(&bed), 1);

    succeeded(&bed.del());
    assert_eq!((portmap.calls(), records(&bed)), (vec!["DEL".to_owned()], 0));
    assert_eq!(portmap.config("DEL"), config, "a DEL has the configuration of its ADD");

    let heard = agent.heard();
    let [Request::Attach(attach), Request::Made, Request::Wired] = heard[0].as_slice() else { panic!("{heard:?}") };
    assert!(attach.maps_host_ports);
}

#[test]
fn a_del_unmaps_without_an_agent_and_a_second_one_calls_nobody() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    let agent = bed.agent(vec![gives_a_port(&[])]);
    succeeded(&bed.add());
    agent.heard();
    for calls in [vec!["ADD", "DEL"], vec![]] {
        succeeded(&bed.del());
        assert_eq!(portmap.calls(), calls);
    }
    assert_eq!(records(&bed), 0);
}

#[test]
fn where_ports_cannot_be_mapped_the_pod_is_taken_back() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    portmap.fail("ADD");
    let agent = bed.agent(vec![gives_a_port(&[]), accepts_del()]);
    let (code, msg) = error(&bed.add());
    assert!(code == 999 && msg.ends_with("portmap: the lock is held"), "{code} {msg}");
    assert_eq!(portmap.calls(), ["ADD", "DEL"]);
    assert_eq!(records(&bed), 0);
    let heard = agent.heard();
    assert!(matches!(heard[1].as_slice(), [Request::Detach(_), Request::Parked]), "{heard:?}");
    assert!(bed.host_link().is_none_or(|link| link.group == GROUP && !link.up));
}

#[test]
fn a_pod_with_host_ports_is_refused_where_there_is_no_portmap() {
    let mut bed = Bed::new();
    bed.plugins = "/nowhere".to_owned();
    let agent = bed.agent(vec![gives_a_port(&[]), accepts_del()]);
    let (code, msg) = error(&bed.add());
    assert_eq!((code, msg.as_str()), (4, "host ports: the CNI plugin portmap is in no folder of CNI_PATH (/nowhere)"));
    agent.heard();
}

#[test]
fn a_del_fails_while_ports_stay_mapped_for_they_would_lead_to_the_next_pod_of_the_address() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    let agent = bed.agent(vec![gives_a_port(&[])]);
    succeeded(&bed.add());
    agent.heard();
    portmap.fail("DEL");
    let (code, msg) = error(&bed.del());
    assert!(code == 999 && msg.starts_with("host ports of net/c1/eth0 stay mapped: "), "{code} {msg}");
    assert!(bed.host_link().is_some_and(|link| link.up), "the pod keeps its address as well");
    portmap.mend("DEL");
    succeeded(&bed.del());
    assert_eq!(records(&bed), 0);
}

#[test]
fn what_a_missed_del_left_mapped_is_unmapped_by_the_next_add() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    let other: EndpointId = "net/c0/eth0".parse().unwrap();
    // An earlier life of the other attachment, whose record is by its own name.
    let agent = bed.agent(vec![gives_a_port(&[])]);
    succeeded(&bed.add());
    agent.heard();
    let folder = bed.run_dir.path().join("mapped");
    let record = fs::read_to_string(folder.join(host_interface().as_str())).unwrap();
    fs::remove_file(folder.join(host_interface().as_str())).unwrap();
    let record = record.replace("net/c1/eth0", "net/c0/eth0");
    fs::write(folder.join(other.host_interface().as_str()), record).unwrap();
    let agent = bed.agent(vec![accepts_del()]);
    succeeded(&bed.del());
    agent.heard();
    portmap.calls();

    // It leads to the very address that this pod is to have.
    portmap.fail("DEL");
    let stale = Wire { stale_mappings: vec![other.clone()], ..wire() };
    let plays = || vec![Play::Say(Reply::Wire(stale.clone())), Play::Say(Reply::Done)];
    let agent = bed.agent(vec![plays()]);
    let (_, msg) = error(&bed.add());
    assert!(msg.starts_with("host ports of net/c0/eth0 stay mapped: "), "{msg}");
    agent.heard();

    portmap.mend("DEL");
    portmap.calls();
    let agent = bed.agent(vec![plays()]);
    succeeded(&bed.add());
    agent.heard();
    assert_eq!((portmap.calls(), records(&bed)), (vec!["DEL".to_owned()], 0));
    assert!(portmap.environment("DEL").contains("CNI_CONTAINERID=c0\n"));
}

/// The result of an ADD, as prevResult of what is called next.
fn checked(bed: &Bed, added: &Outcome) -> Outcome {
    let mut config = bed.config("1.0.0");
    config["prevResult"] = serde_json::from_str(&added.stdout).unwrap();
    bed.call("CHECK", &config)
}

#[test]
fn check_has_portmap_check_the_pods_ports_and_one_that_is_not_mapped_is_named() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    let ours = || Play::Say(Reply::Wire(Wire { host_ports: vec![PORT], ..wire() }));
    let agent = bed.agent(vec![gives_a_port(&[]), vec![ours()], vec![ours()], vec![ours()], vec![ours()]]);
    let added = bed.add();
    succeeded(&added);
    portmap.calls();
    // The fake kernels of this bed lack routes that only an agent makes; what is said of host ports is what matters here.
    let of_ports = |outcome: &Outcome| outcome.stdout.matches("host port").count();
    assert_eq!(of_ports(&checked(&bed, &added)), 0);
    assert_eq!(portmap.calls(), ["CHECK"]);
    assert!(portmap.environment("CHECK").contains("CNI_NETNS=/run/netns/c1\n"));
    portmap.fail("CHECK");
    assert!(checked(&bed, &added).stdout.contains("host ports: "));
    // What portmap 1.1.1 says of every pod on a node with ip6tables.
    let vain = json!({ "code": 999, "msg": "could not check ipv6 dnat: rule [[-p tcp -s 10.65.0.2/32 -j X]] in chain Y not found" });
    fs::write(portmap.0.join("fail-CHECK"), vain.to_string()).unwrap();
    assert_eq!(of_ports(&checked(&bed, &added)), 0);
    portmap.mend("CHECK");
    fs::remove_dir_all(bed.run_dir.path().join("mapped")).unwrap();
    assert!(checked(&bed, &added).stdout.contains("host ports 20000 are the pod's and not mapped to it"));
    agent.heard();
}

#[test]
fn gc_unmaps_what_it_collects_and_goes_on_where_portmap_fails() {
    let mut bed = Bed::new();
    let portmap = Portmap::install(&mut bed);
    let agent = bed.agent(vec![gives_a_port(&[])]);
    succeeded(&bed.add());
    agent.heard();
    portmap.calls();
    let folder = bed.run_dir.path().join("mapped");
    let record = fs::read_to_string(folder.join(host_interface().as_str())).unwrap();
    for (id, text) in [("net/c2/eth0", "net/c2/eth0"), ("other/c3/eth0", "other/c3/eth0")] {
        let id: EndpointId = id.parse().unwrap();
        fs::write(folder.join(id.host_interface().as_str()), record.replace("net/c1/eth0", text)).unwrap();
    }
    let gc = |bed: &Bed| {
        let mut config = bed.config("1.1.0");
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "c2", "ifname": "eth0" }]);
        bed.call("GC", &config)
    };
    portmap.fail("DEL");
    let agent = bed.agent(vec![vec![Play::Say(Reply::Done)]]);
    let (code, msg) = error(&gc(&bed));
    assert!(code == 999 && msg.starts_with("host ports of net/c1/eth0 stay mapped: "), "{code} {msg}");
    assert!(matches!(agent.heard()[0].as_slice(), [Request::Collect(_)]), "the agent collects all the same");
    portmap.mend("DEL");
    portmap.calls();
    let agent = bed.agent(vec![vec![Play::Say(Reply::Done)]]);
    succeeded(&gc(&bed));
    agent.heard();
    assert_eq!(portmap.calls(), ["DEL"]);
    assert!(portmap.environment("DEL").contains("CNI_CONTAINERID=c1\n"));
    assert_eq!(records(&bed), 2, "what is listed stays mapped, and what is of another network");
}
