//! The resource IPPool.

use serde::{Deserialize, Serialize};

use crate::selector::Selector;
use crate::{Family, Prefix};

/// A range of addresses that nodes cut their blocks from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The range of addresses.
    pub cidr: Prefix,
    /// The prefix length of a block: 20 to 32 for IPv4 (default 26), 116 to 128 for IPv6 (default 122).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// Whether no new addresses are given out; addresses that were given out stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// The nodes that may claim blocks (default: all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Blocks of this pool are not announced by BGP.
    #[serde(default, rename = "disableBGPExport", skip_serializing_if = "std::ops::Not::not")]
    pub disable_bgp_export: bool,
    /// What pods of this pool send to addresses that are in no pool leaves under the node's address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nat_outgoing: bool,
    /// Always `Never`: Manx does not encapsulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipip_mode: Option<String>,
    /// Always `Never`: Manx does not encapsulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vxlan_mode: Option<String>,
    /// What its addresses are for (default: pods). See [`IpPoolSpec::is_for_pods`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_uses: Option<Vec<AllowedUse>>,
}

/// What the addresses of a pool are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowedUse {
    /// The addresses are for pods.
    Workload,
    /// The addresses are for tunnels. It is accepted beside `Workload`, and there are no tunnels to number.
    Tunnel,
    /// The addresses are for Services of type LoadBalancer and nothing else.
    LoadBalancer,
}

impl IpPoolSpec {
    /// A pool of this range with defaults for the rest.
    pub const fn new(cidr: Prefix, block_size: Option<u8>) -> Self {
        Self {
            cidr,
            block_size,
            disabled: false,
            node_selector: None,
            disable_bgp_export: false,
            nat_outgoing: false,
            ipip_mode: None,
            vxlan_mode: None,
            allowed_uses: None,
        }
    }

    /// The prefix length of a block of this pool.
    pub fn block_len(&self) -> Result<BlockSize, BlockSizeError> {
        BlockSize::new(self.cidr, self.block_size)
    }

    /// Whether pods may have addresses of this pool.
    pub fn is_for_pods(&self) -> bool {
        self.allowed_uses.as_ref().is_none_or(|uses| uses.contains(&AllowedUse::Workload))
    }

    /// Whether Services of type LoadBalancer may have addresses of this pool.
    pub fn is_for_load_balancers(&self) -> bool {
        self.allowed_uses.as_ref().is_some_and(|uses| uses.contains(&AllowedUse::LoadBalancer))
    }

    pub(super) fn problem(&self) -> Option<String> {
        if self.is_for_load_balancers() == self.is_for_pods() {
            return Some("allowedUses: has to have Workload or LoadBalancer, and not both".to_owned());
        }
        if self.is_for_load_balancers() && self.node_selector.is_some() {
            return Some("nodeSelector: addresses of Services belong to no node".to_owned());
        }
        self.block_len().err().map(|error| error.to_string())
    }
}

/// A block's prefix length, checked against its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize(u8);

impl BlockSize {
    /// The size for a pool of this range: the one asked for, or the family's default (or, in a range that is smaller than
    /// a default block, the whole range).
    pub fn new(cidr: Prefix, asked: Option<u8>) -> Result<Self, BlockSizeError> {
        let (range, default) = match cidr.family() {
            Family::Ipv4 => (20..=32, 26),
            Family::Ipv6 => (116..=128, 122),
        };
        let size = asked.unwrap_or_else(|| cidr.len().max(default));
        if !range.contains(&size) {
            return Err(BlockSizeError::Range { size, cidr, least: *range.start(), most: *range.end() });
        }
        if size < cidr.len() {
            return Err(BlockSizeError::Fit { size, cidr });
        }
        Ok(Self(size))
    }

    /// The prefix length.
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix is a count of bits, not of elements")]
    pub const fn len(self) -> u8 {
        self.0
    }
}

/// Why a block size is refused for a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockSizeError {
    /// The size is outside of what the family allows.
    #[error("blockSize {size} of pool {cidr} is not within {least} to {most}")]
    Range {
        /// The size that was asked for.
        size: u8,
        /// The pool's range.
        cidr: Prefix,
        /// The shortest prefix length that is allowed.
        least: u8,
        /// The longest prefix length that is allowed.
        most: u8,
    },
    /// A block of this size would be larger than its pool.
    #[error("blockSize {size} does not fit {cidr}")]
    Fit {
        /// The size that was asked for.
        size: u8,
        /// The pool's range.
        cidr: Prefix,
    },
}
