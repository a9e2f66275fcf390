//! Another plugin, run as a runtime would run it (CNI spec section 4, Plugin Delegation).

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::spec::{CniError, Code};

/// A plugin that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The path of the program.
    path: PathBuf,
}

impl Plugin {
    /// The plugin of that name in the first of the folders that has one.
    pub fn find(name: &str, folders: &[PathBuf]) -> Result<Self, DelegateError> {
        let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.map(|path| Self { path }).ok_or_else(|| DelegateError::NotFound {
            name: name.to_owned(),
            folders: folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":"),
        })
    }

    /// Runs it to its end. It has this process's environment, but for what CNI says in it, which is `variables` alone; its
    /// stderr is this process's.
    pub fn run(&self, variables: &[(&str, &OsStr)], config: &Value) -> Result<(), DelegateError> {
        let failed = |error| DelegateError::NotRun { path: self.path.clone(), error };
        let mut command = Command::new(&self.path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        for inherited in ["CNI_ARGS", "CNI_NETNS", "CNI_NETNS_OVERRIDE"] {
            command.env_remove(inherited);
        }
        command.envs(variables.iter().copied());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says by its exit what is wrong.
            let _ = stdin.write_all(config.to_string().as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let text = |key: &str| said.as_ref().and_then(|said| said.get(key)?.as_str()).unwrap_or_default().to_owned();
        let code = said.as_ref().and_then(|said| said.get("code")?.as_u64()).and_then(|code| u32::try_from(code).ok());
        let msg = if said.is_some() { text("msg") } else { format!("it ended with {}", output.status) };
        Err(DelegateError::Refused { path: self.path.clone(), code, msg, details: text("details") })
    }
}

/// A plugin did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// It is not installed.
    #[error("the CNI plugin {name} is in no folder of CNI_PATH ({folders})")]
    NotFound {
        /// The name of the plugin.
        name: String,
        /// Where it was looked for.
        folders: String,
    },
    /// It could not be run.
    #[error("{}: {error}", path.display())]
    NotRun {
        /// The program.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// It was run and failed.
    #[error("{}: {msg}", path.display())]
    Refused {
        /// The program.
        path: PathBuf,
        /// The code of its error object, if it wrote one.
        code: Option<u32>,
        /// The message of its error object, or how it ended.
        msg: String,
        /// The details of its error object.
        details: String,
    },
}

impl DelegateError {
    /// In the terms of CNI: its own code where it said one (CNI spec section 4), 4 where it is not there, else 5.
    pub fn into_cni(self, doing: &str) -> CniError {
        let code = match &self {
            Self::NotFound { .. } => Code::InvalidEnvironment,
            Self::NotRun { .. } | Self::Refused { code: None, .. } => Code::Io,
            Self::Refused { code: Some(code), .. } => Code::Delegate(*code),
        };
        let error = CniError::new(code, format!("{doing}: {self}"));
        match self {
            Self::Refused { details, .. } if !details.is_empty() => error.with_details(details),
            _ => error,
        }
    }
}
