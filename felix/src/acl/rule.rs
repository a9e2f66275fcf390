//! One rule as iptables takes it, stamped with a hash by which it is known again.

use std::fmt;
use std::sync::Arc;

use kernel::ours::ACL_COMMENT as COMMENT;

use crate::policy::program::{ClassId, ClassKey};

/// A rule: matches and target, with the comment that holds its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// What it is.
    pub(crate) hash: u64,
    /// What stands behind `-A CHAIN`.
    pub(crate) spec: String,
}

/// Stands for the slot's number in a rule that leads to another chain of its slot.
pub(crate) const SLOT: &str = "@";

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

    /// The same rule with the slot's number where [`SLOT`] stands; the hash does not depend on it.
    pub(crate) fn in_slot(&self, slot: u16) -> Self {
        Self { hash: self.hash, spec: self.spec.replace(SLOT, &slot.to_string()) }
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

/// FNV-1a, 64 bits: the same in every life and version, which std's hashers do not promise.
fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        for octet in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_foreign_comments_are_not() {
        let class = (ClassId::new(12).unwrap(), ClassKey(0xabc));
        for class in [None, Some(class)] {
            let stamp = Stamp { hash: 0x1234, class };
            assert_eq!(Stamp::parse(&stamp.to_string()), Some(stamp));
        }
        for foreign in ["cali:abc", "manx", "manx:", "manx:zz", "manx:1:2", "manx:1:0:3", "manx:1:2:3:4"] {
            assert_eq!(Stamp::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn rules_that_differ_have_different_hashes() {
        let rules = [
            Rule::new("-p tcp", "-j DROP"),
            Rule::new("-p tcp", "-j RETURN"),
            Rule::new("", "-p tcp -j DROP"),
            Rule::of_class("-p tcp", "-j DROP", ClassId::OPEN, ClassKey(1)),
        ];
        let mut hashes: Vec<_> = rules.iter().map(|rule| rule.hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), rules.len());
    }
}
