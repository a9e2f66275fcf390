//! Neighbour entries (ARP and neighbour discovery).

use std::fmt;
use std::net::IpAddr;

/// Says at which Ethernet address an on-link IP address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The index of the interface.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// The neighbour's Ethernet address.
    pub mac: [u8; 6],
    /// Whether the entry was set by hand and is never questioned (NUD_PERMANENT). Entries that this crate puts always
    /// are.
    pub permanent: bool,
}

impl Neighbour {
    /// A permanent entry.
    pub const fn permanent(index: u32, address: IpAddr, mac: [u8; 6]) -> Self {
        Self { index, address, mac, permanent: true }
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour {} of interface {}", self.address, self.index)
    }
}
