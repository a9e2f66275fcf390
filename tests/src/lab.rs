//! A lab: a topology that runs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::unistd::{Pid, geteuid};

use crate::binaries::{Binaries, installed};
use crate::groups::Groups;
use crate::k8s::target_folder;
use crate::links::{self, ManagementPlan};
use crate::namespace::{Namespace, NamespaceRecord};
use crate::node::Node;
use crate::pause::PauseSpec;
use crate::place::Place;
use crate::process::{ProcessId, tail};
use crate::state::{self, State, StateFolder};
use crate::topology::{Bind, NodeSpec, Role, Topology};
use crate::wait::{wait_for, wait_until};
use crate::{LabError, Pod};

/// The namespace that holds the management network's bridge. No node can have this name.
const MANAGEMENT: &str = "(management)";

/// A Manx node that has this file applies it before the agents start.
const RESOURCES: &str = "/etc/manx/resources.yaml";

/// How long an agent may take to be ready.
const AGENT_READY: Duration = Duration::from_secs(60);

/// How a lab is brought up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    name: Option<String>,
    data: Option<PathBuf>,
    without_agents: bool,
    machines: Option<usize>,
    progress: Option<fn(fmt::Arguments<'_>)>,
}

impl Options {
    /// Options for tests: a name of the lab's own, so that any number of labs run side by side.
    pub fn unique(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", Pid::this(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { name: Some(name), ..Self::default() }
    }

    /// Gives the lab this name, instead of the topology's.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Brings up nodes, links, etcd and FRR alone: no resources are applied and no agent is started.
    pub fn without_agents(mut self) -> Self {
        self.without_agents = true;
        self
    }

    /// Brings up only the first machines of the topology, so many of them.
    pub(crate) fn machines(mut self, count: usize) -> Self {
        self.machines = Some(count);
        self
    }

    /// Keeps the nodes' `/var/lib` in folders here and not in memory, for what depends on a disk. They are left there.
    pub fn data_in(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// Sets the function that is told each step.
    pub fn progress(mut self, tell: fn(fmt::Arguments<'_>)) -> Self {
        self.progress = Some(tell);
        self
    }
}

/// A lab that is up. It is taken down when this is dropped, or when the process ends in any other way, unless
/// [`Lab::detach`] was called.
#[derive(Debug)]
pub struct Lab {
    /// The lab's name.
    name: String,
    /// The topology that the lab runs.
    topology: Topology,
    /// The part of the lab that is remembered on disk.
    state: Mutex<State>,
    /// The folder of the nodes' `/var/lib`, if they are not in memory.
    data: Option<PathBuf>,
    /// The folder's path.
    folder: StateFolder,
    /// The management network.
    management: Option<Namespace>,
    /// The nodes by name.
    nodes: BTreeMap<String, Node>,
    /// Whether the lab ends with this value.
    ours: bool,
}

impl Lab {
    /// Brings a topology up: namespaces, links and addresses; etcd and FRR; the nodes' `exec`; resources; agents, until
    /// they are ready. On failure everything is taken down again. What crashed labs left is taken down first.
    pub fn up(file: &Path, options: &Options) -> Result<Self, LabError> {
        if !geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let topology = with_machines(Topology::read(file)?, options.machines);
        let binaries = Binaries::find()?;
        for (program, package) in [("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")] {
            installed(program, package)?;
        }
        let tell = options.progress.unwrap_or(|_| {});
        for name in state::sweep()? {
            tell(format_args!("took down what was left of lab {name}"));
        }
        let name = options.name.clone().unwrap_or_else(|| topology.name.clone());
        let path = file.canonicalize().map_err(LabError::io(file.display().to_string()))?;
        let disks = match topology.of_role(Role::Machine).next() {
            Some(_) => Some(target_folder()?.join("lab").join(&name)),
            None => None,
        };
        let state = State {
            topology: path,
            owner: ProcessId::current(),
            detached: false,
            namespaces: BTreeMap::new(),
            machines: options.machines,
            disks,
        };
        let folder = StateFolder::claim(&name, &state)?;
        let (state, data) = (Mutex::new(state), options.data.clone());
        let (management, nodes) = (None, BTreeMap::new());
        let mut lab = Self { name, topology, state, data, folder, management, nodes, ours: true };
        tell(format_args!("{} nodes and {} links", lab.topology.nodes.len(), lab.topology.links.len()));
        lab.make(&binaries)?;
        lab.start_services(tell)?;
        if !options.without_agents {
            lab.start_agents(tell)?;
        }
        Ok(lab)
    }

    /// Makes namespaces, links and addresses.
    fn make(&mut self, binaries: &Binaries) -> Result<(), LabError> {
        let plan = ManagementPlan::of(&self.topology);
        let hosts = plan.hosts(&self.name);
        let management = self.namespace(MANAGEMENT, &NodeSpec::bridge(), &hosts, binaries)?;
        self.management = Some(management.clone());
        let mut namespaces = BTreeMap::new();
        for (name, spec) in self.topology.nodes.clone() {
            let namespace = self.namespace(&name, &spec, &hosts, binaries)?;
            namespaces.insert(name, namespace);
        }
        links::wire(&self.topology, &plan, &management, &namespaces)?;
        self.nodes = nodes(&self.topology, &plan, namespaces, &self.folder);
        Ok(())
    }

    /// Makes a node's namespaces, and remembers them before anything else happens.
    fn namespace(&self, name: &str, spec: &NodeSpec, hosts: &str, binaries: &Binaries) -> Result<Namespace, LabError> {
        let (pause, groups) = self.pause_spec(name, spec, hosts, binaries)?;
        let log = self.folder.logs().join(format!("{name}.log"));
        let namespace = Namespace::create(name, &pause, environment(spec, binaries), binaries, &log, groups.as_ref())?;
        self.remember(name, namespace.record())?;
        Ok(namespace)
    }

    fn remember(&self, name: &str, record: NamespaceRecord) -> Result<(), LabError> {
        let mut state = self.state();
        state.namespaces.insert(name.to_owned(), record);
        self.folder.save(&state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node's process 1 is told, and the control groups that it begins in.
    fn pause_spec(
        &self,
        name: &str,
        spec: &NodeSpec,
        hosts: &str,
        binaries: &Binaries,
    ) -> Result<(PauseSpec, Option<Groups>), LabError> {
        let made = |folder: PathBuf| {
            std::fs::create_dir_all(&folder).map_err(LabError::io(folder.display().to_string())).map(|()| folder)
        };
        let machine = spec.role == Role::Machine;
        let disk = self.state().disks.as_ref().filter(|_| machine).map(|disks| disks.join(name));
        let data = match (&self.data, &disk) {
            (Some(folder), _) if name != MANAGEMENT => Some(made(folder.join(name))?),
            (_, Some(disk)) => Some(made(disk.join("lib"))?),
            _ => None,
        };
        let mut binds = spec.binds.clone();
        if let Some(disk) = &disk {
            for (source, target) in [("log", "/var/log"), ("cni", "/etc/cni"), ("plugins", "/opt/cni")] {
                binds.push(Bind { source: made(disk.join(source))?, target: target.into(), read_only: false });
            }
        }
        let groups = if machine { Some(Groups::make(&self.name, name)?) } else { None };
        let spec = PauseSpec {
            hostname: name.trim_matches(['(', ')']).to_owned(),
            hosts: hosts.to_owned(),
            binds,
            data,
            plugins: if machine { Vec::new() } else { plugins(binaries) },
            sysctls: sysctls(spec),
            machine,
        };
        Ok((spec, groups))
    }

    /// Ends a node as a loss of power does, and makes it again: with its disk, and with its wires plugged in where they
    /// were. What the lab started on it is not started again. Only for a lab that this process brought up.
    pub fn reboot(&self, name: &str) -> Result<(), LabError> {
        let node = self.find_node(name)?;
        let failed = || LabError::io(format!("rebooting {name}"));
        let (binaries, plan) = (Binaries::find()?, ManagementPlan::of(&self.topology));
        let wires = node.netns().map_err(failed())?;
        node.end_services()?;
        node.namespace().kill()?;
        Groups::remove_node(&self.name, name)?;
        let (pause, groups) = self.pause_spec(name, node.spec(), &plan.hosts(&self.name), &binaries)?;
        let log = self.folder.logs().join(format!("{name}.log"));
        let record = node.namespace().recreate(&pause, &binaries, &log, groups.as_ref())?;
        self.remember(name, record)?;
        links::move_wires(name, &wires, node.namespace(), &self.topology, &plan)?;
        node.configure()
    }

    /// Starts etcd and FRR, and runs the nodes' own commands: the programs of images run first, as in containerlab.
    fn start_services(&self, tell: fn(fmt::Arguments<'_>)) -> Result<(), LabError> {
        let of = |role| self.nodes.values().filter(move |node| node.role() == role);
        for node in of(Role::Etcd) {
            tell(format_args!("etcd on {}", node.name()));
            node.etcd().launch()?;
        }
        for node in of(Role::Frr) {
            node.frr().prepare()?;
            if node.spec().command.is_none() {
                tell(format_args!("FRR on {}", node.name()));
                node.frr().start()?;
            }
        }
        for node in of(Role::Host).chain(of(Role::Frr)) {
            let words = node.spec().command.as_ref().filter(|words| !is_bare_shell(words));
            if let Some((program, arguments)) = words.and_then(|words| words.split_first()) {
                let mut command = node.command(program);
                command.args(arguments);
                node.start_service("cmd", command)?;
            }
        }
        self.nodes.values().try_for_each(Node::configure)?;
        for node in of(Role::Etcd) {
            node.etcd().wait_healthy(Duration::from_secs(30))?;
        }
        self.wait_links()
    }

    /// Waits until both ends of every link have a carrier: the kernel says so up to a second after they are up.
    fn wait_links(&self) -> Result<(), LabError> {
        let ends = self.topology.links.iter().flat_map(|link| &link.ends);
        for end in ends {
            let state = self.node(&end.node).path(&format!("/sys/class/net/{}/operstate", end.interface));
            wait_until(&format!("the carrier of {}:{}", end.node, end.interface), Duration::from_secs(10), || {
                std::fs::read_to_string(&state).is_ok_and(|state| state.trim() == "up")
            })?;
        }
        Ok(())
    }

    /// Applies resources, then starts the agents.
    fn start_agents(&self, tell: fn(fmt::Arguments<'_>)) -> Result<(), LabError> {
        for node in self.manx_nodes() {
            if node.path(RESOURCES).exists() {
                tell(format_args!("resources of {}", node.name()));
                node.exec(&["manxctl", "apply", "-f", RESOURCES])?;
            }
        }
        for node in self.manx_nodes() {
            node.agent().start()?;
        }
        for node in self.manx_nodes() {
            node.agent().wait_ready(AGENT_READY)?;
            tell(format_args!("the agent on {} is ready", node.name()));
        }
        Ok(())
    }

    /// The lab of this name that another process brought up. It does not end with this value. Services that the other
    /// process started can be seen but not stopped from here; pods can be plugged in and out.
    pub fn attach(name: &str) -> Result<Self, LabError> {
        let folder = StateFolder::find(name)?;
        let state = folder.load()?;
        let topology = with_machines(Topology::read(&state.topology)?, state.machines);
        let binaries = Binaries::find()?;
        let plan = ManagementPlan::of(&topology);
        let mut namespaces = BTreeMap::new();
        for (node, spec) in &topology.nodes {
            let record = state.namespaces.get(node).filter(|record| record.is_alive());
            let record = *record.ok_or_else(|| LabError::NoSuchNode { what: "living node", name: node.clone() })?;
            namespaces.insert(node.clone(), Namespace::attach(node, record, environment(spec, &binaries)));
        }
        let nodes = nodes(&topology, &plan, namespaces, &folder);
        let state = Mutex::new(state);
        Ok(Self { name: name.to_owned(), topology, state, data: None, folder, management: None, nodes, ours: false })
    }

    /// The names of all labs that are up.
    pub fn list() -> Vec<String> {
        StateFolder::all().into_keys().collect()
    }

    /// Takes down the lab of this name, whoever brought it up and however that process ended.
    pub fn take_down(name: &str) -> Result<(), LabError> {
        StateFolder::find(name)?.take_down()
    }

    /// Lets the lab outlive this process, until [`Lab::take_down`].
    pub fn detach(mut self) -> Result<(), LabError> {
        let mut state = self.state();
        state.detached = true;
        self.folder.save(&state)?;
        drop(state);
        for namespace in self.management.iter().chain(self.nodes.values().map(Node::namespace)) {
            namespace.detach()?;
        }
        self.ours = false;
        Ok(())
    }

    /// Takes the lab down and tells what went wrong with that, which dropping cannot.
    pub fn down(mut self) -> Result<(), LabError> {
        self.ours = false;
        self.end()
    }

    fn end(&mut self) -> Result<(), LabError> {
        let nodes = std::mem::take(&mut self.nodes);
        let services: Vec<_> = nodes.values().map(Node::end_services).collect();
        let namespaces = nodes.values().map(Node::namespace).chain(&self.management);
        let ended: Vec<_> = services.into_iter().chain(namespaces.map(Namespace::kill)).collect();
        // Namespaces that were made when `make` failed are in the state alone; and one that did not end is told after
        // all others have.
        let rest = self.folder.take_down();
        ended.into_iter().collect::<Result<Vec<()>, _>>()?;
        rest
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topology that the lab runs.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The folder of the lab's state and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a machine's `/var/lib` on the host.
    pub(crate) fn disk(&self, machine: &str) -> Option<PathBuf> {
        Some(self.state().disks.as_ref()?.join(machine).join("lib"))
    }

    /// A node by its name in the topology.
    ///
    /// # Panics
    /// If there is none: a mistake in the test. [`Lab::find_node`] is for names that people type.
    pub fn node(&self, name: &str) -> &Node {
        self.find_node(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A node by its name in the topology.
    pub fn find_node(&self, name: &str) -> Result<&Node, LabError> {
        self.nodes.get(name).ok_or_else(|| LabError::NoSuchNode { what: "node", name: name.to_owned() })
    }

    /// All nodes, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The nodes that run agents, in the order of their names.
    pub fn manx_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.role() == Role::Manx)
    }

    /// The first etcd.
    ///
    /// # Panics
    /// If the topology has none: a mistake in the test.
    pub fn etcd(&self) -> crate::Etcd<'_> {
        let node = self.nodes.values().find(|node| node.role() == Role::Etcd);
        let Some(node) = node else { panic!("the topology has no etcd") };
        node.etcd()
    }

    /// A pod of a node, plugged in now if it is not there yet.
    pub fn pod(&self, node: &str, pod: &str) -> Result<Pod, LabError> {
        let node = self.find_node(node)?;
        let known = node.pods().get(pod).cloned();
        known.map_or_else(|| node.plug(pod), Ok)
    }

    /// Looks until a condition holds; an error after `within` names `what`.
    pub fn wait_until(&self, what: &str, within: Duration, condition: impl FnMut() -> bool) -> Result<(), LabError> {
        wait_until(what, within, condition)
    }

    /// Tries until there is a value; after `within` the error names `what` and the last complaint.
    pub fn wait_for<T, E: fmt::Display>(
        &self,
        what: &str,
        within: Duration,
        attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, LabError> {
        wait_for(what, within, attempt)
    }

    /// The end of every agent's log, for a failed test's message.
    fn last_words(&self) -> String {
        let agents = self.manx_nodes().map(|node| {
            let log = node.agent().log();
            format!("--- {}\n{}\n", log.display(), tail(&log, 25))
        });
        agents.collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let mut err = std::io::stderr();
        if thread::panicking() {
            let _ = writeln!(err, "lab {} of the failed test:\n{}", self.name, self.last_words());
        }
        if let Err(error) = self.end() {
            let _ = writeln!(err, "taking down lab {}: {error}", self.name);
        }
    }
}

impl NodeSpec {
    /// Makes the namespace that holds the management network's bridge.
    const fn bridge() -> Self {
        Self {
            role: Role::Host,
            exec: Vec::new(),
            binds: Vec::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            command: None,
            management_ipv4: None,
            management_ipv6: None,
        }
    }
}

fn nodes(
    topology: &Topology,
    plan: &ManagementPlan,
    namespaces: BTreeMap<String, Namespace>,
    folder: &StateFolder,
) -> BTreeMap<String, Node> {
    let found = namespaces.into_iter().filter_map(|(name, namespace)| {
        let spec = topology.nodes.get(&name)?.clone();
        let addresses = plan.addresses(&name)?;
        Some((name, Node::new(namespace, spec, addresses, &folder.logs())))
    });
    found.collect()
}

/// The topology with only its first machines, so many of them.
fn with_machines(topology: Topology, count: Option<usize>) -> Topology {
    let Some(count) = count else { return topology };
    let kept: Vec<String> = topology.of_role(Role::Machine).take(count).map(str::to_owned).collect();
    topology.without(|name, node| node.role == Role::Machine && !kept.iter().any(|kept| kept == name))
}

/// A shell that is given nothing to do keeps a container with a terminal alive. Here it would end at once.
fn is_bare_shell(words: &[String]) -> bool {
    matches!(words, [shell] if ["sh", "bash", "ash"].contains(&shell.rsplit('/').next().unwrap_or_default()))
}

/// The environment of every program in a node.
fn environment(spec: &NodeSpec, binaries: &Binaries) -> Vec<(String, String)> {
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", binaries.folder.display());
    let mut env = vec![
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), "/root".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        // The lock of iptables is one per node of the lab and not one per host: the host's and other labs' iptables do
        // not wait for ours.
        ("XTABLES_LOCKFILE".to_owned(), "/run/xtables.lock".to_owned()),
    ];
    for key in ["TERM", "RUST_LOG", "RUST_BACKTRACE", "MANX_LOG"] {
        env.extend(std::env::var(key).ok().map(|value| (key.to_owned(), value)));
    }
    env.extend(spec.env.clone());
    env
}

/// The files of `/opt/cni/bin`: the reference plugins of this machine, and ours.
fn plugins(binaries: &Binaries) -> Vec<PathBuf> {
    let reference = std::fs::read_dir("/usr/lib/cni").into_iter().flatten();
    let reference = reference.filter_map(|entry| Some(entry.ok()?.path()));
    binaries.need("manx").ok().into_iter().chain(reference).collect()
}

/// The kernel settings of a node: those that containerlab gives its containers, no duplicate address detection (nobody
/// else can have these addresses), and the node's own.
fn sysctls(spec: &NodeSpec) -> Vec<(String, String)> {
    let base = [
        ("net.ipv6.conf.all.disable_ipv6", "0"),
        ("net.ipv6.conf.default.disable_ipv6", "0"),
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
    ];
    let base = base.map(|(key, value)| (key.to_owned(), value.to_owned()));
    base.into_iter().chain(spec.sysctls.clone()).collect()
}
