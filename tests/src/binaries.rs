//! The paths of the programs under test.

use std::io::Write;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::LabError;

/// The programs of this workspace.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    /// The folder that they are all in.
    pub(crate) folder: PathBuf,
    /// The path of `manx-lab`: what nodes run as their process 1.
    pub(crate) lab: PathBuf,
}

impl Binaries {
    /// Those in `MANX_BIN_DIR`, else those beside the running program (for a test: one folder up, out of `deps`).
    pub(crate) fn find() -> Result<Self, LabError> {
        let folder = match std::env::var_os("MANX_BIN_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => {
                let own = std::env::current_exe().map_err(LabError::io("finding the running program"))?;
                let folder = own.parent().unwrap_or_else(|| Path::new("/"));
                let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
                folder.to_owned()
            }
        };
        let lab = folder.join("manx-lab");
        let binaries = Self { folder, lab };
        binaries.need("manx-lab")?;
        Ok(binaries)
    }

    /// The path of one of the programs; where it is missing, the error says how to make it.
    pub(crate) fn need(&self, program: &str) -> Result<PathBuf, LabError> {
        let path = self.folder.join(program);
        if path.is_file() {
            return Ok(path);
        }
        Err(LabError::Missing {
            program: path.display().to_string(),
            hint: "build it with cargo build --workspace, or set MANX_BIN_DIR".to_owned(),
        })
    }
}

/// The path of an installed program.
pub(crate) fn installed(program: &str, package: &str) -> Result<PathBuf, LabError> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/lib/frr"];
    let found = folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file());
    found.ok_or_else(|| LabError::Missing { program: program.to_owned(), hint: format!("install {package}") })
}

/// Whether labs are to be run, and this machine can. If not, says so on standard error: a test that returns then has been
/// SKIPPED, and a reader of the log sees it. `MANX_LABS=off` is for whoever wants the quick tests alone.
pub fn can_run_labs() -> bool {
    if std::env::var_os("MANX_LABS").is_some_and(|wanted| wanted == "off") {
        say_skipped(&"labs and API servers are switched off (MANX_LABS=off)");
        return false;
    }
    let missing = if geteuid().is_root() {
        let programs =
            [("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2"), ("etcd", "etcd-server")];
        let frr = [("zebra", "frr"), ("bgpd", "frr")];
        programs.into_iter().chain(frr).find_map(|(program, package)| installed(program, package).err())
    } else {
        Some(LabError::NotRoot)
    };
    missing.map(|reason| say_skipped(&reason)).is_none()
}

/// Whether programs are installed, each given with its package. If not, says so as [`say_skipped`] does.
pub fn has_programs(programs: &[(&str, &str)]) -> bool {
    let missing = programs.iter().find_map(|(program, package)| installed(program, package).err());
    missing.map(|reason| say_skipped(&reason)).is_none()
}

/// Says on standard error that the test of this thread is SKIPPED, and why.
pub fn say_skipped(reason: &dyn std::fmt::Display) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not eprintln: the test harness would keep the line of a test that passes to itself. In one piece: others write, too.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {test}: {reason}\n").as_bytes());
}

/// The environment variable that gives a program another wall clock (`FAKETIME`, libfaketime). None, said as
/// [`say_skipped`] does, where the library is not installed.
pub fn fake_clock() -> Option<String> {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    if std::fs::exists(library).unwrap_or_default() {
        return Some(format!("LD_PRELOAD={library}"));
    }
    say_skipped(&"libfaketime is not installed");
    None
}
