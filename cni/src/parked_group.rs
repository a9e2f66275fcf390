//! The group of parked links (`kernel.linkGroup`), for a DEL that no agent answers: the agent leaves the number in its run
//! folder when it starts. An agent that answers says it itself, in [`types::cni::Park`].

use std::fs;
use std::io;
use std::path::Path;

use kernel::ours;

/// Leaves the number in the run folder, whole or not at all.
pub fn write(run_dir: &Path, group: u32) -> io::Result<()> {
    let unfinished = run_dir.join(format!(".{}", types::cni::PARKED_GROUP));
    fs::write(&unfinished, group.to_string())?;
    fs::rename(&unfinished, run_dir.join(types::cni::PARKED_GROUP))
}

/// The number that an agent has left; the default where none has, or what is there is no group to park in: 0 is that of every
/// interface on the host.
pub fn read(run_dir: &Path) -> u32 {
    let left = fs::read_to_string(run_dir.join(types::cni::PARKED_GROUP)).ok();
    left.and_then(|text| text.trim().parse().ok()).filter(|group| *group != 0).unwrap_or(ours::LINK_GROUP)
}

#[cfg(test)]
mod tests;
