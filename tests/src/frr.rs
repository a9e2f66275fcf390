//! FRR in its node: the daemons that `/etc/frr/daemons` asks for, as its own start script runs them.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::LabError;
use crate::binaries::installed;
use crate::node::Node;
use crate::place::Place;
use crate::topology::split_words;
use crate::wait::wait_for;

/// The daemons, in the order in which they start. The first run always (mgmtd where this FRR has one).
const ALWAYS: [&str; 3] = ["mgmtd", "zebra", "staticd"];
const ASKED_FOR: [&str; 4] = ["bgpd", "bfdd", "ospfd", "ospf6d"];

/// A node's FRR.
#[derive(Debug, Clone, Copy)]
pub struct Frr<'a> {
    pub(crate) node: &'a Node,
}

/// One daemon and its options.
struct Daemon {
    name: &'static str,
    options: Vec<String>,
}

impl Frr<'_> {
    /// Makes the folders that the daemons write to, whoever starts them.
    pub(crate) fn prepare(self) -> Result<(), LabError> {
        let folders = ["/run/frr", "/var/lib/frr", "/var/log/frr"];
        let words = ["install", "-d", "-o", "frr", "-g", "frr", "-m", "755"];
        self.node.exec(&words.into_iter().chain(folders).collect::<Vec<_>>()).map(drop)
    }

    /// Starts the daemons and gives them `/etc/frr/frr.conf`.
    pub fn start(self) -> Result<(), LabError> {
        self.prepare()?;
        for daemon in self.daemons()? {
            self.launch(&daemon)?;
        }
        self.read_configuration()
    }

    /// Starts one daemon again, such as `bgpd` after [`Frr::kill_daemon`], and gives it `/etc/frr/frr.conf`.
    pub fn start_daemon(self, name: &str) -> Result<(), LabError> {
        let daemon = self.daemons()?.into_iter().find(|daemon| daemon.name == name);
        self.launch(&daemon.ok_or_else(|| LabError::NoSuchNode { what: "daemon", name: name.to_owned() })?)?;
        self.read_configuration()
    }

    /// Runs a daemon until it can be spoken to.
    fn launch(self, daemon: &Daemon) -> Result<(), LabError> {
        let program = installed(daemon.name, "frr")?;
        let mut command = self.node.command(&program.display().to_string());
        command.args(&daemon.options).args(["--log", "stdout", "--log-level", "informational"]);
        self.node.start_service(daemon.name, command)?;
        let socket = self.node.path(&format!("/run/frr/{}.vty", daemon.name));
        wait_for(&format!("{} of {}", daemon.name, self.node.name()), Duration::from_secs(20), || {
            self.node.check_service(daemon.name).map_err(|error| error.to_string())?;
            if socket.exists() { Ok(()) } else { Err("it has not opened its socket".to_owned()) }
        })
    }

    fn read_configuration(self) -> Result<(), LabError> {
        self.node.exec(&["vtysh", "-b"]).map(drop)
    }

    /// Kills every daemon. Their routes stay in the kernel.
    pub fn kill(self) -> Result<(), LabError> {
        for daemon in self.daemons()?.iter().rev() {
            self.kill_daemon(daemon.name)?;
        }
        Ok(())
    }

    /// Kills one daemon, such as `bgpd`.
    pub fn kill_daemon(self, daemon: &str) -> Result<(), LabError> {
        self.node.end_service(daemon, Signal::SIGKILL)?;
        let socket = self.node.path(&format!("/run/frr/{daemon}.vty"));
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::io(socket.display().to_string())(error))
            }
            _ => Ok(()),
        }
    }

    /// What `vtysh` answers to a command.
    pub fn vtysh(self, command: &str) -> Result<String, LabError> {
        self.node.exec(&["vtysh", "-c", command])
    }

    /// What `vtysh` answers to several commands, one after the other: `configure terminal`, then the lines of a change.
    pub fn configure(self, lines: &[&str]) -> Result<String, LabError> {
        let mut words = vec!["vtysh", "-c", "configure terminal"];
        for line in lines {
            words.extend(["-c", line]);
        }
        self.node.exec(&words)
    }

    fn daemons(self) -> Result<Vec<Daemon>, LabError> {
        let path = self.node.path("/etc/frr/daemons");
        let text = fs::read_to_string(&path).map_err(LabError::io(path.display().to_string()))?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
            lines.rfind(|(name, _)| *name == key).map(|(_, value)| value.trim().trim_matches('"').trim())
        };
        let always = ALWAYS.into_iter().filter(|name| installed(name, "frr").is_ok());
        let asked = ASKED_FOR.into_iter().filter(|name| value(name).is_some_and(|value| value != "no"));
        let daemon = |name: &'static str| {
            let options = value(&format!("{name}_options")).filter(|options| !options.is_empty());
            let options = options.map_or_else(|| Ok(Vec::new()), split_words);
            let problem =
                |problem| LabError::State { path: path.clone(), problem: format!("{name}_options {problem}") };
            Ok(Daemon { name, options: options.map_err(problem)? })
        };
        always.chain(asked).map(daemon).collect()
    }
}
