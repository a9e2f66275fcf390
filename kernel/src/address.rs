//! Addresses that interfaces have, and their flags.

use std::fmt;
use std::net::IpAddr;
use std::ops::BitOr;

use crate::Scope;

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The index of the interface.
    pub index: u32,
    /// The interface's own address.
    pub address: IpAddr,
    /// The length of the on-link prefix (of `peer`, if there is one).
    pub prefix_len: u8,
    /// Where the address is valid. With [`Scope::Link`] it does not become a source towards other links.
    pub scope: Scope,
    /// The address of the other end, on a point-to-point interface.
    pub peer: Option<IpAddr>,
    /// The address's flags.
    pub flags: AddressFlags,
}

impl InterfaceAddress {
    /// An address of scope universe without flags.
    pub const fn new(index: u32, address: IpAddr, prefix_len: u8) -> Self {
        Self { index, address, prefix_len, scope: Scope::Universe, peer: None, flags: AddressFlags::NONE }
    }

    /// The same address with these flags.
    #[must_use]
    pub const fn with_flags(self, flags: AddressFlags) -> Self {
        Self { flags, ..self }
    }

    /// The same address with this scope.
    #[must_use]
    pub const fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The same address with this address at the other end.
    #[must_use]
    pub const fn with_peer(self, peer: IpAddr) -> Self {
        Self { peer: Some(peer), ..self }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {}", self.address)?;
        if let Some(peer) = self.peer {
            write!(f, " peer {peer}")?;
        }
        write!(f, "/{} of interface {}", self.prefix_len, self.index)
    }
}

/// A set of address flags (`IFA_F_*`). Those that only the kernel sets are ignored in requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AddressFlags(u32);

impl AddressFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// IPv4: a further address of the same prefix on the interface. IPv6: a temporary address (RFC 8981).
    pub const SECONDARY: Self = Self(libc::IFA_F_SECONDARY);
    /// IPv6: the address is usable at once, without duplicate address detection (RFC 4862 section 5.4).
    pub const NO_DAD: Self = Self(libc::IFA_F_NODAD);
    /// Duplicate address detection found another owner.
    pub const DAD_FAILED: Self = Self(libc::IFA_F_DADFAILED);
    /// The address is past its preferred lifetime.
    pub const DEPRECATED: Self = Self(libc::IFA_F_DEPRECATED);
    /// Duplicate address detection is under way, so that packets cannot have the address as their source yet.
    pub const TENTATIVE: Self = Self(libc::IFA_F_TENTATIVE);
    /// The address has no lifetime that ends.
    pub const PERMANENT: Self = Self(libc::IFA_F_PERMANENT);
    /// The kernel makes no on-link route for the prefix.
    pub const NO_PREFIX_ROUTE: Self = Self(libc::IFA_F_NOPREFIXROUTE);

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Reads the flags from the kernel's number.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The flags as the kernel's number.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for AddressFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
