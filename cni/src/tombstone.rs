//! What a DEL leaves for an agent that is not there: one small file per attachment, named after the host's end of the
//! pair, its content the attachment's id. The agent, which reads them with this module too, releases the addresses when it
//! finds one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use types::{EndpointId, EndpointIdError};

use crate::records;

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

/// Writes the tombstone, in the place of an older one of the same attachment. It appears whole or not at all.
pub fn write(folder: &Path, id: &EndpointId) -> io::Result<()> {
    records::write(folder, id, id.to_string().as_bytes())
}

/// The tombstones in the folder; where there is no folder there are none.
pub fn list(folder: &Path) -> io::Result<Vec<Tombstone>> {
    let files = records::list(folder)?;
    Ok(files.into_iter().map(|(_, path)| Tombstone { id: read(&path), path }).collect())
}

/// Whose tombstone the file is.
pub fn read(path: &Path) -> Result<EndpointId, TombstoneError> {
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// Takes the tombstone away again. One that is not there is success.
pub fn remove(folder: &Path, id: &EndpointId) -> io::Result<()> {
    remove_file(&records::path(folder, id))
}

/// The same by its file.
pub fn remove_file(path: &Path) -> io::Result<()> {
    records::remove(path)
}

#[cfg(test)]
mod tests;
