//! A node's namespaces: network, mounts, host name and processes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::binaries::Binaries;
use crate::groups::Groups;
use crate::pause::{DETACH, PauseSpec};
use crate::process::{ProcessId, tail};
use crate::wait::wait_for;

/// The namespaces of a node, and the way in. Cheap to clone; all clones mean the same node.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The node's name.
    name: String,
    /// The process that holds the namespaces, and how to find it again. After a reboot it is another one.
    record: Mutex<NamespaceRecord>,
    /// The environment of every command.
    env: Vec<(String, String)>,
    /// The process `unshare`, if this process made the namespaces: it is our child, and its standard input is the
    /// lifeline.
    unshare: Mutex<Option<Child>>,
}

/// What the state file remembers of a node's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// The process `unshare`, whose end kills process 1.
    pub unshare: ProcessId,
    /// The node's process 1, as the host sees it.
    pub init: ProcessId,
    /// Whether the node is a machine, which has namespaces for control groups and interprocess communication too.
    #[serde(default)]
    pub machine: bool,
}

impl Namespace {
    /// Makes the namespaces and sets up the file system in them.
    pub(crate) fn create(
        name: &str,
        spec: &PauseSpec,
        env: Vec<(String, String)>,
        binaries: &Binaries,
        log: &Path,
        groups: Option<&Groups>,
    ) -> Result<Self, LabError> {
        let (unshare, record) = spawn(name, spec, binaries, log, groups)?;
        let (record, unshare) = (Mutex::new(record), Mutex::new(Some(unshare)));
        Ok(Self(Arc::new(Inner { name: name.to_owned(), record, env, unshare })))
    }

    /// Makes new namespaces in place of those that were killed. All clones mean the new ones from then on.
    pub(crate) fn recreate(
        &self,
        spec: &PauseSpec,
        binaries: &Binaries,
        log: &Path,
        groups: Option<&Groups>,
    ) -> Result<NamespaceRecord, LabError> {
        let (unshare, record) = spawn(&self.0.name, spec, binaries, log, groups)?;
        *self.0.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        *self.0.unshare.lock().unwrap_or_else(PoisonError::into_inner) = Some(unshare);
        Ok(record)
    }

    /// The namespaces of a lab that another process made.
    pub(crate) fn attach(name: &str, record: NamespaceRecord, env: Vec<(String, String)>) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), record: Mutex::new(record), env, unshare: Mutex::new(None) }))
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What to remember to find these namespaces again.
    pub(crate) fn record(&self) -> NamespaceRecord {
        *self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's file system as the host sees it. (An absolute symbolic link in it leads to the host's.)
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.record().init.pid))
    }

    /// The network namespace; the file keeps it alive.
    pub fn netns(&self) -> io::Result<File> {
        File::open(self.net_path())
    }

    /// The file that means the network namespace, as long as the node lives.
    pub(crate) fn net_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.record().init.pid))
    }

    /// A command that will run inside, with the node's environment only.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.record().init.pid.to_string())
            .args(["--net", "--mount", "--uts", "--pid"])
            .args(if self.record().machine { ["--ipc", "--cgroup"].as_slice() } else { &[] })
            .args(["--", program])
            .env_clear()
            .envs(self.0.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Lets the node outlive this process.
    pub(crate) fn detach(&self) -> Result<(), LabError> {
        let mut unshare = self.0.unshare.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lifeline) = unshare.as_mut().and_then(|child| child.stdin.as_mut()) else { return Ok(()) };
        lifeline.write_all(&[DETACH]).map_err(LabError::io(format!("detaching {}", self.0.name)))
    }

    /// Kills everything in the node and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<(), LabError> {
        let ended = self.record().kill(&self.0.name);
        let mut unshare = self.0.unshare.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = unshare.take() {
            let _ = child.wait();
        }
        ended
    }
}

impl NamespaceRecord {
    /// Whether the node's process 1 still lives.
    pub fn is_alive(&self) -> bool {
        self.unshare.is_alive() || self.init.is_alive()
    }

    /// Kills everything in the node and waits until it is gone.
    pub(crate) fn kill(&self, name: &str) -> Result<(), LabError> {
        let failed = || LabError::io(format!("ending {name}"));
        // Process 1 first: the kernel kills the rest of the PID namespace before process 1 is gone.
        self.init.signal(Signal::SIGKILL).map_err(failed())?;
        self.unshare.signal(Signal::SIGKILL).map_err(failed())?;
        let within = Duration::from_secs(10);
        let gone = || if self.is_alive() { Err("its processes still run") } else { Ok(()) };
        wait_for(&format!("the end of {name}"), within, gone)
    }
}

/// Starts a process 1 in namespaces of its own.
fn spawn(
    name: &str,
    spec: &PauseSpec,
    binaries: &Binaries,
    log: &Path,
    groups: Option<&Groups>,
) -> Result<(Child, NamespaceRecord), LabError> {
    let failed = || LabError::io(format!("namespaces of {name}"));
    let mut spec = serde_json::to_vec(spec).map_err(|error| failed()(error.into()))?;
    spec.push(b'\n');
    let errors = File::options().create(true).append(true).open(log).map_err(failed())?;
    let mut unshare = match groups {
        None => Command::new("unshare"),
        Some(groups) => within(groups),
    };
    let mut unshare = unshare
        .args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        .args(if groups.is_some() { ["--ipc", "--cgroup"].as_slice() } else { &[] })
        .arg(&binaries.lab)
        .arg("pause")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        // Ctrl-C must reach the lab's process alone, which then takes everything down in order.
        .process_group(0)
        .spawn()
        .map_err(failed())?;
    // If process 1 is gone already, it is not ready, and that is reported below.
    let _ = unshare.stdin.as_mut().map(|lifeline| lifeline.write_all(&spec));
    let mut said = String::new();
    if let Some(out) = unshare.stdout.take() {
        BufReader::new(out).read_line(&mut said).map_err(failed())?;
    }
    if said != "ready\n" {
        // Nothing is left of a failed attempt: whatever was made goes with the process.
        let _ = unshare.kill();
        let _ = unshare.wait();
        return Err(LabError::Namespace { node: name.to_owned(), problem: tail(log, 5) });
    }
    let outer = i32::try_from(unshare.id()).ok().and_then(ProcessId::of);
    let record = outer.and_then(|outer| Some((outer, outer.child()?)));
    let Some((outer, init)) = record else {
        return Err(LabError::Namespace { node: name.to_owned(), problem: "process 1 is gone".to_owned() });
    };
    let record = NamespaceRecord { unshare: outer, init, machine: groups.is_some() };
    if let Some(groups) = groups {
        groups.settle(outer.pid, init.pid).map_err(failed())?;
    }
    Ok((unshare, record))
}

/// The command `unshare`, which begins in the control groups of a machine.
fn within(groups: &Groups) -> Command {
    let mut command = Command::new("sh");
    // A process that writes 0 into the file moves itself into the group.
    command.args([
        "-c",
        "while [ \"$1\" != -- ]; do echo 0 >\"$1\" || exit; shift; done; shift; exec unshare \"$@\"",
        "sh",
    ]);
    command.args(groups.doors()).arg("--");
    command
}

/// Runs a closure on a thread of its own in a network namespace. Sockets made there stay in that namespace.
pub fn run_in<T: Send>(netns: &File, closure: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            closure()
        });
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
