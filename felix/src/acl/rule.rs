//! One rule as iptables takes it, stamped with a hash by which it is known again.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use fnv::FnvHasher;
use kernel::ours::ACL_COMMENT as COMMENT;

use crate::policy::program::{ClassId, ClassKey};

/// A rule: matches and target, with the comment that holds its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// By which it is known again.
    pub(crate) hash: u64,
    /// What stands behind `-A CHAIN`.
    pub(crate) spec: String,
}

/// Stands for the mark number in a rule that leads to another chain of the same version.
pub(crate) const NUMBER: &str = "@";

/// Rules of a chain, in order.
pub(crate) type Rules = Arc<[Rule]>;

impl Rule {
    /// A rule of these matches (possibly none) and this target (empty: it only counts).
    pub(crate) fn new(matches: &str, target: &str) -> Self {
        Self::stamped(matches, target, None)
    }

    /// The first rule of a class's chain, which says whose it is.
    pub(crate) fn of_class(matches: &str, target: &str, class: ClassId, key: ClassKey) -> Self {
        Self::stamped(matches, target, Some((class, key)))
    }

    /// The same rule with the mark number where [`NUMBER`] stands; the hash does not depend on it.
    pub(crate) fn with_number(&self, number: u16) -> Self {
        Self { hash: self.hash, spec: self.spec.replace(NUMBER, &number.to_string()) }
    }

    fn stamped(matches: &str, target: &str, class: Option<(ClassId, ClassKey)>) -> Self {
        let gap = if matches.is_empty() { "" } else { " " };
        let owner = class.map(|(class, key)| format!("{}:{:x}", class.number(), key.0)).unwrap_or_default();
        let hash = hash([matches, target, &owner]);
        let stamp = Stamp { hash, class };
        let end = if target.is_empty() { "" } else { " " };
        Self { hash, spec: format!("{matches}{gap}-m comment --comment {stamp}{end}{target}") }
    }
}

/// What the comment of a rule says: `manx:HASH` or `manx:HASH:CLASS:KEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The hash of the rule.
    pub(crate) hash: u64,
    /// The class of the chain, on its first rule.
    pub(crate) class: Option<(ClassId, ClassKey)>,
}

impl Stamp {
    /// Reads a comment; none if it is not ours.
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let mut parts = comment.strip_prefix(COMMENT)?.split(':');
        let hash = u64::from_str_radix(parts.next()?, 16).ok()?;
        let class = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(class), Some(key), None) => {
                Some((ClassId::new(class.parse().ok()?)?, ClassKey(u64::from_str_radix(key, 16).ok()?)))
            }
            _ => return None,
        };
        Some(Self { hash, class })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{COMMENT}{:x}", self.hash)?;
        match self.class {
            Some((class, key)) => write!(f, ":{}:{:x}", class.number(), key.0),
            None => Ok(()),
        }
    }
}

/// FNV-1a, 64 bits: the same in every life and version, which std's hashers do not promise. The texts are apart by an octet
/// that no text has.
fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hasher = FnvHasher::default();
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write(&[0xff]);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
