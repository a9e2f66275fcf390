//! What nodes and pods have in common: commands run in them, and they are reached by the network.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, ExitStatus, Stdio};

use crate::LabError;
use crate::http::{self, Answer};

/// A network namespace with a way to run commands in it: a node or a pod.
pub trait Place: Sync {
    /// What messages call it, such as `node1` or `node1/a`.
    fn name(&self) -> String;

    /// A command that will run there, in an environment of its own.
    fn command(&self, program: &str) -> Command;

    /// Its network namespace; the file keeps it alive.
    fn netns(&self) -> io::Result<File>;

    /// Runs a command to its end, at most 60 s, and gives its output whatever its status.
    fn try_exec(&self, words: &[&str]) -> Result<Output, LabError> {
        let mut command = self.command("timeout");
        command.args(["-k", "1", "60"]).args(words).stdin(Stdio::null());
        let output = command.output().map_err(LabError::io(format!("running {words:?} on {}", self.name())))?;
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command to its end, at most 60 s, and gives its standard output. Another status than 0 is an error that
    /// quotes what the command said.
    fn exec(&self, words: &[&str]) -> Result<String, LabError> {
        let output = self.try_exec(words)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(LabError::Command {
            place: self.name(),
            command: words.join(" "),
            status: output.status.to_string(),
            output: format!("{}{}", output.stderr, output.stdout).trim().to_owned(),
        })
    }

    /// [`Place::exec`] of a shell's line.
    fn shell(&self, line: &str) -> Result<String, LabError> {
        self.exec(&["sh", "-c", line])
    }

    /// One HTTP GET from there.
    fn http_get(&self, address: SocketAddr, path: &str) -> io::Result<Answer> {
        http::get(&self.netns()?, address, path)
    }

    /// Whether one echo request to the address is answered within a second.
    fn ping(&self, address: IpAddr) -> bool {
        let address = address.to_string();
        self.try_exec(&["ping", "-n", "-q", "-c", "1", "-W", "1", &address]).is_ok_and(|output| output.status.success())
    }
}

/// What a command gave back.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}
