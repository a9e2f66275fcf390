//! What the filter needs to know of the node.

use std::collections::BTreeSet;
use std::time::Duration;

use types::config::{EndpointToHost, MarkMask, NatOutgoingExclusions, PolicySettings};
use types::{Family, Prefix};

/// What the filter needs to know of the node.
#[derive(Debug, Clone)]
pub struct AclConfig {
    /// The bits of the packet mark that are ours.
    pub mark_mask: MarkMask,
    /// How the names of pods' host interfaces begin.
    pub interface_prefix: String,
    /// The families that the node's pods use; chains of others are not made.
    pub families: BTreeSet<Family>,
    /// What becomes of connections from a pod to its own node.
    pub endpoint_to_host: EndpointToHost,
    /// Whether pods may send VXLAN.
    pub allow_vxlan: bool,
    /// Whether pods may send what else carries packets of its own: IPIP, SIT, GRE, IPsec.
    pub allow_tunnels: bool,
    /// Which destinations masquerade leaves out.
    pub nat_outgoing_exclusions: NatOutgoingExclusions,
    /// Whether a tightened policy also ends the connections that it forbids now.
    pub cut_connections: bool,
    /// Whether packets that a class drops are logged by NFLOG. May be changed later ([`crate::acl::Acl::log`]).
    pub log_denied: bool,
    /// The NFLOG group for them.
    pub log_group: u16,
    /// How often chains and sets are compared with what they should be in any case: events can be lost.
    pub resync: Duration,
    /// How often chains are looked at where the kernel tells nothing of changes (legacy iptables).
    pub legacy_poll: Duration,
    /// Members times ports above which the compiler encodes a rule broadly.
    pub narrow_limit: usize,
}

impl Default for AclConfig {
    fn default() -> Self {
        let policy = PolicySettings::default();
        Self {
            mark_mask: MarkMask::default(),
            interface_prefix: "mx".to_owned(),
            families: BTreeSet::from(Family::ALL),
            endpoint_to_host: policy.endpoint_to_host,
            allow_vxlan: policy.allow_vxlan,
            allow_tunnels: policy.allow_tunnels,
            nat_outgoing_exclusions: policy.nat_outgoing_exclusions,
            cut_connections: policy.cut_connections,
            log_denied: false,
            log_group: policy.log_group,
            resync: Duration::from_secs(90),
            legacy_poll: Duration::from_secs(5),
            narrow_limit: 1_024,
        }
    }
}

/// A pool of addresses, and whether its pods leave the network by masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatPool {
    /// The addresses.
    pub cidr: Prefix,
    /// Whether what goes from them to an address of no pool gets the node's address.
    pub outgoing: bool,
}

/// The bits of the mark that carry a version's number. With b bits there are 2^b - 2 versions of classes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkSpace {
    mask: u32,
    shift: u32,
    bits: u32,
}

impl MarkSpace {
    /// The space of a mask.
    pub(crate) const fn new(mask: MarkMask) -> Self {
        Self::of(mask.bits())
    }

    /// The space of a mask with fewer bits than the agent accepts: of as few contents as tests can use up.
    #[cfg(test)]
    pub(crate) const fn narrow(mask: u32) -> Self {
        Self::of(mask)
    }

    const fn of(mask: u32) -> Self {
        Self { mask, shift: mask.trailing_zeros(), bits: mask.count_ones() }
    }

    /// All bits.
    pub(crate) const fn mask(self) -> u32 {
        self.mask
    }

    /// The highest number that fits.
    pub(crate) const fn highest(self) -> u16 {
        // At most 14 bits.
        (1_u16 << self.bits) - 1
    }

    /// The mark that carries a number.
    pub(crate) const fn mark(self, number: u16) -> u32 {
        ((number as u32) << self.shift) & self.mask
    }

    /// The number that a mark carries.
    #[expect(clippy::cast_possible_truncation, reason = "the mask has at most 14 bits")]
    pub(crate) const fn number(self, mark: u32) -> u16 {
        ((mark & self.mask) >> self.shift) as u16
    }

    /// The branch of the dispatch tree that a number is on: the upper half of its bits.
    pub(crate) const fn branch(self, number: u16) -> u16 {
        number >> self.low_bits()
    }

    /// The mark of a branch, and the bits to compare.
    pub(crate) const fn branch_mark(self, branch: u16) -> (u32, u32) {
        let low = self.low_bits();
        let mask = self.mask & !(((1 << low) - 1) << self.shift);
        (((branch as u32) << low) << self.shift, mask)
    }

    const fn low_bits(self) -> u32 {
        self.bits / 2
    }
}

#[cfg(test)]
mod tests;
