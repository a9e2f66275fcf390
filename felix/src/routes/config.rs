//! The settings of the routes' owner.

use std::net::IpAddr;
use std::time::Duration;

use kernel::ours;

/// What the owner of the routes needs to know of the node.
#[derive(Debug, Clone)]
pub struct RoutesConfig {
    /// The kernel protocol number of routes to local pods and of own blocks.
    pub local_protocol: u8,
    /// The kernel protocol number of routes learned by BGP.
    pub bgp_protocol: u8,
    /// This node's addresses, at most one per family: the source of what the host sends to its own pods. May be changed
    /// later ([`super::Routes::node_addresses`]).
    pub node_addresses: Vec<IpAddr>,
    /// How often the kernel's tables are read although no event asks for it, since events can be lost.
    pub resync: Duration,
}

impl Default for RoutesConfig {
    fn default() -> Self {
        Self {
            local_protocol: ours::ROUTE_PROTOCOL_LOCAL,
            bgp_protocol: ours::ROUTE_PROTOCOL_BGP,
            node_addresses: Vec::new(),
            resync: Duration::from_secs(90),
        }
    }
}
