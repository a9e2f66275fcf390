//! IP sets with their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::world::Protocol;

/// All sets of a host, by name.
pub type IpSets = BTreeMap<String, IpSet>;

/// A set of one of the types that Manx makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpSet {
    /// `hash:ip`: addresses.
    Addresses(BTreeSet<IpAddr>),
    /// `hash:net`: prefixes; an address is in the set if any of them holds it.
    Nets(BTreeSet<Cidr>),
    /// `hash:ip,port`: addresses with a protocol and a port.
    Ports(BTreeSet<(IpAddr, Protocol, u16)>),
    /// `hash:ip` with `skbinfo`: each address with the mark that it gives and the bits that are overwritten.
    Marks(BTreeMap<IpAddr, (u32, u32)>),
    /// `hash:net,iface` of single addresses, each with an interface.
    Homes(BTreeSet<(IpAddr, String)>),
}

impl IpSet {
    /// How many ends of a packet the set is asked about: `src` is one, `src,dst` are two.
    pub(super) const fn dimensions(&self) -> usize {
        match self {
            Self::Addresses(_) | Self::Nets(_) | Self::Marks(_) => 1,
            Self::Ports(_) | Self::Homes(_) => 2,
        }
    }

    /// Whether the set holds the address, or the address with the port or interface.
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
