//! Which instance of a node's agent this is (decision: journal, boot and network namespace together).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipam::Reading;

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What the clocks say; none where one of them cannot be read, or shows a time before 1970.
pub(crate) fn clocks() -> Option<Reading> {
    let boot = since_boot(&fs::read_to_string("/proc/uptime").ok()?)?;
    Some(Reading { boot, wall: SystemTime::now().duration_since(UNIX_EPOCH).ok()? })
}

/// The first figure of `/proc/uptime`: seconds since the machine started, sleep included.
fn since_boot(uptime: &str) -> Option<Duration> {
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
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
mod tests;
