//! Who owns an address: the one rule that policy, address management and BGP go by.
//!
//! A claim names a block and its owner. Two claims overlap only where pools were cut anew while nodes claimed; then the
//! older one counts, so that whatever order a reader hears claims in, it never believes two. An address that its block's
//! owner has lent is the borrower's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use crate::{Family, NodeName, Prefix};

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// It cannot be told: claims are not known yet, or the one that counts cannot be read here.
    Unknown,
    /// No range that blocks are cut from, and no block, has it.
    NotCovered,
    /// It is in such a range, and no block with it is claimed.
    Nobody,
    /// This node's.
    Node(&'a NodeName),
}

/// A claim of a block, as the store shows it. `V` is the store's count of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<V = u64> {
    /// The owner; none: written by a newer Manx, and unreadable here.
    pub owner: Option<NodeName>,
    /// When the block was claimed, as the store counts its changes: of two claims the lower is older.
    pub created: V,
}

/// All claims that are known, with what makes looking an address up cheap.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The claims by block.
    by_block: BTreeMap<Prefix, Claim>,
    /// How many there are of each size: one or two sizes are usual, and only those are looked up.
    sizes: BTreeMap<(Family, u8), usize>,
}

impl Claims {
    /// None are known.
    pub const fn new() -> Self {
        Self { by_block: BTreeMap::new(), sizes: BTreeMap::new() }
    }

    /// Takes a claim in; gives the one that was there before.
    pub fn set(&mut self, block: Prefix, claim: Claim) -> Option<Claim> {
        let before = self.by_block.insert(block, claim);
        if before.is_none() {
            *self.sizes.entry(size(&block)).or_default() += 1;
        }
        before
    }

    /// Takes a claim out, which is given back.
    pub fn remove(&mut self, block: &Prefix) -> Option<Claim> {
        let claim = self.by_block.remove(block)?;
        if let Some(count) = self.sizes.get_mut(&size(block)) {
            *count -= 1;
            if *count == 0 {
                self.sizes.remove(&size(block));
            }
        }
        Some(claim)
    }

    /// All of them, by block.
    pub const fn by_block(&self) -> &BTreeMap<Prefix, Claim> {
        &self.by_block
    }

    /// What the claim of a block is worth among all.
    pub fn standing(&self, block: &Prefix) -> Standing<'_> {
        let Some(claim) = self.by_block.get(block) else { return Standing::Absent };
        standing_of(claim, self.around(block).chain(self.by_block.range(within(block))))
    }

    /// The claimed blocks that cover `range`, itself among them, from the largest to the smallest.
    pub fn around(&self, range: &Prefix) -> impl Iterator<Item = (&Prefix, &Claim)> + use<'_> {
        let (family, first, len) = (range.family(), range.addr(), range.len());
        let sizes = self.sizes.range((family, 0)..=(family, len)).map(|((_, len), _)| *len);
        sizes.filter_map(move |len| self.by_block.get_key_value(&Prefix::new(first, len).ok()?))
    }
}

fn size(block: &Prefix) -> (Family, u8) {
    (block.family(), block.len())
}

/// What ownership follows from.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The ranges that blocks are cut from.
    pub ranges: &'a [Prefix],
    /// All claims; nothing before they are known.
    pub claims: Option<&'a Claims>,
    /// Addresses that are lent, with who has them.
    pub borrowed: &'a BTreeMap<IpAddr, NodeName>,
}

impl<'a> View<'a> {
    /// Whose the address is.
    pub fn owner(&self, address: IpAddr) -> Owner<'a> {
        let Some(claims) = self.claims else { return Owner::Unknown };
        if let Some(borrower) = self.borrowed.get(&address) {
            return Owner::Node(borrower);
        }
        let mut is_covered = self.ranges.iter().any(|range| range.contains(address));
        // Blocks around one address lie within each other, so one at most has none that is older.
        for (block, _) in claims.around(&Prefix::host(address)) {
            match claims.standing(block) {
                Standing::Owned(owner) => return Owner::Node(owner),
                Standing::Unreadable => return Owner::Unknown,
                // What claims cover that do not count is nobody's.
                Standing::Overlapped { .. } | Standing::Absent => is_covered = true,
            }
        }
        if is_covered { Owner::Nobody } else { Owner::NotCovered }
    }
}

/// What a claim is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// There is none.
    Absent,
    /// It counts, but it cannot be read here.
    Unreadable,
    /// An older claim overlaps it.
    Overlapped {
        /// Who made it, if that can be read.
        owner: Option<&'a NodeName>,
        /// The block of the older claim.
        by: &'a Prefix,
    },
    /// It makes the block this node's.
    Owned(&'a NodeName),
}

/// What the claim of a block is worth among all claims.
pub fn standing<'a, V: Ord>(claims: &'a BTreeMap<Prefix, Claim<V>>, block: &Prefix) -> Standing<'a> {
    claims.get(block).map_or(Standing::Absent, |claim| standing_of(claim, overlapping(claims, block)))
}

/// What a claim is worth beside those that overlap it (itself may be among them).
fn standing_of<'a, V: Ord + 'a>(
    claim: &'a Claim<V>,
    mut others: impl Iterator<Item = (&'a Prefix, &'a Claim<V>)>,
) -> Standing<'a> {
    match (others.find(|(_, other)| other.created < claim.created), &claim.owner) {
        (Some((by, _)), owner) => Standing::Overlapped { owner: owner.as_ref(), by },
        (None, Some(owner)) => Standing::Owned(owner),
        (None, None) => Standing::Unreadable,
    }
}

/// The ranges in `ranges` that have an address in common with `range`, itself included. Costs a look-up per bit of its
/// length, and one per range found.
pub fn overlapping<'a, V>(
    ranges: &'a BTreeMap<Prefix, V>,
    range: &Prefix,
) -> impl Iterator<Item = (&'a Prefix, &'a V)> + use<'a, V> {
    let (first, len) = (range.addr(), range.len());
    let around = (0..len).filter_map(move |len| ranges.get_key_value(&Prefix::new(first, len).ok()?));
    around.chain(ranges.range(within(range)))
}

/// Where a map has the ranges within `range`: they are ordered by address, then by length, so they follow the range itself, up
/// to its last address.
fn within(range: &Prefix) -> (Bound<Prefix>, Bound<Prefix>) {
    (Bound::Included(*range), Bound::Included(Prefix::host(last_address(range))))
}

/// The last address of a prefix.
pub fn last_address(prefix: &Prefix) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(first) => {
            let hosts = u32::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
            Ipv4Addr::from_bits(first.to_bits() | hosts).into()
        }
        IpAddr::V6(first) => {
            let hosts = u128::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
            Ipv6Addr::from_bits(first.to_bits() | hosts).into()
        }
    }
}

#[cfg(test)]
mod tests;
