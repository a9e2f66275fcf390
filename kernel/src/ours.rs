//! The marks by which Manx knows its own things in the kernel: their defaults, all configurable (`kernel.*`).
//!
//! A route, a link or a rule that does not bear them is somebody else's and is never touched.

use types::InterfaceName;
use types::config::KernelMarks;

use crate::acl::SetName;
use crate::{Kernel, KernelError, Link, LinkChange, Route};

pub use types::cni::HOST_MAC;

/// The link group in which detached links wait for their deletion.
pub const LINK_GROUP: u32 = KernelMarks::DEFAULT.link_group;

/// The route protocol of routes to local pods and of the unreachable routes of own blocks.
pub const ROUTE_PROTOCOL_LOCAL: u8 = KernelMarks::DEFAULT.local_protocol;

/// The route protocol of routes learned by BGP.
pub const ROUTE_PROTOCOL_BGP: u8 = KernelMarks::DEFAULT.bgp_protocol;

/// How the names of our iptables chains and IP sets begin (a chain's name has at most 28 octets, a set's 31).
pub const ACL_PREFIX: &str = "manx-";

/// How the comments of our rules begin.
pub const ACL_COMMENT: &str = "manx:";

/// Whether a link is the host's end of a pair that Manx made: by kind and by the form of its name.
pub fn is_our_link(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth") && InterfaceName::new(link.name.as_str()).is_ok_and(|name| name.is_ours())
}

/// Whether a route bears one of the default protocols.
pub const fn is_our_route(route: &Route) -> bool {
    matches!(route.protocol, ROUTE_PROTOCOL_LOCAL | ROUTE_PROTOCOL_BGP)
}

/// Whether a chain of iptables is ours.
pub fn is_our_chain(name: &str) -> bool {
    name.starts_with(ACL_PREFIX)
}

/// Whether an IP set is ours.
pub fn is_our_set(name: &SetName) -> bool {
    name.as_str().starts_with(ACL_PREFIX)
}

/// Parks a link of ours: takes it down and puts it into the group of links that wait for their deletion. It is no error
/// if the link has gone meanwhile with its namespace.
pub fn park(kernel: &mut dyn Kernel, link: &Link, group: u32) -> Result<(), KernelError> {
    if !link.up && link.group == group {
        return Ok(());
    }
    change_if_there(kernel, link.index, &LinkChange { up: Some(false), group: Some(group), ..LinkChange::default() })
}

/// Changes a link; one that has gone meanwhile needs no change.
pub fn change_if_there(kernel: &mut dyn Kernel, index: u32, change: &LinkChange) -> Result<(), KernelError> {
    match kernel.change_link(index, change) {
        Err(KernelError::Gone(_)) => Ok(()),
        result => result,
    }
}
