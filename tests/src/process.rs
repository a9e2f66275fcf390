//! Processes by identity, and services in the background.
//!
//! A pid alone is reused by the kernel; a pid with its start time is not. Nothing in the lab is ever signalled by name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::wait::wait_for;

/// How long a killed process may take to be gone: on a machine with twenty others at work it was seen to need more than ten
/// seconds.
const DEATH: Duration = crate::CONVERGENCE;

/// A process, told from any later one that gets the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid as the lab's process sees it.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
}

impl ProcessId {
    /// The living process with this pid.
    pub fn of(pid: i32) -> Option<Self> {
        Stat::of(pid).filter(Stat::lives).map(|stat| Self { pid, started: stat.started })
    }

    /// This process itself.
    pub fn current() -> Option<Self> {
        Self::of(Pid::this().as_raw())
    }

    /// The child of this process, where it has exactly one or the first of several.
    pub fn child(self) -> Option<Self> {
        let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: i32| Stat::of(pid).map(|stat| (pid, stat)))
            .find(|(_, stat)| stat.parent == self.pid && stat.lives())
            .map(|(pid, stat)| Self { pid, started: stat.started })
    }

    /// Whether the process still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; it is no error if the process is gone already.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The fields of `/proc/PID/stat` that the lab reads.
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name stands in parentheses and may hold any character: the fields count from the last ')'.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// A process that runs in a node's namespaces until it is stopped.
#[derive(Debug)]
pub struct Service {
    /// The service's name in messages, such as `manx-agent on node1`.
    name: String,
    /// The process `nsenter`, which waits for the service and ends with it; it is our child.
    entered: Child,
    /// The process of the service itself.
    process: ProcessId,
    /// The file that the service's output goes to.
    log: PathBuf,
}

impl Service {
    /// Starts the service; `command` is one of [`crate::Namespace::command`]. Output is appended to `log`.
    pub fn start(name: impl Into<String>, mut command: Command, log: &Path) -> Result<Self, LabError> {
        let name = name.into();
        let failed = |source| LabError::Io { doing: format!("starting {name}"), source };
        let out = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        // Ctrl-C must reach the lab's process alone, which then takes everything down in order.
        let mut entered = command.process_group(0).spawn().map_err(failed)?;
        let pid = i32::try_from(entered.id()).unwrap_or_default();
        let outer = ProcessId::of(pid);
        let started = wait_for(&format!("{name} to start"), DEATH, || {
            if let Ok(Some(status)) = entered.try_wait() {
                return Ok(Err(status));
            }
            outer.and_then(ProcessId::child).map(Ok).ok_or("its process is not there")
        })?;
        match started {
            Ok(process) => Ok(Self { name, entered, process, log: log.to_owned() }),
            Err(status) => Err(LabError::Ended { name, status: status.to_string(), log: tail(log, 20) }),
        }
    }

    /// The process of the service itself, as the host sees it.
    pub const fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether the service runs; the error tells how it ended and its last words.
    pub fn check(&mut self) -> Result<(), LabError> {
        match self.entered.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(LabError::Ended { name: self.name.clone(), status: status.to_string(), log: tail(&self.log, 20) })
            }
            Err(source) => Err(LabError::Io { doing: format!("waiting for {}", self.name), source }),
        }
    }

    /// Sends the service a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.process.signal(signal).map_err(LabError::io(format!("sending {} {signal}", self.name)))?;
        if signal == Signal::SIGCONT { self.resume_entered() } else { Ok(()) }
    }

    /// Sends a signal and waits until the process is gone.
    pub fn end(mut self, signal: Signal) -> Result<(), LabError> {
        self.signal(signal)?;
        wait_for(&format!("{} to end after {signal}", self.name), DEATH, || {
            self.resume_entered().map_err(|error| error.to_string())?;
            match self.entered.try_wait() {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!("it runs, and last said: {}", tail(&self.log, 3))),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// Lets nsenter go on: it stops itself when its child is stopped, and has to see its child go on, or reap it.
    fn resume_entered(&self) -> Result<(), LabError> {
        let outer = i32::try_from(self.entered.id()).ok().and_then(ProcessId::of);
        outer
            .map_or(Ok(()), |outer| outer.signal(Signal::SIGCONT))
            .map_err(LabError::io(format!("resuming {}", self.name)))
    }
}

/// The last lines of a log, for messages.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let Ok(text) = File::open(log).and_then(io::read_to_string) else {
        return format!("(no log at {})", log.display());
    };
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
