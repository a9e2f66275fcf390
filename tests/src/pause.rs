//! What runs as process 1 of a node: `manx-lab pause`.
//!
//! It gives the node a file system of its own, says `ready`, and then does what a process 1 must do: it reaps. The node
//! lives as long as it does: when it ends, the kernel kills whatever else runs in the PID namespace, and with the last
//! process go the mounts, the links and the pods' namespaces. It ends by itself when the lab's process ends, however
//! that happens, because it then reads the end of its standard input; a lab that is to outlive its process (`manx-lab
//! up`) writes a byte there first. So a crash in the middle of bringing a lab up leaves nothing either.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::sethostname;
use serde::{Deserialize, Serialize};

use crate::groups::{Hierarchy, Kind};
use crate::topology::Bind;

/// The byte that is written to the standard input of [`run`] to make it live on after the end of the lab's process.
pub(crate) const DETACH: u8 = b'd';

/// The folder of the lab's own files in the node.
const OWN: &str = "/run/.lab";

/// What a node's process 1 is told: one line of JSON on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PauseSpec {
    /// The node's host name.
    pub(crate) hostname: String,
    /// The node's `/etc/hosts`.
    pub(crate) hosts: String,
    /// Files of the host seen inside.
    pub(crate) binds: Vec<Bind>,
    /// The folder on the host that `/var/lib` is kept in; none keeps it in memory.
    pub(crate) data: Option<PathBuf>,
    /// CNI plugins to find in `/opt/cni/bin`.
    pub(crate) plugins: Vec<PathBuf>,
    /// Kernel settings of the network namespace.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Whether containers are to run in the node: it gets control groups of its own, and mounts that they share.
    pub(crate) machine: bool,
}

/// Settings of the whole kernel that a kubelet insists on. A machine sees files that hold them already.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Reads its instructions from standard input, sets the node up and stays. Returns only if that fails.
pub fn run() -> Result<(), String> {
    let spec = read_line().map_err(|error| format!("standard input: {error}"))?;
    let spec: PauseSpec = serde_json::from_slice(&spec).map_err(|error| format!("standard input: {error}"))?;
    // SIGCHLD is blocked before a child can end: it is taken from the queue below and never lost.
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().map_err(|error| format!("blocking SIGCHLD: {error}"))?;

    sethostname(&spec.hostname).map_err(|error| format!("host name {}: {error}", spec.hostname))?;
    file_system(&spec)?;
    for (key, value) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        fs::write(&path, value).map_err(|error| format!("sysctl {key}={value}: {error}"))?;
    }
    say_ready().map_err(|error| format!("saying that it is ready: {error}"))?;

    thread::spawn(|| {
        let mut byte = [0];
        match io::stdin().read(&mut byte) {
            Ok(1) if byte == [DETACH] => {}
            _ => std::process::exit(0),
        }
    });
    loop {
        children.wait().map_err(|error| format!("waiting for SIGCHLD: {error}"))?;
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
}

/// The first line, and not a byte more: what follows is the lifeline.
fn read_line() -> io::Result<Vec<u8>> {
    let bytes = io::stdin().lock().bytes().take_while(|byte| !matches!(byte, Ok(b'\n')));
    bytes.collect()
}

fn say_ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"ready\n")?;
    out.flush()
}

/// Gives the node its own `/run`, `/var/lib`, `/var/log`, `/etc`, `/opt` and `/sys`.
fn file_system(spec: &PauseSpec) -> Result<(), String> {
    // /var/lib comes first: the folder it is bound from may lie in the host's /run.
    match &spec.data {
        Some(folder) => bind(folder, Path::new("/var/lib"), false)?,
        None => tmpfs("/var/lib")?,
    }
    let held = hold(&spec.binds)?;
    tmpfs("/var/log")?;
    tmpfs("/run")?;
    for folder in ["/run/lock", "/run/netns", "/var/lib/cni", "/var/lib/manx", OWN] {
        make_folder(Path::new(folder))?;
    }
    if spec.machine {
        machine()?;
    } else {
        system_folder()?;
    }

    overlay("/etc", "etc")?;
    overlay("/opt", "opt")?;
    // The networks of runtimes that this host has are not the node's.
    let networks = Path::new("/etc/cni/net.d");
    if networks.exists() {
        fs::remove_dir_all(networks).map_err(|error| format!("{}: {error}", networks.display()))?;
    }
    for folder in ["/etc/manx", "/etc/cni/net.d", "/etc/frr", "/opt/cni/bin"] {
        make_folder(Path::new(folder))?;
    }
    write("/etc/hosts", &spec.hosts)?;
    write("/etc/hostname", &format!("{}\n", spec.hostname))?;
    for plugin in &spec.plugins {
        let name = plugin.file_name().ok_or_else(|| format!("{} names no plugin", plugin.display()))?;
        let link = Path::new("/opt/cni/bin").join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(plugin, &link).map_err(|error| format!("{}: {error}", link.display()))?;
        }
    }
    for (bind_spec, held) in spec.binds.iter().zip(&held) {
        let target = &bind_spec.target;
        make_target(target, held)?;
        bind(held, target, bind_spec.read_only)?;
    }
    if spec.machine {
        // Containers' mounts and the kubelet's have to be seen by each other, as on any host.
        mounted(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SHARED, None)?;
    }
    Ok(())
}

/// Mounts a fresh sysfs, which shows the new network namespace's interfaces; the control groups stay where runtimes
/// look for them.
fn system_folder() -> Result<(), String> {
    let groups = Path::new("/sys/fs/cgroup");
    let aside = Path::new(OWN).join("cgroup");
    make_folder(&aside)?;
    mounted(Some(groups), &aside, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
    mounted(Some(Path::new("sysfs")), Path::new("/sys"), Some("sysfs"), MsFlags::empty(), None)?;
    mounted(Some(&aside), groups, None, MsFlags::MS_MOVE, None)?;
    Ok(())
}

/// Mounts a fresh sysfs with control groups as the machine's own namespace has them, and the kernel settings that the
/// machine is shown.
fn machine() -> Result<(), String> {
    let hierarchies = Hierarchy::all().map_err(|error| format!("control groups: {error}"))?;
    mounted(Some(Path::new("sysfs")), Path::new("/sys"), Some("sysfs"), MsFlags::empty(), None)?;
    let root = Path::new("/sys/fs/cgroup");
    if !hierarchies.iter().any(|hierarchy| hierarchy.at == root) {
        tmpfs("/sys/fs/cgroup")?;
    }
    // Version 2 stands beside version 1 without controllers: runtimes that find it there take it for more.
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.at == root || hierarchy.kind != Kind::Two) {
        make_folder(&hierarchy.at)?;
        let (kind, options) = match &hierarchy.kind {
            Kind::One(options) => ("cgroup", Some(options.as_str())),
            Kind::Two => ("cgroup2", None),
        };
        mounted(Some(Path::new(kind)), &hierarchy.at, Some(kind), MsFlags::empty(), options)?;
    }
    // Otherwise pods that mount this folder would make it in the host's own file system.
    if !Path::new("/lib/modules").exists() {
        let lib = fs::canonicalize("/lib").map_err(|error| format!("/lib: {error}"))?;
        overlay(&lib.display().to_string(), "lib")?;
        make_folder(Path::new("/lib/modules"))?;
    }
    let shown = Path::new(OWN).join("settings");
    make_folder(&shown)?;
    // A machine that comes up again has to be another boot in the kubelet's eyes.
    let boot = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|error| format!("a boot id: {error}"))?;
    for (key, value) in KERNEL_SETTINGS.into_iter().chain([("kernel/random/boot_id", boot.as_str())]) {
        let file = shown.join(key.replace('/', "."));
        fs::write(&file, value).map_err(|error| format!("{}: {error}", file.display()))?;
        bind(&file, &Path::new("/proc/sys").join(key), false)?;
    }
    Ok(())
}

/// Resolves the binds' sources before anything is mounted over the host's folders.
fn hold(binds: &[Bind]) -> Result<Vec<PathBuf>, String> {
    let resolved = binds
        .iter()
        .map(|bind| bind.source.canonicalize().map_err(|error| format!("bind {}: {error}", bind.source.display())));
    resolved.collect()
}

/// The mount point of a bind. It may be made only where the node's own file systems are, never in the host's.
fn make_target(target: &Path, source: &Path) -> Result<(), String> {
    if fs::symlink_metadata(target).is_ok() {
        return Ok(());
    }
    let own = ["/etc", "/opt", "/run", "/var/lib", "/var/log"];
    if !own.iter().any(|folder| target.starts_with(folder)) {
        return Err(format!("bind to {}: not under {}, and it does not exist", target.display(), own.join(", ")));
    }
    if source.is_dir() {
        return make_folder(target);
    }
    if let Some(folder) = target.parent() {
        make_folder(folder)?;
    }
    fs::write(target, "").map_err(|error| format!("{}: {error}", target.display()))
}

fn tmpfs(target: &str) -> Result<(), String> {
    mounted(Some(Path::new("tmpfs")), Path::new(target), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
}

/// The host's folder with the node's changes laid over it, in memory.
fn overlay(folder: &str, name: &str) -> Result<(), String> {
    let [upper, work] = ["upper", "work"].map(|part| Path::new(OWN).join(format!("{name}-{part}")));
    make_folder(&upper)?;
    make_folder(&work)?;
    let options = format!("lowerdir={folder},upperdir={},workdir={}", upper.display(), work.display());
    mounted(Some(Path::new("overlay")), Path::new(folder), Some("overlay"), MsFlags::empty(), Some(&options))
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), String> {
    mounted(Some(source), target, None, MsFlags::MS_BIND, None)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mounted(None, target, None, flags, None)?;
    }
    Ok(())
}

fn mounted(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), String> {
    mount(source, target, kind, flags, options).map_err(|error| {
        let source = source.unwrap_or(target);
        format!("mounting {} on {} ({flags:?}): {error}", source.display(), target.display())
    })
}

fn make_folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &str, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}
