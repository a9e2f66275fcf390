//! Small files in the run folder, one per attachment, named after the host's end of its pair.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use types::{EndpointId, InterfaceName};

/// Where the attachment's record is.
pub(crate) fn path(folder: &Path, id: &EndpointId) -> PathBuf {
    folder.join(id.host_interface().as_str())
}

/// The records in the folder; where there is no folder there are none.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<(InterfaceName, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Another name is a record that is being written.
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<InterfaceName>().ok());
        found.extend(name.filter(InterfaceName::is_ours).map(|name| (name, path)));
    }
    Ok(found)
}

/// What the record says; nothing where there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a record, which appears whole or not at all.
pub(crate) fn write(folder: &Path, id: &EndpointId, content: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let unfinished = folder.join(format!(".{}.{}", id.host_interface(), std::process::id()));
    let written = fs::write(&unfinished, content).and_then(|()| fs::rename(&unfinished, path(folder, id)));
    if written.is_err() {
        // Best effort: on a full disk there may be an empty file.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Takes a record away. One that is not there is success.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
