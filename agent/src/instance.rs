//! Which instance of a node's agent this is (decision: journal, boot and network namespace together).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A random id, for a new journal.
pub(crate) fn new_journal_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// The same for every start of one agent; another for whoever else takes the node's name.
pub(crate) fn id(journal_id: &str, boot_id: &str) -> io::Result<String> {
    let namespace = fs::metadata("/proc/self/ns/net")?.ino();
    Ok(format!("{journal_id}/{boot_id}/{namespace}"))
}

/// Whether both are of one journal: the same node at different times, or a copy of its disk.
pub(crate) fn is_of_journal(one: &str, other: &str) -> bool {
    let journal = |id: &str| id.split_once('/').map(|(journal, _)| journal.to_owned());
    journal(one).is_some() && journal(one) == journal(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_of_one_journal_are_told_from_those_of_another() {
        assert!(is_of_journal("j1/boot1/7", "j1/boot2/7"));
        assert!(!is_of_journal("j1/boot1/7", "j2/boot1/7") && !is_of_journal("nonsense", "nonsense"));
    }
}
