//! Images are imported once, not once per machine and cluster: what containerd made of them is kept beside the disks, and
//! every machine's containerd starts with hard links to it. Neither blobs nor layers are ever written to again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use super::assets::target_folder;
use super::machine::Machine;
use crate::LabError;

/// The folder where containerd keeps everything, below a machine's `/var/lib`.
const CONTAINERD: &str = "containerd";

/// The indexes of containerd, which it goes on writing to.
const INDEXES: [&str; 2] =
    ["io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"];

/// Gives machines whose containerd has not run yet the images of these archives, which are kept in the folder `kept`. `disk`
/// is where a machine's `/var/lib` is on the host.
pub(crate) fn plant(
    machines: &[Machine<'_>],
    archives: &[PathBuf],
    kept: &str,
    disk: impl Fn(&str) -> Option<PathBuf>,
) -> Result<(), LabError> {
    let folder = |machine: &Machine<'_>| {
        let name = machine.name();
        let disk = disk(&name).ok_or(LabError::NoSuchNode { what: "disk of", name })?;
        Ok::<_, LabError>(disk.join(CONTAINERD))
    };
    let seeds = target_folder()?.join(kept);
    let seed = seeds.join(key(archives)?);
    let mut rest = machines;
    if !seed.exists()
        && let Some((first, others)) = machines.split_first()
    {
        first.start_containerd()?;
        archives.iter().try_for_each(|archive| first.import(archive))?;
        first.stop_containerd(Signal::SIGTERM)?;
        keep(&folder(first)?, &seeds, &seed)?;
        rest = others;
    }
    rest.iter().try_for_each(|machine| copy(&seed, &folder(machine)?))
}

/// Identifies an archive of images without reading all of it.
fn key(archives: &[PathBuf]) -> Result<String, LabError> {
    let mut digest = Sha256::new();
    for archive in archives {
        let data = fs::metadata(archive).map_err(LabError::io(archive.display().to_string()))?;
        digest.update(format!("{} {} {} {}\n", archive.display(), data.len(), data.mtime(), data.mtime_nsec()));
    }
    Ok(format!("{:x}", digest.finalize()))
}

/// Keeps what a machine's containerd has, replacing what was kept before.
fn keep(containerd: &Path, seeds: &Path, seed: &Path) -> Result<(), LabError> {
    let failed = || LabError::io(format!("keeping images in {}", seeds.display()));
    fs::create_dir_all(seeds).map_err(failed())?;
    let former: Vec<PathBuf> =
        fs::read_dir(seeds).map_err(failed())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let draft = seeds.join(format!(".{}", std::process::id()));
    copy(containerd, &draft)?;
    match fs::rename(&draft, seed) {
        // Another process may have kept the same images meanwhile.
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
        renamed => return renamed.map_err(failed()).map(|()| forget(&former)),
    }
    fs::remove_dir_all(&draft).map_err(failed())
}

/// A folder that cannot be removed takes up room and does no other harm.
fn forget(former: &[PathBuf]) {
    for folder in former {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Copies the folder of a containerd with everything in it: files are linked, except the indexes.
fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    let failed = || LabError::io(format!("copying {} to {}", from.display(), to.display()));
    let output = Command::new("cp").args(["--archive", "--link", "--no-target-directory"]).arg(from).arg(to).output();
    let output = output.map_err(failed())?;
    if !output.status.success() {
        return Err(failed()(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())));
    }
    for index in INDEXES {
        let path = to.join(index);
        fs::remove_file(&path).and_then(|()| fs::copy(from.join(index), &path)).map_err(failed())?;
    }
    Ok(())
}
