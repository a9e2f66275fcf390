//! What a DEL leaves for an agent that is not there: one small file per attachment, named after the host's end of the
//! pair, its content the attachment's id. The agent, which reads them with this module too, releases the addresses when it
//! finds one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use types::{EndpointId, EndpointIdError, InterfaceName};

/// A file among the tombstones.
#[derive(Debug)]
pub struct Tombstone {
    /// The path of the tombstone.
    pub path: PathBuf,
    /// The attachment that was detached without an agent.
    pub id: Result<EndpointId, TombstoneError>,
}

/// Why a tombstone does not say whose it is.
#[derive(Debug, thiserror::Error)]
pub enum TombstoneError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file says nothing sensible.
    #[error(transparent)]
    Nonsense(#[from] EndpointIdError),
}

/// Writes the tombstone, in the place of an older one of the same attachment. It appears whole or not at all: it is
/// written under a name that is not an interface's of ours and then renamed.
pub fn write(folder: &Path, id: &EndpointId) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = id.host_interface();
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    let written =
        fs::write(&unfinished, id.to_string()).and_then(|()| fs::rename(&unfinished, folder.join(name.as_str())));
    if written.is_err() {
        // Best effort: on a full disk there may be an empty file.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// The tombstones in the folder; where there is no folder there are none.
pub fn list(folder: &Path) -> io::Result<Vec<Tombstone>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Another name is a tombstone that is being written.
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<InterfaceName>().ok());
        if name.is_some_and(|name| name.is_ours()) {
            found.push(Tombstone { id: read(&path), path });
        }
    }
    Ok(found)
}

/// Whose tombstone the file is.
pub fn read(path: &Path) -> Result<EndpointId, TombstoneError> {
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// Takes the tombstone away again. One that is not there is success.
pub fn remove(folder: &Path, id: &EndpointId) -> io::Result<()> {
    remove_file(&folder.join(id.host_interface().as_str()))
}

/// The same by its file.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
