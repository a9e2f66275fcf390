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
        /// The program.
        program: String,
        /// Where it comes from.
        hint: String,
    },
    /// Another lab has that name.
    #[error("a lab named {0:?} is up already (manx-lab down {0} ends it)")]
    NameTaken(String),
    /// No lab has that name.
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
        /// The error.
        source: io::Error,
    },
    /// A file of the lab's own state makes no sense.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A namespace could not be set up.
    #[error("namespaces of {node}: {problem}")]
    Namespace {
        /// The node.
        node: String,
        /// What went wrong in it.
        problem: String,
    },
    /// A command ended with another status than 0.
    #[error("{command:?} on {place}: {status}: {output}")]
    Command {
        /// The node or pod.
        place: String,
        /// The command's words.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A service ended by itself.
    #[error("{name} ended ({status}); its last words:\n{log}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// Something did not come about in time.
    #[error("waited {within:?} for {what}: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// The last complaint.
        last: String,
    },
    /// A CNI plugin refused or made no sense.
    #[error(transparent)]
    Cni(#[from] CniError),
}

impl LabError {
    /// For `map_err`: an I/O error with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
