//! What can fail in a lab.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::runtime::CniError;
use crate::topology::TopologyError;

/// Why the lab could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The topology is refused.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Namespaces and links need root.
    #[error("a lab makes network namespaces and needs root (try sudo)")]
    NotRoot,
    /// A program is not installed.
    #[error("{program} is not there: {hint}")]
    Missing {
        /// The program's name.
        program: String,
        /// The package that the program comes from.
        hint: String,
    },
    /// Another lab has that name.
    #[error("a lab named {0:?} is up already (manx-lab down {0} ends it)")]
    NameTaken(String),
    /// No lab of this name is up.
    #[error("no lab named {0:?} is up")]
    NoSuchLab(String),
    /// The lab has no such node, or the node does not play that role.
    #[error("the topology has no {what} {name:?}")]
    NoSuchNode {
        /// `node`, `pod`, `agent`, ...
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A system call or file failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The underlying error.
        source: io::Error,
    },
    /// A file of the lab's own state cannot be understood.
    #[error("{}: {problem}", path.display())]
    State {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// A namespace could not be set up.
    #[error("namespaces of {node}: {problem}")]
    Namespace {
        /// The node's name.
        node: String,
        /// What went wrong while its namespaces were set up.
        problem: String,
    },
    /// A command ended with another status than 0.
    #[error("{command:?} on {place}: {status}: {output}")]
    Command {
        /// The node or pod that the command ran on.
        place: String,
        /// The command's words.
        command: String,
        /// The exit status of the command.
        status: String,
        /// The output of the command.
        output: String,
    },
    /// A service ended by itself.
    #[error("{name} ended ({status}); its last words:\n{log}")]
    Ended {
        /// The service's name.
        name: String,
        /// The exit status of the service.
        status: String,
        /// The last lines of the service's log.
        log: String,
    },
    /// Something did not come about in time.
    #[error("waited {within:?} for {what}: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long the wait was.
        within: Duration,
        /// What the last attempt complained of.
        last: String,
    },
    /// A CNI plugin refused a request, or its answer cannot be understood.
    #[error(transparent)]
    Cni(#[from] CniError),
}

impl LabError {
    /// Makes an I/O error say what was being done, for `map_err`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
