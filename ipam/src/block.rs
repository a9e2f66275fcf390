//! One block: which of its addresses are free, and in which order they are given out.
//!
//! A block knows ordinals only. Why an address is taken (a pod has it, an ADD is in flight, it rests) is the
//! [allocator](crate::allocator)'s matter.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use types::Prefix;

/// The most host bits of a block: an IPv4 /20 or an IPv6 /116, 4,096 addresses.
pub(crate) const MAX_HOST_BITS: u8 = 12;

/// The place of the gateway in a block that is one subnet on a link.
const GATEWAY: u32 = 1;

/// A block that this node gives addresses out of. Every address of the prefix is usable: pods are reached by /32 and /128
/// routes, so there is neither a network nor a broadcast address.
///
/// First in, first out: addresses that were never given out come first, in their order, then those given back, the one
/// that has been back for longest first. What is held in memory grows with the addresses used, not with the block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The range.
    cidr: Prefix,
    /// One bit per ordinal, set while it is not free; ordinals beyond the end are free.
    taken: Vec<u64>,
    /// How many bits of `taken` are set.
    taken_count: u32,
    /// No ordinal from here on was ever given out by [`Block::take`]; some may be taken since [`Block::new`].
    untouched: u32,
    /// Given back, the oldest first, each with its turn.
    returned: VecDeque<(u64, u32)>,
}

/// How long a block's next address has been free. Of several blocks the one with the least value gives the next address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// An address that was never given out.
    Untouched,
    /// An address that was given back at this turn.
    Returned(u64),
}

/// A range has more addresses than a block may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is too large for a block: at most 4096 addresses")]
pub(crate) struct TooLarge(pub(crate) Prefix);

impl Block {
    /// A block in which `taken` are not free; addresses that lie elsewhere are ignored.
    pub(crate) fn new(cidr: Prefix, taken: impl IntoIterator<Item = IpAddr>) -> Result<Self, TooLarge> {
        if cidr.family().bits() - cidr.len() > MAX_HOST_BITS {
            return Err(TooLarge(cidr));
        }
        let mut block = Self { cidr, taken: Vec::new(), taken_count: 0, untouched: 0, returned: VecDeque::new() };
        for address in taken {
            if let Some(ordinal) = block.ordinal(address) {
                block.set(ordinal);
            }
        }
        block.skip_taken();
        Ok(block)
    }

    /// The number of its addresses.
    pub(crate) fn size(&self) -> u32 {
        1 << (self.cidr.family().bits() - self.cidr.len())
    }

    /// The number of free addresses.
    pub(crate) fn free(&self) -> u32 {
        self.size() - self.taken_count
    }

    /// When the address that [`Block::take`] would give was given back; none: no address is free.
    pub(crate) fn turn(&self) -> Option<Turn> {
        if self.untouched < self.size() {
            return Some(Turn::Untouched);
        }
        self.returned.front().map(|(turn, _)| Turn::Returned(*turn))
    }

    /// Takes the next free address.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let ordinal = if self.untouched < self.size() { self.untouched } else { self.returned.pop_front()?.1 };
        self.set(ordinal);
        self.skip_taken();
        Some(self.address(ordinal))
    }

    /// Whether two free addresses are a subnet of their own.
    pub(crate) fn has_pair(&self) -> bool {
        self.free_pair().is_some()
    }

    /// Takes two addresses that are a subnet of their own, in their order.
    pub(crate) fn take_pair(&mut self) -> Option<(IpAddr, IpAddr)> {
        let first = self.free_pair()?;
        for ordinal in [first, first + 1] {
            self.returned.retain(|(_, returned)| *returned != ordinal);
            self.set(ordinal);
        }
        self.skip_taken();
        Some((self.address(first), self.address(first + 1)))
    }

    fn free_pair(&self) -> Option<u32> {
        (0..self.size() / 2).map(|pair| pair * 2).find(|first| !self.is_taken(*first) && !self.is_taken(first + 1))
    }

    /// Whether no address of it is taken.
    pub(crate) const fn is_unused(&self) -> bool {
        self.taken_count == 0
    }

    /// From now on it is one subnet on a link: its first and last address are nobody's there (the network's or the routers' of
    /// IPv6, RFC 4291 section 2.6.1, and the broadcast), and the second is the gateway's.
    pub(crate) fn share(&mut self) {
        let last = self.size() - 1;
        for ordinal in [0, GATEWAY, last] {
            self.returned.retain(|(_, returned)| *returned != ordinal);
            self.set(ordinal);
        }
        self.skip_taken();
    }

    /// The gateway of a block that is one subnet on a link.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.address(GATEWAY)
    }

    /// Takes a certain address; false: it is not free, or lies elsewhere.
    pub(crate) fn withdraw(&mut self, address: IpAddr) -> bool {
        let Some(ordinal) = self.ordinal(address).filter(|ordinal| !self.is_taken(*ordinal)) else { return false };
        self.returned.retain(|(_, returned)| *returned != ordinal);
        self.set(ordinal);
        self.skip_taken();
        true
    }

    /// Takes an address back, behind all that were given back before. `turn` is greater than any used before. An address
    /// that is free already, or lies elsewhere, changes nothing.
    pub(crate) fn give_back(&mut self, address: IpAddr, turn: u64) {
        let Some(ordinal) = self.ordinal(address).filter(|ordinal| self.is_taken(*ordinal)) else { return };
        self.clear(ordinal);
        // An address in the untouched part is found there when its turn comes, without being in the list.
        if ordinal < self.untouched {
            self.returned.push_back((turn, ordinal));
        }
    }

    fn skip_taken(&mut self) {
        while self.untouched < self.size() && self.is_taken(self.untouched) {
            self.untouched += 1;
        }
    }

    fn ordinal(&self, address: IpAddr) -> Option<u32> {
        if !self.cidr.contains(address) {
            return None;
        }
        match (self.cidr.addr(), address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => Some(address.to_bits() - first.to_bits()),
            (IpAddr::V6(first), IpAddr::V6(address)) => u32::try_from(address.to_bits() - first.to_bits()).ok(),
            _ => None,
        }
    }

    fn address(&self, ordinal: u32) -> IpAddr {
        match self.cidr.addr() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() | ordinal).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | u128::from(ordinal)).into(),
        }
    }

    fn is_taken(&self, ordinal: u32) -> bool {
        let (word, bit) = place(ordinal);
        self.taken.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, ordinal: u32) {
        let (word, bit) = place(ordinal);
        if self.taken.len() <= word {
            self.taken.resize(word + 1, 0);
        }
        if let Some(word) = self.taken.get_mut(word)
            && *word & bit == 0
        {
            *word |= bit;
            self.taken_count += 1;
        }
    }

    fn clear(&mut self, ordinal: u32) {
        let (word, bit) = place(ordinal);
        if let Some(word) = self.taken.get_mut(word)
            && *word & bit != 0
        {
            *word &= !bit;
            self.taken_count -= 1;
        }
    }
}

/// The word and the bit of an ordinal.
const fn place(ordinal: u32) -> (usize, u64) {
    ((ordinal / u64::BITS) as usize, 1 << (ordinal % u64::BITS))
}

#[cfg(test)]
mod tests;
