//! This node's own addresses: found at the start, and found again when interfaces or the Node object change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bgp::{ByFamily, Identity};
use kernel::events::{Event, EventSource, Events, Group, Wait};
use kernel::{InterfaceAddress, Kernel, KernelError, Linux, Scope, ours};
use tokio::sync::mpsc;
use tracing::warn;

use types::config::AddressDetection;
use types::{Family, Prefix, RouterId, RouterIdError};

use super::detection::{self, Candidate, DetectionError};

/// How long events of interfaces are left to gather after some were heard.
const EVENTS_PAUSE: Duration = Duration::from_millis(100);

/// Why this node's addresses are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    /// The environment: the kernel does not tell its interfaces.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The configuration does not fit this host.
    #[error(transparent)]
    Detection(#[from] DetectionError),
}

/// The addresses that this node peers from, by configuration; `internal` are those that Kubernetes knows it by.
pub(crate) fn find(
    methods: &AddressDetection,
    kernel: &mut dyn Kernel,
    internal: &[IpAddr],
) -> Result<Vec<IpAddr>, AddressError> {
    let candidates = candidates(kernel)?;
    let mut found = Vec::new();
    for (family, method) in by_family(methods) {
        found.extend(detection::address(method, family, &candidates, internal, None, source)?);
    }
    if found.is_empty() {
        warn!("this node has no address to peer from");
    }
    Ok(found)
}

/// The subnets of these addresses, over which others reach them without a router; none where the kernel does not say.
pub(crate) async fn subnets(own: Vec<IpAddr>) -> Vec<Prefix> {
    let asked = tokio::task::spawn_blocking(|| Linux::open()?.addresses()).await;
    match asked.map_err(anyhow::Error::from).and_then(|asked| Ok(asked?)) {
        Ok(interfaces) => subnets_among(&own, &interfaces),
        Err(error) => {
            warn!(%error, "this node's subnets are not known; BGP does without TTL security on them");
            Vec::new()
        }
    }
}

/// A point-to-point link and an address of its own length have no subnet.
fn subnets_among(own: &[IpAddr], interfaces: &[InterfaceAddress]) -> Vec<Prefix> {
    let of = |address: &IpAddr| {
        let mut there = interfaces.iter().filter(|there| there.address == *address && there.peer.is_none());
        there.find_map(|there| Prefix::new(there.address, there.prefix_len).ok())
    };
    own.iter().filter_map(of).filter(|subnet| subnet.len() < subnet.family().bits()).collect()
}

/// The same while the agent runs, after `former`. An address that still fits stays, and so does one in whose place nothing
/// is found: an interface that is down for a moment moves no session.
pub(crate) fn find_again(
    methods: &AddressDetection,
    kernel: &mut dyn Kernel,
    internal: &[IpAddr],
    former: &[IpAddr],
) -> Result<Vec<IpAddr>, KernelError> {
    let candidates = candidates(kernel)?;
    let found = by_family(methods).into_iter().filter_map(|(family, method)| {
        let current = of(former, family);
        let found = detection::address(method, family, &candidates, internal, current, source);
        if let Err(error) = &found {
            warn!(%error, "no address is found by the configured method now; this node's address stays what it was");
        }
        found.ok().flatten().or(current)
    });
    Ok(found.collect())
}

/// The address of a family among these.
pub(crate) fn of(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    addresses.iter().find(|address| Family::of(**address) == family).copied()
}

/// Who the speaker is with these addresses: its identifier is the IPv4 address, where there is one.
pub(crate) fn identity(addresses: &[IpAddr], otherwise: RouterId) -> Identity {
    let addresses = ByFamily { ipv4: of(addresses, Family::Ipv4), ipv6: of(addresses, Family::Ipv6) };
    let from_address = match addresses.ipv4 {
        Some(IpAddr::V4(address)) => RouterId::new(address).ok(),
        _ => None,
    };
    Identity { router_id: from_address.unwrap_or(otherwise), addresses }
}

/// The identifier of a node without IPv4: drawn from its instance, within 1.0.0.0 to 223.255.255.255.
pub(crate) fn drawn_router_id(instance: &str) -> Result<RouterId, RouterIdError> {
    let hash = instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [first, rest @ ..] = hash.to_be_bytes();
    RouterId::new(Ipv4Addr::new(first % 223 + 1, rest[0], rest[1], rest[2]))
}

/// Tells of every change that may concern [`find_again`], until nobody listens. Blocking: runs on its own thread.
pub(crate) fn watch_interfaces(mut events: Events, news: &mpsc::Sender<()>) {
    loop {
        match hear(&mut events) {
            Ok(true) => {
                // What waits to be heard covers this one too.
                let _ = news.try_send(());
            }
            Ok(false) => {}
            Err(error) => return warn!(%error, "changes of this node's addresses are not noticed any more"),
        }
        if news.is_closed() {
            return;
        }
        // Each pod that comes or goes makes a dozen events, none of which matters.
        std::thread::sleep(EVENTS_PAUSE);
    }
}

/// Waits for events; whether any of those that have come matters.
fn hear(events: &mut impl EventSource) -> Result<bool, KernelError> {
    let (mut wait, mut is_news) = (None, false);
    loop {
        match events.next(wait)? {
            Wait::Event(event) => is_news |= matters(&event),
            Wait::Woken => {}
            Wait::TimedOut => return Ok(is_news),
        }
        wait = Some(Duration::ZERO);
    }
}

/// What [`watch_interfaces`] reads.
pub(crate) fn subscribe() -> Result<Events, KernelError> {
    Events::subscribe_to(&[Group::Links, Group::Addresses])
}

/// Pods come and go all the time, and nothing of theirs is an address of the node.
fn matters(event: &Event) -> bool {
    match event {
        Event::AddressChanged(address) | Event::AddressDeleted(address) => address.scope == Scope::Universe,
        Event::LinkChanged(link) | Event::LinkDeleted(link) => !ours::is_our_link(link),
        Event::RouteChanged(_) | Event::RouteDeleted(_) => false,
        Event::Lost => true,
    }
}

fn candidates(kernel: &mut dyn Kernel) -> Result<Vec<Candidate>, KernelError> {
    let links = kernel.links()?;
    let addresses = kernel.addresses()?.into_iter().filter_map(|address| {
        let link = links.iter().find(|link| link.index == address.index)?;
        Some(Candidate {
            interface: link.name.clone(),
            address: address.address,
            global: address.scope == Scope::Universe,
            up: link.up,
        })
    });
    Ok(addresses.collect())
}

/// The source address that the kernel would use towards a destination.
fn source(destination: IpAddr) -> Option<IpAddr> {
    let any = match destination {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // Connecting a datagram socket sends nothing; the kernel chooses the source address.
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect((destination, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

fn by_family(methods: &AddressDetection) -> [(Family, &types::config::DetectionMethod); 2] {
    [(Family::Ipv4, &methods.ipv4), (Family::Ipv6, &methods.ipv6)]
}

#[cfg(test)]
mod tests;
