//! Address families as the wire numbers them.

use std::fmt;

use types::Family;

/// An address family and a subsequent one (RFC 4760 section 3), known here or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The unicast routes of a family.
    pub const fn unicast(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self { afi: 1, safi: 1 },
            Family::Ipv6 => Self { afi: 2, safi: 1 },
        }
    }

    /// The family whose unicast routes these are; `None` for everything that is not implemented.
    pub const fn family(self) -> Option<Family> {
        match self {
            Self { afi: 1, safi: 1 } => Some(Family::Ipv4),
            Self { afi: 2, safi: 1 } => Some(Family::Ipv6),
            _ => None,
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => write!(f, "{family} unicast"),
            None => write!(f, "AFI {} SAFI {}", self.afi, self.safi),
        }
    }
}

/// A set of families, small enough to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// No family.
    pub const NONE: Self = Self { ipv4: false, ipv6: false };
    /// Both.
    pub const ALL: Self = Self { ipv4: true, ipv6: true };

    /// One family alone.
    pub const fn only(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self { ipv4: true, ipv6: false },
            Family::Ipv6 => Self { ipv4: false, ipv6: true },
        }
    }

    /// Whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// The set with the family in it.
    pub const fn with(mut self, family: Family) -> Self {
        match family {
            Family::Ipv4 => self.ipv4 = true,
            Family::Ipv6 => self.ipv6 = true,
        }
        self
    }

    /// The families that are in both sets.
    pub const fn common(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && other.ipv4, ipv6: self.ipv6 && other.ipv6 }
    }

    /// Whether there is no family.
    pub const fn is_empty(self) -> bool {
        !self.ipv4 && !self.ipv6
    }

    /// The families, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::NONE, Self::with)
    }
}
