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
        // Best effort: on a full disk there may be an empty file.
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_tombstone_holds_the_id_under_the_interfaces_name_and_nothing_else_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("run/released");
        let id: EndpointId = "net/c1/eth0".parse().unwrap();
        write(&folder, &id).unwrap();
        write(&folder, &id).unwrap();
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [id.host_interface().as_str()]);
        let text = fs::read_to_string(folder.join(id.host_interface().as_str())).unwrap();
        assert_eq!(text.parse::<EndpointId>().unwrap(), id);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        remove(&folder, &id).unwrap();
        remove(&folder, &id).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_tombstone_that_cannot_be_put_leaves_no_unfinished_file() {
        let scratch = tempfile::tempdir().unwrap();
        let id: EndpointId = "net/c1/eth0".parse().unwrap();
        // A folder of that name cannot be renamed over.
        fs::create_dir_all(scratch.path().join(id.host_interface().as_str()).join("x")).unwrap();
        assert!(write(scratch.path(), &id).is_err());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
