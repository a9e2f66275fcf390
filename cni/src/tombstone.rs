//! What a DEL leaves for an agent that is not there: one small file per attachment, named after the host's end of the
//! pair, its content the attachment's id. The agent releases the addresses when it finds it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use types::EndpointId;

/// Writes the tombstone, in the place of an older one of the same attachment. It appears whole or not at all: it is
/// written under a name that is not an interface's of ours and then renamed.
pub fn write(folder: &Path, id: &EndpointId) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = id.host_interface();
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    let written =
        fs::write(&unfinished, id.to_string()).and_then(|()| fs::rename(&unfinished, folder.join(name.as_str())));
    if written.is_err() {
        // The empty file of a write that failed is removed where that is possible.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Takes the tombstone away again. One that is not there is success.
pub fn remove(folder: &Path, id: &EndpointId) -> io::Result<()> {
    match fs::remove_file(folder.join(id.host_interface().as_str())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
