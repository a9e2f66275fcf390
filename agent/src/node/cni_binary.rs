//! The CNI binary where the runtime finds it: whether it is there, can be run, and is of this agent's version.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;

use types::cni::{PLUGIN, PROTOCOL, PROTOCOL_KEY, VERSION_KEY};

use super::cni_configuration::Fault;

/// How long the binary may take to say its version: it does nothing else meanwhile.
const RUN_TIME_LIMIT: Duration = Duration::from_secs(5);

/// How often one that has not changed is run all the same: its file system may have been mounted anew without the right to run it.
const RUN_INTERVAL: Duration = Duration::from_secs(30);

/// The mode bits of which one has to be set for a file to be run.
const EXECUTABLE: u32 = 0o111;

/// Keeps an eye on the binary. It is run when it has changed, or when it was wrong before.
#[derive(Debug)]
pub(super) struct BinaryWatch {
    path: PathBuf,
    fine: Option<(Stamp, Instant)>,
}

/// What changes when somebody replaces a file or another file system covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl BinaryWatch {
    /// Of the binary in a folder.
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join(PLUGIN), fine: None }
    }

    /// What is wrong with it now, if anything.
    pub(super) async fn look(&mut self) -> Option<Fault> {
        let meta = match tokio::fs::metadata(&self.path).await {
            Ok(meta) => meta,
            Err(error) => return self.wrong(absent(&self.path, &error)),
        };
        if !meta.is_file() {
            return self.wrong(Fault::of_pods(format!(
                "the CNI binary {} is no file: no pod can be plugged in or out; {REMEDY}",
                self.path.display()
            )));
        }
        let stamp = Stamp::of(&meta);
        if matches!(&self.fine, Some((seen, at)) if *seen == stamp && at.elapsed() < RUN_INTERVAL) {
            return None;
        }
        match run(&self.path).await {
            Ok(report) => match judge(&self.path, &report, env!("CARGO_PKG_VERSION")) {
                None => {
                    self.fine = Some((stamp, Instant::now()));
                    None
                }
                Some(fault) => self.wrong(fault),
            },
            // Somebody is writing it in this moment: the next look says what came of it.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => None,
            Err(error) => self.wrong(cannot_be_run(&self.path, meta.mode(), &error)),
        }
    }

    fn wrong(&mut self, fault: Fault) -> Option<Fault> {
        self.fine = None;
        Some(fault)
    }
}

/// Who puts the binary there.
const REMEDY: &str =
    "`manxctl node install` puts it there, which an agent's pod runs before it starts: delete this node's agent pod";

fn absent(path: &Path, error: &io::Error) -> Fault {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::of_pods(format!("the CNI binary {path} is gone: no pod can be plugged in or out; {REMEDY}"))
        }
        _ => Fault::of_pods(format!("the CNI binary {path} cannot be looked at: {error}")),
    }
}

fn cannot_be_run(path: &Path, mode: u32, error: &io::Error) -> Fault {
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied if mode & EXECUTABLE == 0 => {
            format!("its mode is {:03o}; chmod 755 mends that", mode & 0o777)
        }
        io::ErrorKind::PermissionDenied => {
            "its file system is mounted noexec, or the host's security module forbids it".to_owned()
        }
        _ => format!("{error}; {REMEDY}"),
    };
    Fault::of_pods(format!(
        "the CNI binary {} cannot be run, so that no pod can be plugged in or out: {why}",
        path.display()
    ))
}

/// Runs the binary for its version; gives what it writes.
async fn run(path: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new(path);
    command.env_clear().env("CNI_COMMAND", "VERSION").kill_on_drop(true);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    match tokio::time::timeout(RUN_TIME_LIMIT, command.output()).await {
        Ok(output) => Ok(output?.stdout),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not say its version within five seconds")),
    }
}

/// Judges what the binary says of itself (pure).
fn judge(path: &Path, report: &[u8], own: &str) -> Option<Fault> {
    let path = path.display();
    let Ok(Value::Object(report)) = serde_json::from_slice(report) else {
        return Some(Fault::of_pods(format!(
            "the CNI binary {path} does not say its version, so that it may be broken or another program; {REMEDY}"
        )));
    };
    let version = report.get(VERSION_KEY).and_then(Value::as_str);
    let protocol = report.get(PROTOCOL_KEY).and_then(Value::as_u64);
    let said = version.map_or_else(
        || "another program, or older than this agent".to_owned(),
        |version| format!("of version {version}"),
    );
    if version.is_some() && protocol != Some(u64::from(PROTOCOL)) {
        return Some(Fault::of_pods(format!(
            "the CNI binary {path} is {said} and does not understand this agent, which is of {own}: every pod is refused; {REMEDY}"
        )));
    }
    (version != Some(own))
        .then(|| Fault::of_operators(format!("the CNI binary {path} is {said}, and this agent of {own}; {REMEDY}")))
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let changed = (meta.ctime(), meta.ctime_nsec());
        Self { device: meta.dev(), inode: meta.ino(), size: meta.len(), changed }
    }
}

#[cfg(test)]
mod tests;
