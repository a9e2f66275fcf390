//! A Kubernetes cluster in the lab: a topology whose machines are its nodes, with the real control plane, containerd,
//! runc, kubelet, kube-proxy and CoreDNS.
//!
//! ```no_run
//! use std::time::Duration;
//! use tests::{Cluster, ClusterOptions, Network};
//!
//! # fn main() -> Result<(), tests::LabError> {
//! let cluster = Cluster::up(&ClusterOptions::unique("ready").network(Network::Ptp))?;
//! cluster.wait_nodes_ready(Duration::from_secs(60))?;
//! cluster.kubectl(&["create", "deployment", "web", "--image", tests::AGNHOST_IMAGE, "--", "/agnhost", "netexec"])?;
//! cluster.wait_rollout("default", "deployment/web", Duration::from_secs(60))?;
//! # Ok(())
//! # }
//! ```
//!
//! A machine is a node of the lab that has control groups and interprocess communication of its own too, and a disk: its
//! `/var/lib`, `/var/log`, `/etc/cni` and `/opt/cni` are folders of the build's folder, and go with the cluster.

mod assets;
mod control;
mod dns;
mod image;
mod machine;
mod manx;
mod network;
mod pki;
mod pod;
mod proxy;
mod reaper;
mod seed;

use std::fmt;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use self::assets::target_folder;
pub use self::assets::{can_run_clusters, images_folder};
pub use self::control::{Component, ControlPlane};
pub use self::image::{AGNHOST_IMAGE, BUSYBOX_IMAGE, COREDNS_IMAGE, ETCD_IMAGE, PAUSE_IMAGE, make_busybox};
pub use self::machine::Machine;
pub use self::manx::Peering;
pub use self::network::Network;
pub use self::pod::ClusterPod;
pub use self::proxy::{KubeProxy, ProxyMode};
pub use self::reaper::reap;

use self::assets::Assets;
use self::pki::Authority;
use self::reaper::Reaper;
use crate::lab::{Lab, Options};
use crate::node::Node;
use crate::place::Output;
use crate::topology::Role;
use crate::wait::wait_for;
use crate::{LabError, Topology};

/// The name of the file in the lab's folder with which people and tests are the cluster's administrator.
const ADMIN: &str = "admin";

/// The name by which kubectl must be called: it is one program with the other components.
const KUBECTL: &str = "kubectl";

/// How many seconds a test's kubectl may run: one that waits for longer is stuck.
const KUBECTL_TIME_LIMIT: &str = "600";

/// The folder of kube-proxy's kubeconfig, on the machine.
const PROXY_FOLDER: &str = "/var/lib/kube-proxy";

/// The archive of the agent's image, where it has been built.
const AGENT_ARCHIVE: &str = "manx-agent.tar";

/// How a cluster is brought up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    topology: PathBuf,
    lab: Options,
    nodes: usize,
    network: Network,
    peering: Peering,
    proxy_mode: ProxyMode,
    taint: Option<String>,
    agent: Option<PathBuf>,
    progress: fn(fmt::Arguments<'_>),
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            topology: concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/racks.clab.yml").into(),
            lab: Options::default(),
            nodes: 3,
            network: Network::None,
            peering: Peering::default(),
            proxy_mode: ProxyMode::default(),
            taint: None,
            agent: None,
            progress: |_| {},
        }
    }
}

impl ClusterOptions {
    /// Options with a name of the cluster's own, for tests.
    pub fn unique(name: &str) -> Self {
        Self { lab: Options::unique(name), ..Self::default() }
    }

    /// Gives the cluster this name, instead of the topology's.
    pub fn named(mut self, name: &str) -> Self {
        self.lab = self.lab.named(name);
        self
    }

    /// Gives the cluster so many nodes (default: 3).
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Says which pod network the cluster gets (default: none).
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Says whom Manx's nodes peer with (default: their rack's router, one AS per rack).
    pub fn peering(mut self, peering: Peering) -> Self {
        self.peering = peering;
        self
    }

    /// Says by what means kube-proxy carries services.
    pub fn proxy_mode(mut self, mode: ProxyMode) -> Self {
        self.proxy_mode = mode;
        self
    }

    /// Sets a taint with which nodes register, such as `manx.io/agent-not-ready` (effect NoSchedule).
    pub fn startup_taint(mut self, key: &str) -> Self {
        self.taint = Some(key.to_owned());
        self
    }

    /// Takes the agent's image from this archive, instead of the one that tests are made for.
    pub fn agent_archive(mut self, archive: &Path) -> Self {
        self.agent = Some(archive.to_owned());
        self
    }

    /// Sets the function that is told each step.
    pub fn progress(mut self, tell: fn(fmt::Arguments<'_>)) -> Self {
        self.progress = tell;
        self.lab = self.lab.progress(tell);
        self
    }
}

/// A cluster that is up. It ends as a [`Lab`] does; and when its process is killed, all of it is removed at once.
#[derive(Debug)]
pub struct Cluster {
    lab: Lab,
    assets: Assets,
    authority: Authority,
    images: Vec<PathBuf>,
    options: ClusterOptions,
    reaper: Reaper,
}

impl Cluster {
    /// Brings a cluster up: the topology, the control plane, the machines, the network and the DNS. The nodes have
    /// registered; where a network was asked for, they are Ready.
    pub fn up(options: &ClusterOptions) -> Result<Self, LabError> {
        let began = Instant::now();
        let assets = Assets::find()?;
        let mut images = image::make(&assets)?;
        let usual = images_folder()?.join(AGENT_ARCHIVE);
        images.extend(options.agent.clone().or_else(|| Some(usual).filter(|archive| archive.exists())));
        let lab = options.lab.clone().without_agents().machines(options.nodes);
        let lab = Lab::up(&options.topology, &lab)?;
        let reaper = Reaper::start(lab.name())?;
        let authority = Authority::new("lab")?;
        let cluster = Self { lab, assets, authority, images, options: options.clone(), reaper };
        let tell = |what: &str| (options.progress)(format_args!("{:5.1} s  {what}", began.elapsed().as_secs_f32()));
        cluster.start(&tell)?;
        Ok(cluster)
    }

    fn start(&self, tell: &dyn Fn(&str)) -> Result<(), LabError> {
        let control = self.control_plane();
        tell("the fabric is there");
        control.launch(&self.authority)?;
        let admin = self.authority.issue("kubernetes-admin", Some("system:masters"), &[], &[])?;
        pki::introduce(self.lab.folder(), ADMIN, &control.server(), &self.authority, &admin)?;
        let kubectl = self.lab.folder().join(KUBECTL);
        symlink(self.assets.program(KUBECTL), &kubectl).map_err(LabError::io(kubectl.display().to_string()))?;
        let machines: Vec<_> = self.machines().collect();
        // The machines come up while the API server fills its etcd.
        let server = control.server();
        for machine in &machines {
            machine.prepare(&server, &self.authority, self.options.taint.as_deref())?;
            let proxy = self.authority.issue("system:kube-proxy", None, &[], &[])?;
            pki::introduce(&machine.node.path(PROXY_FOLDER), "kube-proxy", &server, &self.authority, &proxy)?;
        }
        // Another agent's images are kept beside those of the tests, not in their place.
        let kept = if self.options.agent.is_some() { "lab-images-other" } else { "lab-images" };
        seed::plant(&machines, &self.images, kept, |name| self.lab.disk(name))?;
        thread::scope(|scope| {
            let started: Vec<_> = machines.iter().map(|machine| scope.spawn(|| machine.start_containerd())).collect();
            started.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })?;
        tell("the machines have their images");
        control.wait_ready(|words| self.kubectl(words))?;
        tell("the API server is ready");
        machines.iter().try_for_each(|machine| self.start_node(*machine))?;
        // What kube-proxy is bound to comes with the API server itself; DNS does not.
        self.apply(&dns::manifest().to_string())?;
        self.wait_registered()?;
        tell("the nodes have registered");
        match self.options.network {
            Network::None => return Ok(()),
            Network::Ptp => network::ptp(self)?,
            Network::Manx => {
                self.deploy_manx()?;
                tell("Manx is deployed");
                self.add_ipv6()?;
                self.peer(self.options.peering)?;
            }
        }
        self.wait_nodes_ready(Duration::from_secs(120))?;
        tell("the nodes are ready");
        self.wait_rollout("kube-system", "deployment/coredns", Duration::from_secs(120))?;
        tell("the cluster's DNS is ready");
        Ok(())
    }

    /// Starts the kubelet and kube-proxy of a machine whose containerd runs.
    fn start_node(&self, machine: Machine<'_>) -> Result<(), LabError> {
        machine.start_kubelet()?;
        let kubeconfig = format!("{PROXY_FOLDER}/kube-proxy.kubeconfig");
        KubeProxy::launch(machine.node, Path::new(&kubeconfig), self.options.proxy_mode).map(drop)
    }

    /// Ends a machine as a loss of power does, and starts it again: its disk is as it was, nothing else is.
    pub fn reboot(&self, machine: &str) -> Result<(), LabError> {
        self.lab.reboot(machine)?;
        let machine = self.machine(machine);
        machine.resolver()?;
        machine.start_containerd()?;
        self.start_node(machine)
    }

    /// The lab that the cluster runs in.
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The topology that the cluster runs in.
    pub fn topology(&self) -> &Topology {
        self.lab.topology()
    }

    /// A node of the topology, whatever it does: machine, router, host.
    ///
    /// # Panics
    /// If there is none: a mistake in the test.
    pub fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// The machines, by name: the nodes of the cluster.
    pub fn machines(&self) -> impl Iterator<Item = Machine<'_>> {
        let machines = self.lab.nodes().filter(|node| node.role() == Role::Machine);
        machines.map(|node| Machine { node, assets: &self.assets })
    }

    /// A machine by its name.
    ///
    /// # Panics
    /// If there is none: a mistake in the test.
    pub fn machine(&self, name: &str) -> Machine<'_> {
        let node = self.lab.node(name);
        assert!(node.role() == Role::Machine, "{name} is {:?}, not a machine", node.role());
        Machine { node, assets: &self.assets }
    }

    /// The kube-proxy of a machine.
    pub fn proxy(&self, machine: &str) -> KubeProxy<'_> {
        KubeProxy::on(self.lab.node(machine))
    }

    /// The routers of the fabric.
    pub fn routers(&self) -> impl Iterator<Item = &Node> {
        self.lab.nodes().filter(|node| node.role() == Role::Frr)
    }

    /// A host behind the fabric that is not of the cluster.
    ///
    /// # Panics
    /// If the topology has none of that name: a mistake in the topology.
    pub fn external_host(&self) -> &Node {
        self.lab.node("client")
    }

    /// etcd, API server, controllers and scheduler.
    ///
    /// # Panics
    /// If the topology has none: a mistake in the topology.
    pub fn control_plane(&self) -> ControlPlane<'_> {
        let node = self.lab.nodes().find(|node| node.role() == Role::ControlPlane);
        let Some(node) = node else { panic!("the topology has no control plane") };
        ControlPlane { node, assets: &self.assets }
    }

    /// The command kubectl, as the cluster's administrator. Its files are the host's; only its network is the
    /// cluster's.
    pub fn kubectl_command(&self) -> Result<Command, LabError> {
        kubectl_command(&self.lab)
    }

    /// Runs kubectl to its end and gives its output whatever its status.
    pub fn try_kubectl(&self, words: &[&str]) -> Result<Output, LabError> {
        self.run_kubectl(words, None)
    }

    /// Runs kubectl to its end and gives its standard output. Another status than 0 is an error that quotes what it said.
    pub fn kubectl(&self, words: &[&str]) -> Result<String, LabError> {
        self.run_kubectl(words, None).and_then(|output| succeeded(words, output))
    }

    /// Applies a manifest: YAML or JSON.
    pub fn apply(&self, manifest: &str) -> Result<String, LabError> {
        let words = ["apply", "-f", "-"];
        self.run_kubectl(&words, Some(manifest)).and_then(|output| succeeded(&words, output))
    }

    /// What `kubectl get WORDS -o json` says.
    pub fn get(&self, words: &[&str]) -> Result<Value, LabError> {
        let line: Vec<&str> = ["get"].iter().chain(words).chain(&["-o", "json"]).copied().collect();
        let said = self.kubectl(&line)?;
        serde_json::from_str(&said).map_err(|error| LabError::Io {
            doing: format!("reading what kubectl {} said", line.join(" ")),
            source: error.into(),
        })
    }

    /// Runs a command in a pod's first container.
    pub fn exec(&self, namespace: &str, pod: &str, words: &[&str]) -> Result<String, LabError> {
        let line: Vec<&str> = ["exec", "-n", namespace, pod, "--"].iter().chain(words).copied().collect();
        self.kubectl(&line)
    }

    fn run_kubectl(&self, words: &[&str], input: Option<&str>) -> Result<Output, LabError> {
        let failed = || LabError::io(format!("running kubectl {}", words.join(" ")));
        // A kubectl that waits for the cluster would go on trying long after the cluster has gone with this process.
        let mut command = Command::new("setpriv");
        let kubectl = self.kubectl_command()?;
        command.args(["--pdeathsig", "TERM", "timeout", "-k", "1", KUBECTL_TIME_LIMIT]);
        command.arg(kubectl.get_program()).args(kubectl.get_args());
        command.envs(kubectl.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(failed())?;
        if let Some((mut stdin, input)) = child.stdin.take().zip(input) {
            stdin.write_all(input.as_bytes()).map_err(failed())?;
        }
        let output = child.wait_with_output().map_err(failed())?;
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Waits until every machine's kubelet has made its Node object.
    fn wait_registered(&self) -> Result<(), LabError> {
        let count = self.machines().count();
        wait_for("the nodes to register", Duration::from_secs(60), || {
            for machine in self.machines() {
                machine.check().map_err(|error| error.to_string())?;
            }
            let nodes = self.kubectl(&["get", "nodes", "-o", "name"]).map_err(|error| error.to_string())?;
            if nodes.lines().count() >= count { Ok(()) } else { Err(format!("there are: {nodes}")) }
        })
    }

    /// Waits until all nodes of the cluster are Ready.
    pub fn wait_nodes_ready(&self, within: Duration) -> Result<(), LabError> {
        let within = format!("--timeout={}s", within.as_secs());
        self.kubectl(&["wait", "node", "--all", "--for=condition=Ready", &within]).map(drop)
    }

    /// Waits until a Deployment or DaemonSet (`deployment/web`) is rolled out.
    pub fn wait_rollout(&self, namespace: &str, what: &str, within: Duration) -> Result<(), LabError> {
        let within = format!("--timeout={}s", within.as_secs());
        self.kubectl(&["rollout", "status", "-n", namespace, what, &within]).map(drop)
    }

    /// What people look at first when the pods of a namespace do not come up: the pods, what happened, the last words.
    pub fn diagnosis(&self, namespace: &str) -> String {
        let say = |words: &[&str]| match self.try_kubectl(words) {
            Ok(output) => format!("$ kubectl {}\n{}{}", words.join(" "), output.stdout, output.stderr),
            Err(error) => format!("{error}\n"),
        };
        let mut text = say(&["get", "pods", "-n", namespace, "-o", "wide"]);
        text.push_str(&say(&["get", "events", "-n", namespace, "--field-selector", "type=Warning"]));
        let pods = self.kubectl(&["get", "pods", "-n", namespace, "-o", "name"]).unwrap_or_default();
        for pod in pods.lines() {
            text.push_str(&say(&["logs", "-n", namespace, pod, "--all-containers", "--tail=15", "--ignore-errors"]));
        }
        text
    }

    /// Lets the cluster outlive this process, until [`Lab::take_down`].
    pub fn detach(self) -> Result<(), LabError> {
        self.lab.detach()?;
        self.reaper.dismiss()
    }

    /// Takes the cluster down and tells what went wrong with that, which dropping it cannot.
    pub fn down(self) -> Result<(), LabError> {
        self.lab.down()
    }
}

/// The command kubectl as the administrator of the cluster of a lab.
pub fn kubectl_command(lab: &Lab) -> Result<Command, LabError> {
    let node = lab.nodes().find(|node| node.role() == Role::ControlPlane);
    let node =
        node.ok_or_else(|| LabError::NoSuchNode { what: "control plane in lab", name: lab.name().to_owned() })?;
    let kubeconfig = lab.folder().join(format!("{ADMIN}.kubeconfig"));
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", node.namespace().net_path().display())).arg("--").arg(lab.folder().join(KUBECTL));
    command.env("KUBECONFIG", kubeconfig);
    Ok(command)
}

fn succeeded(words: &[&str], output: Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(LabError::Command {
        place: "the cluster".to_owned(),
        command: format!("kubectl {}", words.join(" ")),
        status: output.status.to_string(),
        output: format!("{}{}", output.stderr, output.stdout).trim().to_owned(),
    })
}
