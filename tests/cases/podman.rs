//! podman with CNI for its networks, as docs/podman.md sets it up.

use std::error::Error;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use tests::pair::{ETCD, POOLS};
use tests::sources::root;
use tests::traces::nothing_is_left;
use tests::{
    BUSYBOX_IMAGE, CONVERGENCE, Lab, LabError, Node, Options, Place, TestResult, can_run_labs, has_programs,
    make_busybox, wait_until,
};

use crate::pair;

/// What podman needs, each with its package.
const PROGRAMS: [(&str, &str); 4] =
    [("podman", "podman"), ("conmon", "conmon"), ("runc", "runc"), ("busybox", "busybox-static")];

/// What this machine may need beside the documented settings: it has no systemd, may have both versions of control groups at
/// once, which crun refuses, and root that may not raise limits.
const OF_THIS_MACHINE: &str = r#"
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
seccomp_profile = ""
apparmor_profile = ""
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

/// A lab of two nodes, of which the first has podman with the documented settings.
struct Podman {
    lab: Lab,
    /// The option that puts containers into the lab's control groups, which go with it.
    groups: String,
}

impl Podman {
    fn up(test: &str) -> Result<Self, Box<dyn Error>> {
        let file = pair(test, &format!("{ETCD}{POOLS}"))?;
        let documented = root().join("docs/podman");
        fs::copy(documented.join("10-manx.conflist"), file.with_file_name("10-manx.conflist"))?;
        let lab = Lab::up(&file, &Options::unique(test))?;
        let node = lab.node("node1");
        let settings = node.path("/etc/containers/containers.conf.d");
        fs::create_dir_all(&settings)?;
        fs::copy(documented.join("containers.conf"), settings.join("manx.conf"))?;
        fs::write(settings.join("machine.conf"), OF_THIS_MACHINE)?;
        fs::create_dir_all(node.path("/run/stack"))?;
        for name in ["compose.yaml", "names.sh"] {
            fs::copy(documented.join(name), node.path("/run/stack").join(name))?;
        }
        node.exec(&["podman", "load", "--quiet", "--input", &make_busybox()?.display().to_string()])?;
        let groups = format!("--cgroup-parent=/manx-lab-{}", lab.name());
        Ok(Self { lab, groups })
    }

    fn node(&self) -> &Node {
        self.lab.node("node1")
    }

    fn podman(&self, words: &[&str]) -> Result<String, LabError> {
        self.node().exec(&[&["podman"][..], words].concat())
    }

    /// Starts a container on the network `manx` that serves its `/etc`, and gives its addresses.
    fn run(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error>> {
        let run = ["run", "--detach", "--network", "manx", "--cap-add", "NET_RAW", &self.groups, "--name", name];
        self.podman(&[&run[..], &[BUSYBOX_IMAGE, "httpd", "-f", "-p", "80", "-h", "/etc"]].concat())?;
        self.addresses(name)
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error>> {
        let format = "{{with .NetworkSettings.Networks.manx}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
        let said = self.podman(&["inspect", "--format", format, name])?;
        Ok(said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }

    fn compose(&self, words: &str) -> Result<String, LabError> {
        self.node().shell(&format!("cd /run/stack && podman-compose --podman-run-args={} {words} 2>&1", self.groups))
    }

    /// Nothing of containers is left, nor of podman's own.
    fn end(self) -> TestResult {
        assert_eq!(self.podman(&["ps", "--all", "--quiet"])?, "");
        nothing_is_left(&self.lab, self.node())?;
        assert_eq!(self.node().exec(&["ip", "netns"])?, "");
        for family in ["iptables-save", "ip6tables-save"] {
            let rules = self.node().exec(&[family])?;
            let of_container = |rule: &&str| rule.contains("10.42.") || rule.contains("fd00:42:");
            assert_eq!(rules.lines().find(of_container), None);
        }
        Ok(self.lab.down()?)
    }
}

/// What a web server answers; none while it does not.
fn page(place: &impl Place, address: IpAddr, port: u16) -> Option<String> {
    let answer = place.http_get(SocketAddr::new(address, port), "/").ok()?;
    (answer.status == 200).then(|| answer.body.trim().to_owned())
}

#[test]
fn containers_of_podman_reach_each_other_and_pods_of_another_node_and_go_without_a_trace() -> TestResult {
    if !can_run_labs() || !has_programs(&PROGRAMS) {
        return Ok(());
    }
    let podman = Podman::up("podman")?;
    assert_eq!(podman.podman(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"])?.trim(), "manx manx");
    let (a, b) = (podman.run("a")?, podman.run("b")?);
    assert_eq!((a.len(), b.len()), (2, 2), "{a:?} {b:?}");
    let shown = podman.node().agent().ctl(&["ipam", "show", "--show-blocks"])?;
    let in_use = shown.lines().filter(|line| line.starts_with("Block") && line.contains(" 2 ("));
    assert_eq!(in_use.filter(|line| line.ends_with("node1")).count(), 2, "{shown}");

    let pod = podman.lab.node("node2").plug("c")?;
    for to in b.iter().chain(pod.addresses()) {
        wait_until(&format!("container a to reach {to}"), CONVERGENCE, || {
            podman.podman(&["exec", "a", "ping", "-c", "1", "-W", "1", &to.to_string()]).is_ok()
        })?;
    }
    for to in a.iter().chain(&b) {
        wait_until(&format!("node2/c to reach {to}"), CONVERGENCE, || pod.ping(*to))?;
        let served = pod.http_get(SocketAddr::new(*to, 80), "/hostname")?;
        assert_eq!(served.status, 200, "{served:?}");
    }

    // A container that starts again has a network again.
    podman.podman(&["restart", "--time", "0", "a"])?;
    for to in podman.addresses("a")? {
        wait_until(&format!("node2/c to reach {to}"), CONVERGENCE, || pod.ping(to))?;
    }
    // One goes while the agent is there, one while it is not: first its network, then what podman keeps of it.
    podman.podman(&["rm", "--force", "--time", "0", "a"])?;
    podman.node().agent().kill9()?;
    podman.podman(&["stop", "--time", "0", "b"])?;
    podman.podman(&["rm", "b"])?;
    podman.node().agent().start()?;
    podman.node().agent().wait_ready(CONVERGENCE)?;
    podman.end()
}

#[test]
fn the_three_services_of_the_documented_compose_file_find_each_other_and_are_reached_from_another_node() -> TestResult {
    if !can_run_labs() || !has_programs(&PROGRAMS) || !has_programs(&[("podman-compose", "podman-compose")]) {
        return Ok(());
    }
    let podman = Podman::up("compose")?;
    let said = podman.compose("up -d")?;
    let web = podman.addresses("stack_web_1").map_err(|error| format!("{error}\n{said}"))?;
    assert_eq!(web.len(), 2, "{web:?}");
    podman.node().exec(&["sh", "/run/stack/names.sh"])?;
    podman.node().exec(&["sh", "/run/stack/names.sh"])?;
    let hosts = podman.podman(&["exec", "stack_worker_1", "cat", "/etc/hosts"])?;
    for service in ["db", "worker", "web"] {
        assert_eq!(hosts.matches(&format!(" {service} # manx")).count(), 2, "{hosts}");
    }

    let other = podman.lab.node("node2");
    let pod = other.plug("client")?;
    let (published, local): (IpAddr, IpAddr) = ("192.0.2.1".parse()?, "127.0.0.1".parse()?);
    let shown = |value: &str| {
        web.iter().all(|address| page(&pod, *address, 80).as_deref() == Some(value))
            && page(other, published, 8080).as_deref() == Some(value)
            && page(podman.node(), local, 8080).as_deref() == Some(value)
    };
    wait_until("web to show what worker has of db", CONVERGENCE, || shown("41"))?;
    podman.podman(&["exec", "stack_db_1", "sh", "-c", "echo 42 >/tmp/value"])?;
    wait_until("web to show what db has now", CONVERGENCE, || shown("42"))?;
    podman.compose("down -t 0")?;
    podman.podman(&["volume", "prune", "--force"])?;
    podman.end()
}
