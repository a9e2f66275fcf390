//! The real containerlab, with a Docker of its own, in namespaces that go with it.
//!
//! No registry is asked: Manx's image is that of `manifests/image.sh`, etcd's is the lab's, and FRR and the host are this
//! machine's Debian under the names that the topologies have.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::LabError;
use crate::binaries::say_skipped;
use crate::k8s::images_folder;
use crate::process::ProcessId;
use crate::wait::{wait_for, wait_until};

/// The control group of all containers.
const CGROUP: &str = "/manx-containerlab";

/// The programs, with where to have them from.
const PROGRAMS: [(&str, &str); 6] = [
    ("containerlab", "see containerlab.dev"),
    ("dockerd", "install docker.io"),
    ("docker", "install docker.io"),
    ("runc", "install runc"),
    ("mmdebstrap", "install mmdebstrap"),
    ("python3", "install python3"),
];

/// What the FRR image and the host's have of Debian.
const PACKAGES: &str = "frr,iproute2,procps,iputils-ping";

/// The images made of that, and what they run. (FRR's own starts its daemons in the same way; a rack's machines are there to be
/// wired.)
const STAND_INS: [(&str, &str); 4] = [
    ("quay.io/frrouting/frr:10.5.1", r#"CMD ["sh", "-c", "/usr/lib/frr/frrinit.sh start; exec sleep infinity"]"#),
    ("wbitt/network-multitool:3.22.2", SLEEP),
    ("kindest/node:v1.36.3", SLEEP),
    ("registry.k8s.io/kube-apiserver:v1.36.3", SLEEP),
];

const SLEEP: &str = r#"CMD ["sleep", "infinity"]"#;

/// How long Docker may take to answer.
const STARTING: Duration = Duration::from_secs(60);

/// Whether containerlab can be run here. If not, the test that asks is SKIPPED, and says why.
pub fn can_run_containerlab() -> bool {
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let is_there = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let program = PROGRAMS.into_iter().find(|(program, _)| !is_there(program));
    let program = program.map(|(program, hint)| format!("{program} is not there: {hint}"));
    let archives = images_folder().map(|folder| [folder.join("manx-agent.tar"), folder.join("etcd.tar")]);
    let archive = || archives.into_iter().flatten().find(|archive| !archive.is_file());
    let missing = program.or_else(|| archive().map(|archive| format!("{} is not made yet", archive.display())));
    missing.map(|reason| say_skipped(&reason)).is_none()
}

/// Docker, and containerlab beside it. All containers end with this value, or with the process, however it ends.
#[derive(Debug)]
pub struct Containerlab {
    /// Docker's files, and those of labs.
    folder: PathBuf,
    /// The process `unshare`. Its standard input is the lifeline.
    unshare: Child,
    /// Process 1 of the namespaces.
    init: ProcessId,
}

/// A topology that containerlab has deployed.
#[derive(Debug)]
pub struct Deployed<'a> {
    containerlab: &'a Containerlab,
    file: PathBuf,
    name: String,
}

/// A network namespace in a node's container, plugged in by the node's CNI plugin.
#[derive(Debug)]
pub struct PluggedPod<'a> {
    lab: &'a Deployed<'a>,
    node: String,
    name: String,
    /// The addresses that ADD gave it.
    pub addresses: Vec<String>,
}

impl Containerlab {
    /// Starts Docker with its files in this folder, which is emptied, and gives it the images.
    pub fn start(folder: &Path) -> Result<Self, LabError> {
        clear(folder)?;
        fs::create_dir_all(folder).map_err(LabError::io(folder.display().to_string()))?;
        let beside = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = File::create(folder.join("docker.sh.log")).map_err(LabError::io("docker.sh.log"))?;
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"])
            .arg("bash")
            .arg(beside.join("containerlab/docker.sh"))
            .arg(folder)
            .arg(CGROUP)
            .stdin(Stdio::piped())
            .stdout(out.try_clone().map_err(LabError::io("docker.sh.log"))?)
            .stderr(out);
        let unshare = command.spawn().map_err(LabError::io("starting unshare"))?;
        let outer = i32::try_from(unshare.id()).ok().and_then(ProcessId::of);
        let init = wait_for("Docker's process 1", STARTING, || {
            outer.and_then(ProcessId::child).ok_or("unshare has made no process")
        })?;
        let started = Self { folder: folder.to_owned(), unshare, init };
        wait_for("Docker to answer", STARTING, || started.docker(&["version"]).map(drop))?;
        started.load_images()?;
        let topologies =
            started.run("cp", &["-a", &beside.join("topologies").display().to_string(), &started.text("topologies")]);
        topologies.map(|_| started)
    }

    fn load_images(&self) -> Result<(), LabError> {
        let folder = images_folder()?;
        for archive in ["manx-agent.tar", "etcd.tar"] {
            self.docker(&["load", "--input", &folder.join(archive).display().to_string()])?;
        }
        let debian = folder.join(format!("debian-{}.tar", PACKAGES.replace(',', "-")));
        if !debian.is_file() {
            let draft = debian.with_extension(format!("{}.tar", std::process::id()));
            let [to, packages] = [draft.display().to_string(), format!("--include={PACKAGES}")];
            let made =
                Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", &packages, "bookworm", &to]).output();
            answer("this machine", &["mmdebstrap", &packages], made.map_err(LabError::io("mmdebstrap"))?)?;
            fs::rename(&draft, &debian).map_err(LabError::io(debian.display().to_string()))?;
        }
        for (name, change) in STAND_INS {
            self.docker(&["import", "--change", change, &debian.display().to_string(), name])?;
        }
        Ok(())
    }

    /// Deploys one of the project's topologies, and returns when containerlab has run its last command.
    pub fn deploy(&self, file: &str) -> Result<Deployed<'_>, LabError> {
        let file = self.folder.join("topologies").join(file);
        self.run("containerlab", &["deploy", "--topo", &file.display().to_string()])?;
        let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
        Ok(Deployed { containerlab: self, name: name.unwrap_or_default().to_owned(), file })
    }

    /// What there is: containers, networks, links, and what containerlab writes of them on the host.
    pub fn footprint(&self) -> Result<String, LabError> {
        let mut text = self.docker(&["ps", "--all", "--format", "{{.Names}}"])?;
        text += &self.docker(&["network", "ls", "--format", "{{.Name}}"])?;
        text += &self.docker(&["volume", "ls", "--format", "{{.Name}}"])?;
        let host = "ip -o link | cut -d: -f2; ls /run/netns; cat /etc/hosts; ls \"$CLAB_LABDIR_BASE\"";
        Ok(text + &self.run("sh", &["-c", host])?)
    }

    /// Ends Docker and all containers, and removes what it wrote.
    pub fn end(mut self, within: Duration) -> Result<(), LabError> {
        self.kill(within)
    }

    fn kill(&mut self, within: Duration) -> Result<(), LabError> {
        self.init.signal(Signal::SIGKILL).map_err(LabError::io("ending Docker"))?;
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let init = self.init;
        wait_until("Docker's process 1 to be gone", within, || !init.is_alive())?;
        // Control groups of processes that are just gone are busy for a moment.
        wait_for("Docker's files and control groups to be removed", within, || clear(&self.folder))
    }

    fn docker(&self, words: &[&str]) -> Result<String, LabError> {
        self.run("docker", words)
    }

    fn text(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// Runs a program beside Docker, in its namespaces.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.pid.to_string(), "--net", "--mount", "--pid", "--", program])
            .env("DOCKER_HOST", format!("unix://{}", self.text("docker.sock")))
            .env("CLAB_LABDIR_BASE", self.text(""))
            .env("CLAB_VERSION_CHECK", "disable")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String, LabError> {
        let output = self.command(program).args(words).output().map_err(LabError::io(format!("running {program}")))?;
        answer("Docker's host", &[&[program][..], words].concat(), output)
    }
}

impl Drop for Containerlab {
    fn drop(&mut self) {
        if !self.init.is_alive() && !self.folder.exists() {
            return;
        }
        if let Err(error) = self.kill(Duration::from_secs(20)) {
            let _ = writeln!(std::io::stderr(), "ending containerlab: {error}");
        }
    }
}

impl Deployed<'_> {
    /// Runs a command in a node's container.
    pub fn exec(&self, node: &str, words: &[&str]) -> Result<String, LabError> {
        self.containerlab.docker(&[&["exec", &self.container(node)][..], words].concat())
    }

    /// Applies resources that are given as text.
    pub fn apply(&self, node: &str, resources: &str) -> Result<(), LabError> {
        self.feed(node, &[], &["manxctl", "apply", "-f", "-"], resources).map(drop)
    }

    /// Makes a pod of the namespace `default` with the label `app`, which is its name.
    pub fn plug(&self, node: &str, pod: &str) -> Result<PluggedPod<'_>, LabError> {
        self.exec(node, &["ip", "netns", "add", pod])?;
        let result: Value = serde_json::from_str(&self.cni("ADD", node, pod)?).unwrap_or_default();
        let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
        let addresses = ips.filter_map(|ip| Some(ip.get("address")?.as_str()?.split('/').next()?.to_owned())).collect();
        Ok(PluggedPod { lab: self, node: node.to_owned(), name: pod.to_owned(), addresses })
    }

    /// Whether a node's container reaches an address.
    pub fn ping_from(&self, node: &str, address: &str) -> bool {
        self.exec(node, &["ping", "-c", "1", "-W", "1", address]).is_ok()
    }

    /// Has containerlab take it down.
    pub fn destroy(self) -> Result<(), LabError> {
        let file = self.file.display().to_string();
        self.containerlab.run("containerlab", &["destroy", "--cleanup", "--topo", &file]).map(drop)
    }

    fn container(&self, node: &str) -> String {
        format!("clab-{}-{node}", self.name)
    }

    fn cni(&self, command: &str, node: &str, pod: &str) -> Result<String, LabError> {
        let network = json!({
            "cniVersion": "1.0.0", "name": "manx", "type": "manx", "args": { "cni": { "labels": { "app": pod } } },
        });
        let env = [
            format!("CNI_COMMAND={command}"),
            format!("CNI_CONTAINERID={pod}"),
            format!("CNI_NETNS=/run/netns/{pod}"),
            "CNI_IFNAME=eth0".to_owned(),
            "CNI_PATH=/opt/cni/bin".to_owned(),
            format!("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"),
        ];
        self.feed(node, &env, &["/opt/cni/bin/manx"], &network.to_string())
    }

    /// Runs a command in a node's container that reads this text.
    fn feed(&self, node: &str, env: &[String], words: &[&str], text: &str) -> Result<String, LabError> {
        let mut command = self.containerlab.command("docker");
        command.args(["exec", "--interactive"]);
        for one in env {
            command.args(["--env", one]);
        }
        command
            .arg(self.container(node))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed = || LabError::io(format!("running {} on {node}", words.join(" ")));
        let mut child = command.spawn().map_err(failed())?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes()).map_err(failed())?;
        }
        answer(node, words, child.wait_with_output().map_err(failed())?)
    }
}

impl PluggedPod<'_> {
    /// Whether it reaches an address.
    pub fn ping(&self, address: &str) -> bool {
        let containerlab = self.lab.containerlab;
        let container = self.lab.container(&self.node);
        let pid = containerlab.docker(&["inspect", "--format", "{{.State.Pid}}", &container]);
        let Ok(pid) = pid else { return false };
        let netns = format!("--net=/proc/{}/root/run/netns/{}", pid.trim(), self.name);
        containerlab.run("nsenter", &[&netns, "--", "ping", "-c", "1", "-W", "1", address]).is_ok()
    }

    /// Unplugs it, and removes its namespace.
    pub fn unplug(self) -> Result<(), LabError> {
        self.lab.cni("DEL", &self.node, &self.name)?;
        self.lab.exec(&self.node, &["ip", "netns", "delete", &self.name]).map(drop)
    }
}

/// Removes Docker's files, and its control groups.
fn clear(folder: &Path) -> Result<(), LabError> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        remove_groups(&hierarchy.join(CGROUP.trim_start_matches('/')))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::io(folder.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

/// Removes a control group with those below it; the files in it are the kernel's.
fn remove_groups(group: &Path) -> Result<(), LabError> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_groups(&entry.path())?;
    }
    fs::remove_dir(group).map_err(LabError::io(group.display().to_string()))
}

fn answer(place: &str, words: &[&str], output: std::process::Output) -> Result<String, LabError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(LabError::Command {
        place: place.to_owned(),
        command: words.join(" "),
        status: output.status.to_string(),
        output: format!("{}{}", text(&output.stderr), text(&output.stdout)).trim().to_owned(),
    })
}
