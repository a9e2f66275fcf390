//! What is remembered on disk of the labs that are up: enough to end each after any crash.
//!
//! One folder per lab, `/run/manx-lab/NAME` (`MANX_LAB_DIR` for another place of it): `state.json`, and the logs of
//! everything in the lab. Everything else of a lab lives in its nodes' namespaces and goes with their processes, each of
//! which is known by pid and start time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::groups::Groups;
use crate::namespace::NamespaceRecord;
use crate::process::ProcessId;

/// What `state.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// The path of the topology's file.
    pub(crate) topology: PathBuf,
    /// The process that brought the lab up; while it lives, the lab is in use.
    pub(crate) owner: Option<ProcessId>,
    /// Whether the lab is to outlive that process.
    pub(crate) detached: bool,
    /// The namespaces made so far: nodes by name, and the management network.
    pub(crate) namespaces: BTreeMap<String, NamespaceRecord>,
    /// How many of the topology's machines are brought up, where that is not all of them.
    #[serde(default)]
    pub(crate) machines: Option<usize>,
    /// The folder of its machines' disks, which go with the lab.
    #[serde(default)]
    pub(crate) disks: Option<PathBuf>,
}

impl State {
    /// Whether nobody will ever use this lab again.
    fn is_abandoned(&self) -> bool {
        if self.detached {
            return !self.namespaces.values().any(NamespaceRecord::is_alive);
        }
        !self.owner.is_some_and(ProcessId::is_alive)
    }
}

/// The folder of a lab. Its name is this lab's alone as long as the folder exists.
#[derive(Debug, Clone)]
pub(crate) struct StateFolder(PathBuf);

impl StateFolder {
    /// Takes a name and writes the first state. A folder with a state appears in one step or not at all.
    pub(crate) fn claim(name: &str, state: &State) -> Result<Self, LabError> {
        let base = base();
        let failed = || LabError::io(format!("making {}", base.display()));
        let draft = base.join(format!(".{name}-{}", Pid::this()));
        fs::create_dir_all(draft.join("logs")).map_err(failed())?;
        Self(draft.clone()).save(state)?;
        let folder = base.join(name);
        match fs::rename(&draft, &folder) {
            Ok(()) => Ok(Self(folder)),
            Err(error) => {
                let _ = fs::remove_dir_all(&draft);
                let taken = matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists);
                Err(if taken { LabError::NameTaken(name.to_owned()) } else { failed()(error) })
            }
        }
    }

    /// The folder of a lab that is up.
    pub(crate) fn find(name: &str) -> Result<Self, LabError> {
        let folder = base().join(name);
        let plain = Path::new(name).file_name().is_some_and(|file| file == name);
        if plain && folder.join("state.json").is_file() {
            Ok(Self(folder))
        } else {
            Err(LabError::NoSuchLab(name.to_owned()))
        }
    }

    /// The folders of all labs, up or abandoned, by name.
    pub(crate) fn all() -> BTreeMap<String, Self> {
        let entries = fs::read_dir(base()).into_iter().flatten().filter_map(Result::ok);
        let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, Self(entry.path()))));
        named.filter(|(name, folder)| !name.starts_with('.') && folder.0.join("state.json").is_file()).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn load(&self) -> Result<State, LabError> {
        let path = self.0.join("state.json");
        let text = fs::read(&path).map_err(LabError::io(path.display().to_string()))?;
        serde_json::from_slice(&text).map_err(|error| LabError::State { path, problem: error.to_string() })
    }

    /// Replaces the state on disk in one step.
    pub(crate) fn save(&self, state: &State) -> Result<(), LabError> {
        let path = self.0.join("state.json");
        let failed = || LabError::io(path.display().to_string());
        let text = serde_json::to_vec_pretty(state).map_err(|error| failed()(error.into()))?;
        let draft = self.0.join("state.new");
        fs::write(&draft, text).map_err(failed())?;
        fs::rename(&draft, &path).map_err(failed())
    }

    /// Kills whatever lives of the lab, then forgets it. Others may be doing the same.
    pub(crate) fn take_down(&self) -> Result<(), LabError> {
        let state = match self.load() {
            Err(LabError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            state => state?,
        };
        for (name, record) in &state.namespaces {
            record.kill(name)?;
        }
        // Machines have them, and containers of a runtime that a test runs in another node.
        Groups::remove(&self.name())?;
        if let Some(disks) = &state.disks {
            gone(fs::remove_dir_all(disks)).map_err(LabError::io(format!("removing {}", disks.display())))?;
        }
        self.forget()
    }

    /// Removes the folder.
    pub(crate) fn forget(&self) -> Result<(), LabError> {
        gone(fs::remove_dir_all(&self.0)).map_err(LabError::io(format!("removing {}", self.0.display())))
    }

    /// The lab's name.
    fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Removes a file or folder; it is no error if there is none.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Takes down what crashed labs left, and tells their names.
pub(crate) fn sweep() -> Result<Vec<String>, LabError> {
    let mut swept = Vec::new();
    for (name, folder) in StateFolder::all() {
        // A folder that its owner is removing at this moment needs nothing from us.
        if folder.load().is_ok_and(|state| state.is_abandoned()) {
            folder.take_down()?;
            swept.push(name);
        }
    }
    Ok(swept)
}

/// The folder in which labs are remembered.
fn base() -> PathBuf {
    std::env::var_os("MANX_LAB_DIR").map_or_else(|| PathBuf::from("/run/manx-lab"), PathBuf::from)
}
