//! A hash that says the same in every process, on every node and in every version.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// 64 bits of FNV-1a, finished with a multiply-xorshift, since the texts that are hashed often differ in their last character
/// only. Names of interfaces and the order of blocks follow from it: it may never change.
pub fn stable_hash(octets: impl IntoIterator<Item = u8>) -> u64 {
    let mut hasher = FnvHasher::default();
    octets.into_iter().for_each(|octet| hasher.write_u8(octet));
    let hash = hasher.finish();
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests;
