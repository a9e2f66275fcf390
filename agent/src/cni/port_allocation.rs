//! Which host ports of a range pods have (pure). The task around it is in `host_ports`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use types::host_ports::{HostPort, PortRange, Wanted};
use types::policy::Protocol;
use types::{EndpointId, PodRef};

/// The host ports of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Given {
    /// The pod, with the UID that the API server knows it by.
    pub(super) pod: PodRef,
    /// The pod's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Which host port leads to which container port.
    pub(super) ports: Vec<HostPort>,
    /// The later one of two attachments of a pod has the greater number.
    pub(super) order: u64,
}

/// All attachments with host ports.
pub(crate) type AllGiven = BTreeMap<EndpointId, Given>;

/// Gives ports out of a range, each protocol's by itself.
#[derive(Debug)]
pub(super) struct Allocation {
    range: PortRange,
    given: AllGiven,
    /// Where the next search begins: a port that was given back is not the next to be given out, as its clients may not know yet.
    next: u16,
}

/// The range has no port left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no host port of {range} is free for container port {container_port}/{protocols} (hostPorts.range)")]
pub(super) struct UsedUp {
    range: PortRange,
    container_port: u16,
    protocols: String,
}

impl Allocation {
    pub(super) fn new(range: PortRange, given: AllGiven) -> Self {
        let last = given.values().max_by_key(|given| given.order).and_then(|given| given.ports.last());
        let next = last.map_or_else(|| *range.ports().start(), |port| port.host_port.wrapping_add(1));
        Self { range, given, next }
    }

    pub(super) const fn given(&self) -> &AllGiven {
        &self.given
    }

    /// Gives an attachment a host port for each container port that is wanted, all or none. A container port that is wanted in
    /// several protocols has the same host port in all of them. `is_taken` says of a port whether somebody else has it.
    pub(super) fn give(
        &mut self,
        id: &EndpointId,
        (pod, addresses): (PodRef, Vec<IpAddr>),
        wanted: &Wanted,
        mut is_taken: impl FnMut(Protocol, u16) -> bool,
    ) -> Result<Given, UsedUp> {
        let others = self.given.iter().filter(|(other, _)| *other != id).flat_map(|(_, given)| &given.ports);
        let mut used: BTreeSet<_> = others.map(|port| (port.protocol, port.host_port)).collect();
        let mut next = self.next;
        let mut ports = Vec::new();
        for (container_port, protocols) in wanted {
            let mut is_free = |host_port: &u16| {
                let mut all = protocols.iter();
                all.all(|protocol| !used.contains(&(*protocol, *host_port)) && !is_taken(*protocol, *host_port))
            };
            let Some(host_port) = self.range.ports_from(next).find(&mut is_free) else {
                let protocols: Vec<_> = protocols.iter().map(ToString::to_string).collect();
                let (range, container_port) = (self.range, *container_port);
                return Err(UsedUp { range, container_port, protocols: protocols.join("+") });
            };
            used.extend(protocols.iter().map(|protocol| (*protocol, host_port)));
            let container_port = *container_port;
            ports.extend(protocols.iter().map(|protocol| HostPort { protocol: *protocol, container_port, host_port }));
            next = host_port.wrapping_add(1);
        }
        self.next = next;
        let order = self.given.values().map(|given| given.order).max().unwrap_or(0) + 1;
        let given = Given { pod, addresses, ports, order };
        self.given.insert(id.clone(), given.clone());
        Ok(given)
    }

    /// Takes the ports of an attachment back; whether it had any.
    pub(super) fn release(&mut self, id: &EndpointId) -> bool {
        self.given.remove(id).is_some()
    }
}

#[cfg(test)]
mod tests;
