//! The node's state directory: one agent at a time, root's alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A state directory that this process holds. Dropping it, or dying, lets the next one in.
#[derive(Debug)]
pub struct StateDir {
    /// The directory.
    path: PathBuf,
    /// Keeps the flock(2) on `PATH/lock`.
    _lock: File,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process holds it.
    #[error("{} is in use by another agent (it holds a lock on {})", .path.display(), .path.join("lock").display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made, or not made private.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDir {
    /// Makes the directory where it is missing (0700), and takes it for this process. Blocks for file-system calls only:
    /// a directory in use is an error at once.
    pub fn lock(path: impl Into<PathBuf>) -> Result<Self, StateDirError> {
        let path = path.into();
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io(&path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(io(&path))?;
        let file = path.join("lock");
        let lock = private_file(&file).map_err(io(&file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(StateDirError::Io { path: file, source }),
        }
    }

    /// The same where there is such a directory; none where there is none, and none is made.
    pub fn lock_existing(path: impl Into<PathBuf>) -> Result<Option<Self>, StateDirError> {
        let path = path.into();
        if path.is_dir() { Self::lock(path).map(Some) } else { Ok(None) }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where [`Journal`](crate::Journal) belongs.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.db")
    }

    /// Where [`Cache`](crate::Cache) belongs.
    pub fn cache(&self) -> PathBuf {
        self.path.join("cache.db")
    }

    /// Where [`Local`](crate::Local) belongs.
    pub fn local(&self) -> PathBuf {
        self.path.join("local.db")
    }
}

/// Opens a file for writing, made with mode 0600 where it is missing, and not truncated.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
