//! A hash that is the same in every life and every version of the agent: names of sets and keys of classes in the kernel
//! come from it, and a new life knows them again by it.
//!
//! SipHash-2-4 (Aumasson and Bernstein, 2012): who writes a policy cannot aim at the set of another's.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// The key of all these hashes. It is no secret between agents: every node has to come to the same names.
const KEY: (u64, u64) = (0x6d61_6e78_2070_6f6c, 0x6963_7920_6e61_6d65);

/// Takes values with their lengths, so that different sequences of values differ as octets.
pub(crate) struct StableHasher(SipHasher24);

impl StableHasher {
    /// Begins a hash. Different kinds of things never share one, as the kind is hashed first.
    pub(crate) fn of(kind: &str) -> Self {
        let mut hasher = Self(SipHasher24::new_with_keys(KEY.0, KEY.1));
        hasher.text(kind);
        hasher
    }

    /// Adds a number, as eight octets.
    pub(crate) fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    /// Adds a text, behind its length.
    pub(crate) fn text(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    /// Adds octets, behind their count.
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.number(octets.len().try_into().unwrap_or(u64::MAX));
        self.0.write(octets);
    }

    /// The hash of everything that was added.
    pub(crate) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl fmt::Debug for StableHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StableHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
