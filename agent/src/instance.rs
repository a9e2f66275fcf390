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
