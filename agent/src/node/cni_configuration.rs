//! The files by which the runtime learns that this node's pods get their network from Manx: ours is kept right, others are looked at.

use std::fmt;
use std::io;
use std::path::Path;

use types::cni::{CONFLIST, DAMAGED_CONFLIST};

use super::conflist::{Leads, Verdict, fresh, judge, leads};

/// Something is wrong with what the runtime plugs pods in by. In words for an operator, with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is wrong.
    pub(crate) text: String,
    /// Whether pods suffer: new ones do not start, or get another network.
    pub(crate) hurts_pods: bool,
}

impl Fault {
    /// One that pods suffer from.
    pub(super) fn of_pods(text: String) -> Self {
        Self { text, hurts_pods: true }
    }

    /// One that an operator is to know of.
    pub(super) fn of_operators(text: String) -> Self {
        Self { text, hurts_pods: false }
    }
}

/// What a look at the folder has done and found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// What was changed in the folder.
    pub(super) changes: Vec<Change>,
    /// What is wrong now.
    pub(super) faults: Vec<Fault>,
}

/// Something was done to our file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// There was none, and now there is.
    Put,
    /// These things in it were put right.
    Corrected(Vec<String>),
    /// It made no sense, for this reason, and was replaced.
    Replaced(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => write!(f, "the CNI configuration is in place: the runtime may ask for networks"),
            Self::Corrected(corrections) => {
                write!(
                    f,
                    "the CNI configuration is put right; what others have in it stays: {}",
                    corrections.join("; ")
                )
            }
            Self::Replaced(why) => write!(
                f,
                "the CNI configuration made no sense and is replaced; what it was is kept as {DAMAGED_CONFLIST}: {why}"
            ),
        }
    }
}

/// Looks at the folder, and puts right what is ours in it if `may_write`: before the agent can serve ADD, our file is not put.
pub(super) fn look(folder: &Path, run_dir: &Path, may_write: bool) -> Looked {
    let mut looked = Looked::default();
    if may_write {
        match tend(folder, run_dir) {
            Ok(change) => looked.changes.extend(change),
            Err(error) => looked.faults.push(Fault::of_pods(format!(
                "{} cannot be kept right, so that the runtime may plug in no pod: {error}",
                folder.join(CONFLIST).display()
            ))),
        }
    }
    looked.faults.extend(first_of_others(folder));
    let damaged = folder.join(DAMAGED_CONFLIST);
    if damaged.exists() {
        looked.faults.push(Fault::of_operators(format!(
            "{} made no sense as a CNI configuration and was replaced: see whether somebody misses what it had, and delete it",
            damaged.display()
        )));
    }
    looked
}

fn tend(folder: &Path, run_dir: &Path) -> io::Result<Option<Change>> {
    let path = folder.join(CONFLIST);
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            write(folder, &fresh(run_dir))?;
            return Ok(Some(Change::Put));
        }
        Err(error) => return Err(error),
    };
    match judge(&text, run_dir) {
        Verdict::Stays => Ok(None),
        Verdict::Corrected(text, corrections) => {
            write(folder, &text)?;
            Ok(Some(Change::Corrected(corrections)))
        }
        Verdict::Damaged(why) => {
            std::fs::copy(&path, folder.join(DAMAGED_CONFLIST))?;
            write(folder, &fresh(run_dir))?;
            Ok(Some(Change::Replaced(why)))
        }
    }
}

/// The runtime sees the file whole or not at all. It stays when the agent ends: an upgrade looks like the end from inside.
fn write(folder: &Path, text: &str) -> io::Result<()> {
    // The runtime reads `.conflist`, `.conf` and `.json`.
    let aside = folder.join(format!(".{CONFLIST}.new"));
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, folder.join(CONFLIST))
}

/// What is wrong with the configurations that the runtime takes before ours: it takes the first by name.
fn first_of_others(folder: &Path) -> Option<Fault> {
    let read = |name: &String| [".conflist", ".conf", ".json"].iter().any(|end| name.ends_with(end));
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut before: Vec<_> = names.filter(|name| name.as_str() < CONFLIST && read(name)).collect();
    before.sort();
    for name in before {
        let path = folder.join(&name);
        // A folder is none, and what has gone meanwhile is not there.
        let Ok(text) = std::fs::read(&path) else { continue };
        let path = path.display();
        return match leads(&String::from_utf8_lossy(&text)) {
            Leads::ToUs => None,
            Leads::WithTheNext => continue,
            Leads::Elsewhere(network) => {
                let network = network.map_or_else(String::new, |network| format!(" (network {network})"));
                Some(Fault::of_pods(format!(
                    "the runtime takes {path}{network} before {CONFLIST}: new pods get another network; remove that file"
                )))
            }
            Leads::Nowhere(why) => Some(Fault::of_pods(format!(
                "{path}, which the runtime reads before {CONFLIST}, is no CNI configuration ({why}): new pods may not start; \
                 mend or remove that file"
            ))),
        };
    }
    None
}

#[cfg(test)]
mod tests;
