//! Address families and canonical prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

/// An address family. Everything in Manx that speaks of addresses does so once per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both, in the order in which they are printed.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The length of an address in bits: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// A prefix whose host bits are zero, so that equal prefixes are equal values.
///
/// Two ways in: [`Prefix::new`] clears host bits, parsing a text refuses them (a person who writes 10.0.0.5/24 meant
/// something else).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNetwork);

impl Prefix {
    /// The prefix of `len` bits that holds `addr`; host bits are cleared.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        if len > Family::of(addr).bits() {
            return Err(PrefixError::Length { addr, len });
        }
        Ok(Self::cleared(addr, len))
    }

    /// The /32 or /128 of an address.
    pub fn host(addr: IpAddr) -> Self {
        Self::cleared(addr, Family::of(addr).bits())
    }

    /// 0.0.0.0/0 or ::/0.
    pub fn default_route(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::cleared(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Family::Ipv6 => Self::cleared(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        }
    }

    /// Builds a prefix whose `len` is known to be within the family's bits.
    fn cleared(addr: IpAddr, len: u8) -> Self {
        Self(match addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                let addr = Ipv4Addr::from_bits(addr.to_bits() & mask);
                Ipv4Network::new_checked(addr, len).map_or_else(|| IpNetwork::from(IpAddr::V4(addr)), IpNetwork::V4)
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                let addr = Ipv6Addr::from_bits(addr.to_bits() & mask);
                Ipv6Network::new_checked(addr, len).map_or_else(|| IpNetwork::from(IpAddr::V6(addr)), IpNetwork::V6)
            }
        })
    }

    /// The first address of the prefix.
    pub fn addr(&self) -> IpAddr {
        self.0.ip()
    }

    /// The length of the prefix in bits.
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix is a count of bits, not of elements")]
    pub fn len(&self) -> u8 {
        self.0.prefix()
    }

    /// The family of the prefix.
    pub fn family(&self) -> Family {
        Family::of(self.addr())
    }

    /// Whether the prefix is a single address.
    pub fn is_host(&self) -> bool {
        self.len() == self.family().bits()
    }

    /// Whether the address lies within the prefix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(addr)
    }

    /// Whether every address of `other` lies within the prefix (a prefix covers itself).
    pub fn covers(&self, other: &Self) -> bool {
        self.len() <= other.len() && self.contains(other.addr())
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The prefix as the type that tries and sockets take.
    pub const fn network(&self) -> IpNetwork {
        self.0
    }
}

impl From<IpNetwork> for Prefix {
    /// Clears host bits.
    fn from(network: IpNetwork) -> Self {
        Self::cleared(network.ip(), network.prefix())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr(), self.len()))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let malformed = || PrefixError::Malformed(text.to_owned());
        let (addr, len) = text.split_once('/').ok_or_else(malformed)?;
        let addr: IpAddr = addr.parse().map_err(|_| malformed())?;
        let prefix = Self::new(addr, len.parse().map_err(|_| malformed())?)?;
        if prefix.addr() != addr {
            return Err(PrefixError::HostBits { text: text.to_owned(), meant: prefix.to_string() });
        }
        Ok(prefix)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// Why a value is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The length is more than the family's addresses have bits.
    #[error("prefix length {len} does not fit {addr}")]
    Length {
        /// The address.
        addr: IpAddr,
        /// The length that was asked for.
        len: u8,
    },
    /// The text has bits set behind the prefix length.
    #[error("{text} has host bits set (did you mean {meant}?)")]
    HostBits {
        /// The text as it was given.
        text: String,
        /// The prefix with the bits cleared.
        meant: String,
    },
    /// The text does not have the form ADDRESS/LENGTH.
    #[error("{0:?} is not a prefix such as 10.0.0.0/26")]
    Malformed(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_bits_do_not_survive_construction_and_are_refused_in_text() {
        let prefix = Prefix::new("10.0.0.5".parse().unwrap(), 24).unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.0/24");
        let error = "10.0.0.5/24".parse::<Prefix>().unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.5/24 has host bits set (did you mean 10.0.0.0/24?)");
    }

    #[test]
    fn text_that_is_no_prefix_is_an_error_that_shows_it() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "x/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_prefix_survives_its_text_and_holds_its_address(bits: u128, v6: bool, len in 0u8..=128) {
            let addr: IpAddr = if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits((bits >> 96) as u32).into() };
            let len = len.min(Family::of(addr).bits());
            let prefix = Prefix::new(addr, len).unwrap();
            prop_assert!(prefix.contains(addr));
            prop_assert!(prefix.covers(&Prefix::host(addr)));
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
        }
    }
}
