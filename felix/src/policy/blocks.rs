//! Blocks of addresses, with their holes subtracted: `nomatch` in a set would speak for every block of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use types::Prefix;

use super::hash::StableHasher;
use super::slab::Slab;

/// The blocks of addresses that policies in use name, each kept once under a number.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    by_prefixes: HashMap<Arc<[Prefix]>, u32>,
    entries: Slab<Block>,
    /// The hashes that name the blocks' sets: no two blocks may have the same one.
    hashes: HashMap<u64, u32>,
}

#[derive(Debug)]
pub(crate) struct Block {
    /// The prefixes that the block consists of once its holes are taken out: ascending, without overlap, none of length
    /// zero.
    pub(crate) prefixes: Arc<[Prefix]>,
    pub(crate) hash: u64,
    holders: u32,
}

impl Blocks {
    /// Gives the number of a block and counts one more holder of it; `release` takes that holder off again.
    pub(crate) fn hold(&mut self, prefixes: Arc<[Prefix]>) -> u32 {
        if let Some(id) = self.by_prefixes.get(&prefixes) {
            if let Some(block) = self.entries.get_mut(*id) {
                block.holders += 1;
            }
            return *id;
        }
        let mut hasher = StableHasher::of("block");
        prefixes.iter().for_each(|prefix| hasher.text(&prefix.to_string()));
        while self.hashes.contains_key(&hasher.finish()) {
            hasher.text("again");
        }
        let hash = hasher.finish();
        let id = self.entries.insert(Block { prefixes: Arc::clone(&prefixes), hash, holders: 1 });
        self.hashes.insert(hash, id);
        self.by_prefixes.insert(prefixes, id);
        id
    }

    pub(crate) fn release(&mut self, id: u32) {
        let Some(block) = self.entries.get_mut(id) else { return };
        block.holders -= 1;
        if block.holders == 0
            && let Some(block) = self.entries.remove(id)
        {
            self.hashes.remove(&block.hash);
            self.by_prefixes.remove(&block.prefixes);
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Block> {
        self.entries.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The addresses of `block` that are in none of `holes`, in as few prefixes as there can be; the whole of a family as its
/// two halves, as sets take no prefix of length zero.
pub(crate) fn subtract(block: Prefix, holes: &[Prefix]) -> Vec<Prefix> {
    let mut left = Vec::new();
    let holes: Vec<_> = holes.iter().filter(|hole| hole.overlaps(&block)).collect();
    carve(block, &holes, &mut left);
    left
}

fn carve(block: Prefix, holes: &[&Prefix], left: &mut Vec<Prefix>) {
    if holes.iter().any(|hole| hole.covers(&block)) {
        return;
    }
    let inside: Vec<_> = holes.iter().copied().filter(|hole| block.covers(hole)).collect();
    match halves(block) {
        Some(halves) if !inside.is_empty() || block.len() == 0 => {
            halves.into_iter().for_each(|half| carve(half, &inside, left));
        }
        _ => left.push(block),
    }
}

/// Splits a block into its two halves; a single address has none.
fn halves(block: Prefix) -> Option<[Prefix; 2]> {
    let len = block.len() + 1;
    let upper = match block.addr() {
        IpAddr::V4(addr) => {
            IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() | 1_u32.checked_shl(32_u32.checked_sub(len.into())?)?))
        }
        IpAddr::V6(addr) => {
            IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() | 1_u128.checked_shl(128_u32.checked_sub(len.into())?)?))
        }
    };
    Some([Prefix::new(block.addr(), len).ok()?, Prefix::new(upper, len).ok()?])
}

#[cfg(test)]
mod tests;
