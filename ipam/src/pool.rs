//! Pools: the ranges that blocks are cut from, and which block of a pool a node would claim next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{Family, NodeName, Prefix, ResourceName};

use types::ownership::overlapping;

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
    /// The size is outside of what the family allows.
    #[error("pool {pool}: blockSize {block_size} of {cidr} is not within {least} to {most}")]
    BlockSize {
        /// The pool.
        pool: ResourceName,
        /// The pool's range.
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
        /// The pool's range.
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

/// A number that differs from node to node and never for one node.
pub(crate) fn seed(node: &NodeName) -> u64 {
    types::stable_hash(node.as_str().bytes())
}

#[cfg(test)]
mod tests;
