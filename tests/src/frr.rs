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
const ASKED_FOR: [&str; 17] = [
    "bgpd", "ripd", "ripngd", "ospfd", "ospf6d", "isisd", "babeld", "pimd", "pim6d", "ldpd", "nhrpd", "eigrpd",
    "sharpd", "pbrd", "bfdd", "fabricd", "vrrpd",
];

/// The options that put a daemon into the background: FRR's own script gives them anyway, and the lab keeps its services.
const IN_BACKGROUND: [&str; 2] = ["-d", "--daemon"];

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
        let mut daemons = daemons(&text).map_err(|problem| LabError::State { path, problem })?;
        daemons.retain(|daemon| daemon.name != "mgmtd" || installed(daemon.name, "frr").is_ok());
        Ok(daemons)
    }
}

/// Reads `/etc/frr/daemons`. Who is asked for and not known is named.
fn daemons(text: &str) -> Result<Vec<Daemon>, String> {
    let values = || text.lines().filter_map(|line| line.trim().split_once('='));
    let value = |key: &str| {
        let last = values().rfind(|(name, _)| *name == key);
        last.map(|(_, value)| value.trim().trim_matches('"').trim())
    };
    let is_known = |name: &str| ALWAYS.contains(&name) || ASKED_FOR.contains(&name);
    let is_daemon = |name: &str| name.ends_with('d') && !name.starts_with('#');
    if let Some((name, _)) = values().find(|(name, value)| is_daemon(name) && *value == "yes" && !is_known(name)) {
        return Err(format!(
            "{name} is no daemon that the lab starts: it has {} and {}",
            ALWAYS.join(", "),
            ASKED_FOR.join(", ")
        ));
    }
    let asked = ASKED_FOR.into_iter().filter(|name| value(name).is_some_and(|value| value != "no"));
    let daemon = |name: &'static str| {
        let options = value(&format!("{name}_options")).filter(|options| !options.is_empty());
        let options = options.map_or_else(|| Ok(Vec::new()), split_words);
        let mut options = options.map_err(|problem| format!("{name}_options {problem}"))?;
        options.retain(|option| !IN_BACKGROUND.contains(&option.as_str()));
        Ok(Daemon { name, options })
    };
    ALWAYS.into_iter().chain(asked).map(daemon).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_run_in_the_foreground_and_one_that_the_lab_lacks_is_named() {
        let text =
            "zebra=yes\nbgpd=no\nldpd=yes\n#pathd=yes\nvtysh_enable=yes\nldpd_options=\" --daemon -A 127.0.0.1\"\n";
        let read = daemons(text).unwrap();
        let names: Vec<_> = read.iter().map(|daemon| daemon.name).collect();
        assert_eq!(names, ["mgmtd", "zebra", "staticd", "ldpd"]);
        assert_eq!(read.last().unwrap().options, ["-A", "127.0.0.1"]);
        let refused = daemons(&text.replace("#pathd", "pathd")).err().unwrap();
        assert!(refused.contains("pathd"), "{refused}");
    }
}
