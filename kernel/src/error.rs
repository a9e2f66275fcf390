//! Why the kernel did not do what it was asked.

use std::fmt;
use std::io;

/// A refused or failed operation, split by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The object (link, address, route, namespace, sysctl) is not there: ENODEV, ENOENT, ESRCH, ENXIO.
    #[error("{0}")]
    Gone(Failure),
    /// An object with this identity is there already: EEXIST.
    #[error("{0}")]
    Exists(Failure),
    /// The kernel cannot do it now: EBUSY, EAGAIN, ENOBUFS, or a table that changed each time it was read. Another attempt may
    /// succeed.
    #[error("{0}")]
    Busy(Failure),
    /// The process lacks the capability: EPERM; for files also EACCES and EROFS.
    #[error("{0} (CAP_NET_ADMIN is needed, and for namespaces CAP_SYS_ADMIN)")]
    Denied(Failure),
    /// The gateway of a route is not on a link that is up: ENETUNREACH, EHOSTUNREACH, ENETDOWN. May come right when
    /// links and addresses change.
    #[error("{0}")]
    Unreachable(Failure),
    /// The kernel finds the request wrong, or cannot do such a thing: EINVAL, EOPNOTSUPP, ERANGE and others. Asking again
    /// will not help.
    #[error("{0}")]
    Rejected(Failure),
    /// A set has all the members that it may have: IPSET_ERR_HASH_FULL.
    #[error("{0}")]
    Full(Failure),
    /// The socket or the file failed.
    #[error("{0}")]
    Io(Failure),
    /// The kernel's answer is not one that this program understands.
    #[error("{operation}: the kernel's answer is malformed: {why}")]
    Malformed {
        /// What was attempted.
        operation: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl KernelError {
    /// Sorts the errno of an answer of the kernel.
    pub(crate) fn refused(operation: impl Into<String>, errno: i32, message: Option<String>) -> Self {
        let failure = Failure { operation: operation.into(), errno, message };
        match errno {
            libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::ENXIO => Self::Gone(failure),
            libc::EEXIST => Self::Exists(failure),
            libc::EBUSY | libc::EAGAIN | libc::ENOBUFS => Self::Busy(failure),
            libc::EPERM => Self::Denied(failure),
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => Self::Unreachable(failure),
            _ => Self::Rejected(failure),
        }
    }

    /// Sorts the error of a system call: what is no answer of the kernel about an object is [`KernelError::Io`].
    pub(crate) fn io(operation: impl Into<String>, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match Self::refused(operation, errno, None) {
            Self::Rejected(failure) if matches!(failure.errno, libc::EACCES | libc::EROFS) => Self::Denied(failure),
            Self::Rejected(failure) => Self::Io(failure),
            other => other,
        }
    }

    /// The error for an answer that has the wrong form.
    pub(crate) fn malformed(operation: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Malformed { operation: operation.into(), why: why.to_string() }
    }

    /// The error number, where the kernel gave one.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Gone(failure)
            | Self::Exists(failure)
            | Self::Busy(failure)
            | Self::Denied(failure)
            | Self::Unreachable(failure)
            | Self::Rejected(failure)
            | Self::Full(failure)
            | Self::Io(failure) => Some(failure.errno),
            Self::Malformed { .. } => None,
        }
    }
}

/// What was attempted and what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation and its object: `cannot add route 10.0.0.0/26 via 192.0.2.1`.
    pub operation: String,
    /// The error number.
    pub errno: i32,
    /// The kernel's own words, where it gave some (netlink's extended acknowledgement).
    pub message: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = nix::errno::Errno::from_raw(self.errno).desc();
        write!(f, "{}: {}", self.operation, lower_first(text))?;
        match &self.message {
            Some(message) => write!(f, ": {}", lower_first(message.trim_end_matches('.'))),
            None => Ok(()),
        }
    }
}

/// Lets the kernel's text stand inside a sentence: "Network is unreachable" begins with a small letter then, "RTNETLINK
/// ..." stays as it is.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
