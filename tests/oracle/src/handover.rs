//! A world in the product's words. The judge never looks in here.

use types::EndpointPort;

use crate::world::{Pod, Protocol};

/// The protocol as policies name it; none for ICMP, which they cannot name.
pub const fn protocol(protocol: Protocol) -> Option<types::policy::Protocol> {
    match protocol {
        Protocol::Tcp => Some(types::policy::Protocol::Tcp),
        Protocol::Udp => Some(types::policy::Protocol::Udp),
        Protocol::Sctp => Some(types::policy::Protocol::Sctp),
        Protocol::Icmp => None,
    }
}

/// The named ports of a pod.
pub fn ports(pod: &Pod) -> Vec<EndpointPort> {
    let port = |port: &crate::NamedPort| {
        protocol(port.protocol).map(|protocol| EndpointPort { name: port.name.clone(), protocol, port: port.number })
    };
    pod.ports.iter().filter_map(port).collect()
}
