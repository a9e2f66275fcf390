//! Network interfaces: what the kernel says of them, and what it is asked to change.

use std::fmt;

use types::InterfaceName;

use crate::Netns;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface index, unique in the namespace and not reused soon.
    pub index: u32,
    /// The name. It is a `String`, since names that others give need not follow our rules.
    pub name: String,
    /// The Ethernet address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether the link is administratively up (IFF_UP).
    pub up: bool,
    /// Whether the link is up and has a carrier; for a pair, whether both ends are up (IFF_RUNNING and IFF_LOWER_UP).
    pub running: bool,
    /// The link group.
    pub group: u32,
    /// The kind of the link, such as `veth` or `bridge`; none for physical interfaces and `lo`.
    pub kind: Option<String>,
    /// The index of the other end (IFLA_LINK), in the namespace of the other end.
    pub peer_index: Option<u32>,
    /// The id under which this namespace knows the namespace of the other end (IFLA_LINK_NETNSID); none if it is this one.
    pub peer_netns: Option<i32>,
}

/// Asks for a pair of virtual Ethernet links.
#[derive(Debug, Clone)]
pub struct VethSpec<'a> {
    /// The name of the host's end.
    pub host: InterfaceName,
    /// The Ethernet address of the host's end, from which the kernel also derives its link-local IPv6 address.
    pub host_mac: [u8; 6],
    /// Whether the host's end is brought up in the same request. It has a carrier as soon as the other end is up too.
    pub host_up: bool,
    /// The link group of the host's end; 0 is the default group.
    pub host_group: u32,
    /// The name of the pod's end.
    pub peer: InterfaceName,
    /// The namespace in which the pod's end is born.
    pub peer_netns: &'a Netns,
    /// The Ethernet address of the pod's end; none lets the kernel choose a random one.
    pub peer_mac: Option<[u8; 6]>,
    /// The MTU of both ends in bytes.
    pub mtu: u32,
}

impl fmt::Display for VethSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "veth {} (peer {})", self.host, self.peer)
    }
}

/// Asks for changes of a link; `None` leaves a property as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Whether the link is up. Taking it down silently removes its IPv4 routes.
    pub up: Option<bool>,
    /// The link group.
    pub group: Option<u32>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// The Ethernet address.
    pub mac: Option<[u8; 6]>,
}
