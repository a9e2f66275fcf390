//! Network namespaces: how they are named and entered.
//!
//! A thread that has entered a namespace is never let back into a pool: [`run_in`] uses a thread of its own. Sockets keep
//! the namespace in which they were made, so most code needs a thread in there only for a moment.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::fstatfs;

use crate::KernelError;

/// A network namespace, kept alive by this handle.
#[derive(Debug)]
pub struct Netns {
    /// The open namespace file.
    file: File,
    /// The identity of the namespace.
    id: NetnsId,
}

/// The identity of a namespace while it lives: its inode on nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// The inode number, as `ls -i` and `lsns` show it.
    pub const fn inode(self) -> u64 {
        self.inode
    }
}

/// The arguments of mount that a bind mount has no use for.
const NO_TEXT: Option<&str> = None;

/// `f_type` of nsfs (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

impl Netns {
    /// Opens the namespace that CNI_NETNS names. [`KernelError::Gone`] if the path does not exist or is no namespace
    /// any more (an empty file remains when a bind mount is gone).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KernelError> {
        let path = path.as_ref();
        let operation = || format!("cannot open network namespace {}", path.display());
        let file = File::open(path).map_err(|error| KernelError::io(operation(), &error))?;
        let magic = fstatfs(&file).map_err(|errno| KernelError::io(operation(), &errno.into()))?.filesystem_type();
        if magic.0 != NSFS_MAGIC {
            return Err(KernelError::refused(operation(), libc::ENOENT, Some("not a namespace".to_owned())));
        }
        let metadata = file.metadata().map_err(|error| KernelError::io(operation(), &error))?;
        Ok(Self { file, id: NetnsId { device: metadata.dev(), inode: metadata.ino() } })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, KernelError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace of a process.
    pub fn of_process(pid: u32) -> Result<Self, KernelError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Makes a namespace, which lives as long as the handle and what is made in it.
    pub fn create() -> Result<Self, KernelError> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| KernelError::io("cannot create a network namespace", &errno.into()))?;
            Self::current()
        })?
    }

    /// Makes a namespace with a name: it is bound to `path`, as `ip netns add` does below `/run/netns`. It lives until
    /// [`Netns::delete_named`]. [`KernelError::Exists`] if there is a file of that name.
    pub fn create_named(path: impl AsRef<Path>) -> Result<Self, KernelError> {
        let path = path.as_ref();
        let operation = || format!("cannot create network namespace {}", path.display());
        let create = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::create_new(path)
        };
        create().map_err(|error| KernelError::io(operation(), &error))?;
        let bound = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), path, NO_TEXT, MsFlags::MS_BIND, NO_TEXT)
        })?;
        match bound {
            Ok(()) => Self::open(path),
            Err(errno) => {
                // The empty file would be in the way of the next attempt; the error that counts is the one of the
                // mount.
                let _ = fs::remove_file(path);
                Err(KernelError::io(operation(), &errno.into()))
            }
        }
    }

    /// Takes the name away, and with it the namespace unless a process, a handle or another name holds it. A name that
    /// does not exist is no error.
    pub fn delete_named(path: impl AsRef<Path>) -> Result<(), KernelError> {
        let path = path.as_ref();
        let operation = || format!("cannot delete network namespace {}", path.display());
        match umount2(path, MntFlags::MNT_DETACH) {
            // EINVAL means a file without a namespace bound to it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(KernelError::io(operation(), &errno.into())),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KernelError::io(operation(), &error)),
            _ => Ok(()),
        }
    }

    /// The identity of the namespace: two handles with the same id are the same namespace.
    pub const fn id(&self) -> NetnsId {
        self.id
    }

    /// Moves the calling thread into the namespace, for good: only for a thread that does nothing else afterwards.
    pub fn enter(&self) -> Result<(), KernelError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| KernelError::io("cannot enter a network namespace", &errno.into()))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Netns {}

/// Runs `work` on a thread of its own inside the namespace and waits for it.
pub fn run_in<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
    on_own_thread(|| netns.enter().map(|()| work()))?
}

/// Waits for a thread's result; a panic in it goes on in the caller.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| KernelError::io("cannot start a thread", &error))?;
        worker.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}
