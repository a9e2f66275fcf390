//! Pools: the ranges that blocks are cut from, and which block of a pool a node would claim next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{Family, NodeName, Prefix, ResourceName};

use crate::block::overlapping;

/// A range of addresses, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The IPPool's name.
    pub name: ResourceName,
    /// The range.
    pub cidr: Prefix,
    /// The prefix length of its blocks: 20 to 32 for IPv4, 116 to 128 for IPv6, and no shorter than the range's.
    pub block_size: u8,
    /// No new addresses are given out; those given stay.
    pub disabled: bool,
    /// Whether the pool's node selector selects this node. Where it does not, the pool is as if disabled.
    pub selects_this_node: bool,
}

/// Why a pool cannot be used (the configuration).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Outside of what the family allows.
    #[error("pool {pool}: blockSize {block_size} of {cidr} is not within {least} to {most}")]
    BlockSize {
        /// The pool.
        pool: ResourceName,
        /// Its range.
        cidr: Prefix,
        /// The size asked for.
        block_size: u8,
        /// The shortest prefix length allowed.
        least: u8,
        /// The longest.
        most: u8,
    },
    /// A block would be larger than its pool.
    #[error("pool {pool}: blockSize {block_size} does not fit {cidr}")]
    Fit {
        /// The pool.
        pool: ResourceName,
        /// Its range.
        cidr: Prefix,
        /// The size asked for.
        block_size: u8,
    },
}

impl Pool {
    /// Whether blocks can be cut from this pool.
    pub fn check(&self) -> Result<(), PoolError> {
        let Self { name, cidr, block_size, .. } = self;
        let (least, most) = match cidr.family() {
            Family::Ipv4 => (20, 32),
            Family::Ipv6 => (116, 128),
        };
        let (pool, cidr, block_size) = (name.clone(), *cidr, *block_size);
        if !(least..=most).contains(&block_size) {
            return Err(PoolError::BlockSize { pool, cidr, block_size, least, most });
        }
        if block_size < cidr.len() {
            return Err(PoolError::Fit { pool, cidr, block_size });
        }
        Ok(())
    }

    /// Whether this node may give out new addresses of the pool.
    pub const fn is_open(&self) -> bool {
        !self.disabled && self.selects_this_node
    }

    /// The addresses of a block. The pool has been checked.
    pub(crate) fn block_addresses(&self) -> u32 {
        1_u32.checked_shl(u32::from(self.cidr.family().bits().saturating_sub(self.block_size))).unwrap_or(u32::MAX)
    }

    /// The addresses of the range; 2^128 does not fit and is given as one less.
    pub(crate) fn addresses(&self) -> u128 {
        1_u128.checked_shl(u32::from(self.cidr.family().bits() - self.cidr.len())).unwrap_or(u128::MAX)
    }

    /// The blocks that `node` would claim, the best first: from a place that its name decides, so that nodes that start
    /// together seldom want the same, once around the pool. Blocks that overlap one in `known` are left out.
    ///
    /// Lazy: nothing is computed beyond what is taken. A block known under its own key costs one look-up.
    pub(crate) fn candidates<'a, V>(
        &self,
        node: &NodeName,
        known: &'a BTreeMap<Prefix, V>,
    ) -> impl Iterator<Item = Prefix> + use<'a, V> {
        let cuts = self.block_size.saturating_sub(self.cidr.len());
        let count = 1_u128.checked_shl(u32::from(cuts)).unwrap_or(u128::MAX);
        let start = u128::from(seed(node)) % count;
        let (pool, block_size) = (self.cidr, self.block_size);
        let block = move |index: u128| nth_block(pool, block_size, index);
        (start..count)
            .chain(0..start)
            .filter_map(block)
            .filter(|block| !known.contains_key(block) && overlapping(known, block).next().is_none())
    }
}

/// The block of an index; none: the pool has not been checked.
fn nth_block(pool: Prefix, block_size: u8, index: u128) -> Option<Prefix> {
    let host_bits = u32::from(pool.family().bits().checked_sub(block_size)?);
    let offset = index.checked_shl(host_bits)?;
    let addr = match pool.addr() {
        std::net::IpAddr::V4(first) => {
            std::net::Ipv4Addr::from_bits(first.to_bits() | u32::try_from(offset).ok()?).into()
        }
        std::net::IpAddr::V6(first) => std::net::Ipv6Addr::from_bits(first.to_bits() | offset).into(),
    };
    Prefix::new(addr, block_size).ok()
}

/// A number that differs from node to node and never for one node: FNV-1a, finished with a multiply-xorshift, since names
/// of nodes often differ in their last character only.
pub(crate) fn seed(node: &NodeName) -> u64 {
    let fnv1a = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = node.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, fnv1a);
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn pool(cidr: &str, block_size: u8) -> Pool {
        let name = ResourceName::new("default").unwrap();
        Pool { name, cidr: cidr.parse().unwrap(), block_size, disabled: false, selects_this_node: true }
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn known(blocks: &[&str]) -> BTreeMap<Prefix, ()> {
        blocks.iter().map(|block| (block.parse().unwrap(), ())).collect()
    }

    #[test]
    fn a_block_size_that_does_not_fit_names_pool_range_and_size() {
        let error = |cidr, block_size| pool(cidr, block_size).check().unwrap_err().to_string();
        assert_eq!(error("10.0.0.0/27", 26), "pool default: blockSize 26 does not fit 10.0.0.0/27");
        assert_eq!(error("10.0.0.0/8", 19), "pool default: blockSize 19 of 10.0.0.0/8 is not within 20 to 32");
        assert_eq!(error("fd00::/64", 26), "pool default: blockSize 26 of fd00::/64 is not within 116 to 128");
        assert_eq!(error("fd00::/124", 122), "pool default: blockSize 122 does not fit fd00::/124");
        for (cidr, block_size) in [("10.0.0.0/26", 26), ("10.0.0.0/8", 20), ("10.0.0.0/8", 32), ("::/0", 128)] {
            assert_eq!(pool(cidr, block_size).check(), Ok(()));
        }
    }

    #[test]
    fn every_block_of_a_pool_is_a_candidate_once_from_a_place_that_the_name_decides() {
        let pool = pool("10.0.0.0/20", 26);
        let blocks: Vec<Prefix> = pool.candidates(&node("node-1"), &known(&[])).collect();
        assert_eq!(blocks.len(), 64);
        assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), 64);
        assert!(blocks.iter().all(|block| pool.cidr.covers(block) && block.len() == 26));
        assert_eq!(blocks, pool.candidates(&node("node-1"), &known(&[])).collect::<Vec<_>>());

        let names = (0..64).map(|number| node(&format!("node-{number}")));
        let firsts: BTreeSet<Prefix> = names.filter_map(|node| pool.candidates(&node, &known(&[])).next()).collect();
        assert!(firsts.len() > 32, "{} of 64 nodes begin apart", firsts.len());
    }

    #[test]
    fn what_overlaps_a_known_block_of_any_size_is_no_candidate() {
        let known = known(&["10.0.0.0/26", "10.0.0.200/32", "10.0.0.64/27", "10.0.1.0/25", "10.9.0.0/26"]);
        let mut left: Vec<String> =
            pool("10.0.0.0/23", 26).candidates(&node("a"), &known).map(|block| block.to_string()).collect();
        left.sort();
        assert_eq!(left, ["10.0.0.128/26", "10.0.1.128/26", "10.0.1.192/26"]);
        assert_eq!(pool("10.9.0.0/26", 26).candidates(&node("a"), &known).next(), None);
    }

    #[test]
    fn the_largest_pools_have_candidates_at_once() {
        for (cidr, block_size) in [("::/0", 128), ("fd00::/8", 122), ("0.0.0.0/0", 32), ("10.0.0.0/8", 26)] {
            let pool = pool(cidr, block_size);
            let block = pool.candidates(&node("a"), &known(&[])).next().unwrap();
            assert!(pool.cidr.covers(&block) && block.len() == block_size, "{block}");
        }
    }
}
