//! Autonomous system numbers and the 32-bit identifiers of BGP.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A four-octet autonomous system number (RFC 6793). Zero is reserved (RFC 7607) and cannot be built.
///
/// Parsed from asplain (`4200000000`) and asdot (`64086.59904`, RFC 5396), printed as asplain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "AsnText", into = "u32")]
pub struct Asn(u32);

impl Asn {
    /// The default of the field: 64512, the first private two-octet AS number (RFC 6996).
    pub const DEFAULT: Self = Self(64_512);
    /// AS_TRANS, what a two-octet field says when the number needs four octets (RFC 6793 section 9).
    pub const TRANS: Self = Self(23_456);

    /// Wraps an AS number; zero is refused.
    pub fn new(number: u32) -> Result<Self, AsnError> {
        if number == 0 { Err(AsnError::Zero) } else { Ok(Self(number)) }
    }

    /// The number as it stands in four-octet fields.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number as it stands in the two-octet field of OPEN: itself where it fits, else AS_TRANS.
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23_456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Asn> for u32 {
    fn from(asn: Asn) -> Self {
        asn.0
    }
}

impl TryFrom<u32> for Asn {
    type Error = AsnError;
    fn try_from(number: u32) -> Result<Self, AsnError> {
        Self::new(number)
    }
}

impl FromStr for Asn {
    type Err = AsnError;
    fn from_str(text: &str) -> Result<Self, AsnError> {
        let malformed = || AsnError::Malformed(text.to_owned());
        let number = match text.split_once('.') {
            None => text.parse().map_err(|_| malformed())?,
            Some((high, low)) => {
                let high: u16 = high.parse().map_err(|_| malformed())?;
                let low: u16 = low.parse().map_err(|_| malformed())?;
                (u32::from(high) << 16) | u32::from(low)
            }
        };
        Self::new(number)
    }
}

/// Why a value is not an AS number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AsnError {
    /// AS 0 never appears in a configuration or an OPEN (RFC 7607).
    #[error("AS number 0 is reserved")]
    Zero,
    /// The text is neither asplain nor asdot.
    #[error("{0:?} is not an AS number (expected 1 to 4294967295, or asdot such as 64086.59904)")]
    Malformed(String),
}

/// How AS numbers stand in YAML and JSON: a number or a text, as in `projectcalico.org/v3`.
#[derive(Deserialize)]
#[serde(untagged)]
enum AsnText {
    Number(u32),
    Text(String),
}

impl TryFrom<AsnText> for Asn {
    type Error = AsnError;
    fn try_from(value: AsnText) -> Result<Self, AsnError> {
        match value {
            AsnText::Number(number) => Self::new(number),
            AsnText::Text(text) => text.parse(),
        }
    }
}

/// A BGP Identifier: four octets, not zero, written as an IPv4 address (RFC 6286 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ipv4Addr", into = "Ipv4Addr")]
pub struct RouterId(Ipv4Addr);

impl RouterId {
    /// Wraps a router id; 0.0.0.0 is refused.
    pub fn new(id: Ipv4Addr) -> Result<Self, RouterIdError> {
        if id.is_unspecified() { Err(RouterIdError) } else { Ok(Self(id)) }
    }

    /// The identifier written as an address.
    pub const fn addr(self) -> Ipv4Addr {
        self.0
    }

    /// The identifier as the unsigned integer that collision detection and best path compare.
    pub fn number(self) -> u32 {
        self.0.to_bits()
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<RouterId> for Ipv4Addr {
    fn from(id: RouterId) -> Self {
        id.0
    }
}

impl TryFrom<Ipv4Addr> for RouterId {
    type Error = RouterIdError;
    fn try_from(id: Ipv4Addr) -> Result<Self, RouterIdError> {
        Self::new(id)
    }
}

/// 0.0.0.0 is not a BGP Identifier (RFC 6286 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("router id 0.0.0.0 is not valid")]
pub struct RouterIdError;

/// A route reflector's CLUSTER_ID (RFC 4456 section 7): four octets, written as an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub Ipv4Addr);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5396_2_both_notations_parse_and_zero_is_refused() {
        assert_eq!("64512".parse(), Ok(Asn::DEFAULT));
        assert_eq!("64086.59904".parse(), Asn::new(4_200_000_000));
        assert_eq!("0".parse::<Asn>(), Err(AsnError::Zero));
        for bad in ["", "-1", "1.2.3", "65536.1", "4294967296"] {
            assert!(bad.parse::<Asn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn yaml_numbers_and_texts_are_the_same_as_number() {
        assert_eq!(serde_json::from_str::<Asn>("64512").unwrap(), Asn::DEFAULT);
        assert_eq!(serde_json::from_str::<Asn>("\"64512\"").unwrap(), Asn::DEFAULT);
        assert!(serde_json::from_str::<Asn>("0").is_err());
    }

    #[test]
    fn rfc6793_4_2_2_a_number_of_four_octets_is_as_trans_in_two() {
        assert_eq!(Asn::new(4_200_000_000).unwrap().two_octets(), 23_456);
        assert_eq!(Asn::DEFAULT.two_octets(), 64_512);
    }
}
