//! Ranges of addresses as integers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses: those that share the first `length` bits of `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    six: bool,
    first: u128,
    length: u32,
}

impl Cidr {
    /// Reads `10.0.0.0/8`. Bits behind the length do not count (`net.ParseCIDR`, by which the API server checks). None
    /// if the text is no range, or is IPv4 written as IPv6, of which it is not clear which packets it means.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = address.parse().ok()?;
        let plain = length == "0" || (!length.starts_with('0') && length.bytes().all(|octet| octet.is_ascii_digit()));
        let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        if plain && !mapped { Self::of(address, length.parse().ok()?) } else { None }
    }

    /// The range of `length` bits around an address; none if the address has fewer bits.
    pub fn of(address: IpAddr, length: u32) -> Option<Self> {
        let (six, bits) = number(address);
        let free = if six { 128_u32 } else { 32 }.checked_sub(length)?;
        let kept = u128::MAX.checked_shl(free).unwrap_or(0);
        Some(Self { six, first: bits & kept, length })
    }

    /// Whether the address lies within the range; an address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (six, bits) = number(address);
        six == self.six && (self.first..=self.last()).contains(&bits)
    }

    /// Whether `inner` is a part of this range and smaller than it.
    pub fn strictly_contains(&self, inner: &Self) -> bool {
        self.six == inner.six && self.length < inner.length && (self.first..=self.last()).contains(&inner.first)
    }

    /// Whether the two ranges have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.six == other.six && self.first <= other.last() && other.first <= self.last()
    }

    /// Whether this is a range of IPv6 addresses.
    pub const fn is_six(&self) -> bool {
        self.six
    }

    /// The length in bits.
    pub const fn length(&self) -> u32 {
        self.length
    }

    fn last(&self) -> u128 {
        let free = if self.six { 128 } else { 32 } - self.length;
        self.first | u128::MAX.checked_shr(128 - free).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, u128::from(u32::from(address))),
        IpAddr::V6(address) => (true, u128::from(address)),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match u32::try_from(self.first) {
            Ok(bits) if !self.six => IpAddr::V4(Ipv4Addr::from(bits)),
            _ => IpAddr::V6(Ipv6Addr::from(self.first)),
        };
        write!(f, "{address}/{}", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(cidr: &str, address: &str) -> bool {
        Cidr::parse(cidr).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_its_first_and_last_address_and_nothing_beside_them() {
        for (cidr, inside, outside) in [
            ("10.0.0.4/31", ["10.0.0.4", "10.0.0.5"], ["10.0.0.3", "10.0.0.6"]),
            ("10.0.0.4/32", ["10.0.0.4", "10.0.0.4"], ["10.0.0.3", "10.0.0.5"]),
            ("128.0.0.0/1", ["128.0.0.0", "255.255.255.255"], ["127.255.255.255", "0.0.0.0"]),
            ("fd00::4/127", ["fd00::4", "fd00::5"], ["fd00::3", "fd00::6"]),
            ("fd00::4/128", ["fd00::4", "fd00::4"], ["fd00::3", "10.0.0.4"]),
        ] {
            assert!(inside.iter().all(|address| holds(cidr, address)), "{cidr}");
            assert!(!outside.iter().any(|address| holds(cidr, address)), "{cidr}");
        }
    }

    #[test]
    fn length_zero_is_all_of_one_family() {
        assert!(holds("0.0.0.0/0", "0.0.0.0") && holds("0.0.0.0/0", "255.255.255.255"));
        assert!(holds("::/0", "::") && holds("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert!(!holds("0.0.0.0/0", "::1") && !holds("::/0", "10.0.0.1"));
    }

    #[test]
    fn bits_behind_the_length_do_not_count() {
        assert_eq!(Cidr::parse("10.0.0.77/24"), Cidr::parse("10.0.0.0/24"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "::ffff:10.0.0.0/104",
            "x/8",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
