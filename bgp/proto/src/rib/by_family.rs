//! One value per address family.

use types::Family;

/// A value for IPv4 and one for IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByFamily<T> {
    /// For IPv4.
    pub ipv4: T,
    /// For IPv6.
    pub ipv6: T,
}

impl<T> ByFamily<T> {
    /// The family's value.
    pub const fn of(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// The family's value, to be changed.
    pub const fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}
