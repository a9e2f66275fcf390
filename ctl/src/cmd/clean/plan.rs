//! What Manx has left on a node: whose it is, and in which order it goes.

use std::fmt;
use std::path::PathBuf;

use kernel::acl::{Remains, SetName};
use kernel::{Link, Route};

/// All that was found of Manx on a node.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The files by which a runtime starts pods on our network.
    pub(crate) runtime: Vec<PathBuf>,
    pub(crate) links: Vec<Link>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Vec<Remains>,
    pub(crate) sets: Vec<SetName>,
    /// Other files, in the order in which they are to go.
    pub(crate) files: Vec<PathBuf>,
    /// Folders that are ours if nothing else is in them, inner ones first.
    pub(crate) folders: Vec<PathBuf>,
    /// Folders that are ours with all that is in them.
    pub(crate) trees: Vec<PathBuf>,
}

/// One object that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RemovalStep {
    Files(FileRemoval),
    Kernel(KernelRemoval),
}

/// An object in the host's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileRemoval {
    File(PathBuf),
    /// A folder, if nothing is left in it.
    Folder(PathBuf),
    /// A folder with all that is in it.
    Tree(PathBuf),
}

/// An object in the host's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KernelRemoval {
    Link { index: u32, name: String },
    Route(Route),
    Rules(Remains),
    Set(SetName),
}

impl fmt::Display for RemovalStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(FileRemoval::File(path) | FileRemoval::Folder(path) | FileRemoval::Tree(path)) => {
                write!(f, "{}", path.display())
            }
            Self::Kernel(KernelRemoval::Link { name, .. }) => write!(f, "interface {name}"),
            Self::Kernel(KernelRemoval::Route(route)) => write!(f, "route {route} (protocol {})", route.protocol),
            Self::Kernel(KernelRemoval::Rules(remains)) => write!(f, "{remains}"),
            Self::Kernel(KernelRemoval::Set(name)) => write!(f, "set {name}"),
        }
    }
}

/// In which order all of it is removed. First what a runtime starts pods by, so that no pod comes; then the pods' network,
/// and only after it the rules that hold it in check; sets after the rules that name them; last the lock in the state
/// folder, which keeps an agent from starting.
pub(crate) fn plan(found: Found) -> Vec<RemovalStep> {
    let links = found.links.into_iter().map(|link| KernelRemoval::Link { index: link.index, name: link.name });
    let routes = found.routes.into_iter().map(KernelRemoval::Route);
    let rules = found.rules.into_iter().map(KernelRemoval::Rules);
    let sets = found.sets.into_iter().map(KernelRemoval::Set);
    let kernel = links.chain(routes).chain(rules).chain(sets).map(RemovalStep::Kernel);

    let trees = found.trees.into_iter().map(FileRemoval::Tree);
    let files = found.files.into_iter().map(FileRemoval::File);
    let folders = found.folders.into_iter().map(FileRemoval::Folder);
    let after = trees.chain(files).chain(folders).map(RemovalStep::Files);

    let before = found.runtime.into_iter().map(FileRemoval::File).map(RemovalStep::Files);
    before.chain(kernel).chain(after).collect()
}

#[cfg(test)]
mod tests;
