//! The CNI binary is run once where it was put: a runtime would tell of one that cannot be run pod by pod.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use serde_json::Value;
use types::cni::VERSION_KEY;

/// Runs the binary for its version; gives what to say of it. An error says why it cannot be run.
pub(super) fn run(path: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(path);
    command.env_clear().env("CNI_COMMAND", "VERSION").stdin(Stdio::null());
    let shown = || format!("{} is in its place but cannot be run, so that no pod would start", path.display());
    let Output { status, stdout, stderr } = command.output().map_err(|error| in_words(&error)).with_context(shown)?;
    let report: Option<Value> = serde_json::from_slice(&stdout).ok();
    let version = report.as_ref().and_then(|report| report.get(VERSION_KEY)?.as_str());
    match version.filter(|_| status.success()) {
        Some(version) => Ok(format!("{}: runs, version {version}", path.display())),
        None => {
            let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).trim().to_owned()).join(" ");
            Err(anyhow::anyhow!("asked for its version, it ended with {status}: {said}")).with_context(shown)
        }
    }
}

fn in_words(error: &io::Error) -> anyhow::Error {
    match error.kind() {
        // It was put with the right to execute it.
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "{error}: its file system is mounted noexec, or a security module forbids it. Mount it without noexec, or have the \
             runtime look for CNI binaries elsewhere (docs/installation.md)"
        ),
        io::ErrorKind::NotFound => anyhow::anyhow!("{error}: this system lacks the loader that it was built for"),
        _ => anyhow::anyhow!("{error}"),
    }
}

#[cfg(test)]
mod tests;
