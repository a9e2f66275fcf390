//! etcd, the real one, in its node.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use types::Family;

use crate::LabError;
use crate::binaries::installed;
use crate::node::Node;
use crate::place::Place;
use crate::wait::wait_for;

const SERVICE: &str = "etcd";

/// etcd's client port.
const PORT: u16 = 2379;

/// A node's etcd.
#[derive(Debug, Clone, Copy)]
pub struct Etcd<'a> {
    pub(crate) node: &'a Node,
}

impl Etcd<'_> {
    /// Starts etcd with the data that it kept, and waits until it serves. The topology's `cmd` runs if it is given; the
    /// rest is configured by the topology's `env` (`ETCD_...`).
    pub fn start(self) -> Result<(), LabError> {
        self.launch()?;
        self.wait_healthy(Duration::from_secs(30))
    }

    pub(crate) fn launch(self) -> Result<(), LabError> {
        let words = self.node.spec().command.clone().unwrap_or_else(|| vec![SERVICE.to_owned()]);
        let (program, arguments) = words.split_first().map_or((SERVICE, [].as_slice()), |(first, rest)| (first, rest));
        // An image may have etcd anywhere; here it is where the package put it.
        let name = program.rsplit('/').next().unwrap_or(program);
        let mut command = self.node.command(&installed(name, "etcd-server")?.display().to_string());
        command.args(arguments);
        if !self.node.spec().env.contains_key("ETCD_DATA_DIR") {
            command.env("ETCD_DATA_DIR", "/var/lib/etcd");
        }
        self.node.start_service(SERVICE, command)
    }

    /// Waits until it answers that it is healthy (it has a leader and commits). One that speaks TLS is asked by etcdctl,
    /// as the topology's `ETCDCTL_...` has it.
    pub fn wait_healthy(self, within: Duration) -> Result<(), LabError> {
        let address = SocketAddr::new(self.node.management_address(Family::Ipv4), PORT);
        wait_for("etcd to be healthy", within, || {
            self.node.check_service(SERVICE).map_err(|error| error.to_string())?;
            if self.node.spec().env.contains_key("ETCD_CERT_FILE") {
                return self.ctl(&["endpoint", "health"]).map(drop).map_err(|error| error.to_string());
            }
            let answer = self.node.http_get(address, "/health").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.body)) }
        })
    }

    /// Ends etcd as a crash does (SIGKILL). What it committed is there at the next start.
    pub fn stop(self) -> Result<(), LabError> {
        self.node.end_service(SERVICE, Signal::SIGKILL)
    }

    /// Stops etcd in its tracks (SIGSTOP): connections stay open and nothing answers.
    pub fn freeze(self) -> Result<(), LabError> {
        self.node.signal_service(SERVICE, Signal::SIGSTOP)
    }

    /// Lets a stopped etcd go on.
    pub fn thaw(self) -> Result<(), LabError> {
        self.node.signal_service(SERVICE, Signal::SIGCONT)
    }

    /// Runs etcdctl in etcd's node, with the node's environment (`ETCDCTL_ENDPOINTS`, `ETCDCTL_CACERT`, ...).
    pub fn ctl(self, words: &[&str]) -> Result<String, LabError> {
        let mut line = vec!["env", "ETCDCTL_API=3", "etcdctl"];
        line.extend(words);
        self.node.exec(&line)
    }
}
