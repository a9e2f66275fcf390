//! `kernel.*`: the numbers that mark what is ours.

use std::fmt;
use std::str::FromStr;

/// `kernel.*`: the numbers that mark what is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMarks {
    /// `kernel.linkGroup`: the link group that detached links wait in, not 0. By default 77.
    pub link_group: u32,
    /// `kernel.protocols`, first: the route protocol of routes to local pods and of unreachable routes of own blocks, 5 to 255. By
    /// default 77.
    pub local_protocol: u8,
    /// `kernel.protocols`, second: the route protocol of routes learned by BGP, 5 to 255 and not the first. By default 78.
    pub bgp_protocol: u8,
    /// `kernel.markMask`: the bits of the packet mark that policy uses. By default 0x00ff0000.
    pub mark_mask: MarkMask,
}

impl KernelMarks {
    /// The numbers that are used where nothing is set.
    pub const DEFAULT: Self =
        Self { link_group: 77, local_protocol: 77, bgp_protocol: 78, mark_mask: MarkMask(0x00ff_0000) };
}

impl Default for KernelMarks {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Bits of the packet mark: 8 to 14 of them, next to each other, and none of those that kube-proxy (0x4000, 0x8000) and the
/// portmap plugin (0x2000) use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MarkMask(u32);

impl MarkMask {
    /// The mask of these bits; `None` where there are too few or too many, or where they are not free to be used.
    pub const fn new(bits: u32) -> Option<Self> {
        let count = bits.count_ones();
        let adjacent = bits != 0 && (bits >> bits.trailing_zeros()).trailing_ones() == count;
        if count < 8 || count > 14 || !adjacent || bits & 0xe000 != 0 { None } else { Some(Self(bits)) }
    }

    /// The bits as a number.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for MarkMask {
    fn default() -> Self {
        KernelMarks::DEFAULT.mark_mask
    }
}

impl FromStr for MarkMask {
    type Err = &'static str;

    /// Reads a decimal number, or a hexadecimal one that begins with `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bits = text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
        bits.and_then(Self::new)
            .ok_or("not a mask of 8 to 14 bits next to each other that keep clear of 0x2000, 0x4000 and 0x8000")
    }
}

impl fmt::LowerHex for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MarkMask({:#010x})", self.0)
    }
}

#[cfg(test)]
mod tests;
