//! Neighbour entries (ARP and neighbour discovery).

use std::net::IpAddr;

/// Where an on-link address is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Set by hand and never questioned (NUD_PERMANENT). Entries that are put are always permanent.
    pub permanent: bool,
}

impl Neighbour {
    /// A permanent entry.
    pub const fn permanent(index: u32, address: IpAddr, mac: [u8; 6]) -> Self {
        Self { index, address, mac, permanent: true }
    }
}
