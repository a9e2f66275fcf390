//! IP sets by their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::world::Protocol;

/// All sets of a host, by name.
pub type IpSets = BTreeMap<String, IpSet>;

/// A set, of the types that Manx makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpSet {
    /// `hash:ip`.
    Addresses(BTreeSet<IpAddr>),
    /// `hash:net`: an address is in it where any of its ranges holds it.
    Nets(BTreeSet<Cidr>),
    /// `hash:ip,port`.
    Ports(BTreeSet<(IpAddr, Protocol, u16)>),
    /// `hash:ip` with `skbinfo`: each address with the mark that it gives and the bits that are overwritten.
    Marks(BTreeMap<IpAddr, (u32, u32)>),
    /// `hash:net,iface` of single addresses, each with an interface.
    Homes(BTreeSet<(IpAddr, String)>),
}

impl IpSet {
    /// How many ends of a packet it is asked about: `src` is one, `src,dst` two.
    pub(super) const fn dimensions(&self) -> usize {
        match self {
            Self::Addresses(_) | Self::Nets(_) | Self::Marks(_) => 1,
            Self::Ports(_) | Self::Homes(_) => 2,
        }
    }

    /// Whether the address, or the address with the port or the interface, is in it.
    pub(super) fn holds(&self, address: IpAddr, port: Option<(Protocol, u16)>, interface: &str) -> bool {
        match self {
            Self::Addresses(addresses) => addresses.contains(&address),
            Self::Nets(nets) => nets.iter().any(|net| net.contains(address)),
            Self::Ports(ports) => port.is_some_and(|(protocol, port)| ports.contains(&(address, protocol, port))),
            Self::Marks(marks) => marks.contains_key(&address),
            Self::Homes(homes) => homes.contains(&(address, interface.to_owned())),
        }
    }
}
