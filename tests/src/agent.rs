//! The Manx agent of a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::LabError;
use crate::binaries::Binaries;
use crate::node::Node;
use crate::place::Place;
use crate::process::ProcessId;
use crate::wait::wait_for;

const SERVICE: &str = "manx-agent";

/// Where the agent tells its health and its metrics by default.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9179);

/// A node's agent.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    pub(crate) node: &'a Node,
}

impl Agent<'_> {
    /// Starts the agent. It is ready some time later: [`Agent::wait_ready`].
    pub fn start(self) -> Result<(), LabError> {
        self.start_with(&[])
    }

    /// Starts the agent with more environment than the topology gives the node.
    pub fn start_with(self, env: &[(&str, &str)]) -> Result<(), LabError> {
        let program = Binaries::find()?.need(SERVICE)?;
        let mut command = self.node.command(&program.display().to_string());
        command.envs(env.iter().copied());
        self.node.start_service(SERVICE, command)
    }

    /// Waits until `/readyz` says so; the error quotes its answer, or the agent's last words if it ended.
    pub fn wait_ready(self, within: Duration) -> Result<(), LabError> {
        wait_for(&format!("the agent on {} to be ready", self.node.name()), within, || {
            self.node.check_service(SERVICE).map_err(|error| error.to_string())?;
            self.ready()
        })
    }

    /// Whether `/readyz` says so; the error is its answer.
    pub fn ready(self) -> Result<(), String> {
        let answer = self.node.http_get(HEALTH, "/readyz").map_err(|error| format!("{HEALTH}: {error}"))?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.body.trim())) }
    }

    /// Kills the agent (SIGKILL) and waits until it is gone.
    pub fn kill9(self) -> Result<(), LabError> {
        self.node.end_service(SERVICE, Signal::SIGKILL)
    }

    /// Asks the agent to end (SIGTERM) and waits until it is gone.
    pub fn terminate(self) -> Result<(), LabError> {
        self.node.end_service(SERVICE, Signal::SIGTERM)
    }

    /// Stops the agent in its tracks (SIGSTOP): its sockets take connections and nobody answers.
    pub fn freeze(self) -> Result<(), LabError> {
        self.node.signal_service(SERVICE, Signal::SIGSTOP)
    }

    /// Lets a stopped agent go on.
    pub fn thaw(self) -> Result<(), LabError> {
        self.node.signal_service(SERVICE, Signal::SIGCONT)
    }

    /// Whether the agent runs; the error quotes its last words.
    pub fn check(self) -> Result<(), LabError> {
        self.node.check_service(SERVICE)
    }

    /// The agent's process, as the host sees it.
    pub fn process(self) -> Option<ProcessId> {
        self.node.service_process(SERVICE)
    }

    /// The file that the agent's output goes to, over all its starts.
    pub fn log(self) -> PathBuf {
        self.node.log(SERVICE)
    }

    /// The sum of the agent's metrics whose names and labels contain this text; the error says why there is none.
    pub fn metric(self, part: &str) -> Result<f64, String> {
        let text = self.node.http_get(HEALTH, "/metrics").map_err(|error| error.to_string())?.body;
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
        let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        if values.is_empty() { Err(format!("there is no metric *{part}*")) } else { Ok(values.iter().sum()) }
    }

    /// Runs manxctl on the node and gives its output.
    pub fn ctl(self, words: &[&str]) -> Result<String, LabError> {
        let mut line = vec!["manxctl"];
        line.extend(words);
        self.node.exec(&line)
    }
}
