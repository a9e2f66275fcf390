//! What protects the transport of a BGP session.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ResourceName;

/// The password of a session (RFC 2385): 1 to 80 octets. It does not show itself, and its memory is cleared when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionPassword(Zeroizing<Vec<u8>>);

/// Octets are no password. What they are is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionPasswordError {
    /// There are none, or nothing but a line's end.
    #[error("is empty")]
    Empty,
    /// The kernel takes no more.
    #[error("has {length} octets; TCP MD5 takes {longest} at most", longest = SessionPassword::LONGEST)]
    TooLong {
        /// Its length.
        length: usize,
    },
}

impl SessionPassword {
    /// Octets that Linux takes at most (TCP_MD5SIG_MAXKEYLEN).
    pub const LONGEST: usize = 80;

    /// The password that a Secret or a file holds: without the line's end that editors and `echo` leave behind it.
    pub fn new(octets: &[u8]) -> Result<Self, SessionPasswordError> {
        let octets = octets.strip_suffix(b"\n").unwrap_or(octets);
        let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
        match octets.len() {
            0 => Err(SessionPasswordError::Empty),
            1..=Self::LONGEST => Ok(Self(Zeroizing::new(octets.to_vec()))),
            length => Err(SessionPasswordError::TooLong { length }),
        }
    }

    /// The octets, for the kernel alone.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SessionPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionPassword(..)")
    }
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PasswordSource {
    /// A key of a Secret in the agent's own namespace.
    Secret {
        /// The Secret.
        name: ResourceName,
        /// The key in its data.
        key: String,
    },
    /// A file of the node.
    File(PathBuf),
}

/// `key rack1 of Secret bgp-secrets`, `file /etc/manx/rack1`.
impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { name, key } => write!(f, "key {key} of Secret {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// What is known of a password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownPassword {
    /// The last that was read, even if it is not there any more: a Secret that is deleted and made anew ends no session.
    pub password: Option<SessionPassword>,
    /// Why it cannot be read now, in words.
    pub problem: Option<String>,
}

/// What is known of the passwords that sessions need. Of one that is not among them, nothing has been heard yet.
pub type Passwords = BTreeMap<PasswordSource, KnownPassword>;

/// How many hops away a peer may be (RFC 5082): 1 for a neighbour, up to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct Hops(NonZeroU8);

/// The number is no number of hops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a number of hops, 1 (a neighbour) to 255")]
pub struct HopsError(i64);

impl Hops {
    /// A neighbour on the same subnet.
    pub const NEIGHBOUR: Self = Self(NonZeroU8::MIN);

    /// The lowest TTL, or hop limit, with which a packet that was sent with 255 arrives over so many hops.
    pub const fn least_ttl(self) -> u8 {
        u8::MAX - (self.0.get() - 1)
    }
}

impl TryFrom<i64> for Hops {
    type Error = HopsError;
    fn try_from(number: i64) -> Result<Self, HopsError> {
        u8::try_from(number).ok().and_then(NonZeroU8::new).map(Self).ok_or(HopsError(number))
    }
}

impl From<Hops> for u8 {
    fn from(hops: Hops) -> Self {
        hops.0.get()
    }
}

impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is asked of the transport of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionSecurity {
    /// Where its password is (RFC 2385). Without the password there is no session.
    pub password: Option<PasswordSource>,
    /// How far away the peer may be (RFC 5082); any distance where it is not said.
    pub ttl_security: Option<Hops>,
}

#[cfg(test)]
mod tests;
