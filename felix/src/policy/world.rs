//! The endpoints of this node and of others, stored in little room and found by number or address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use types::policy::Protocol;
use types::{EndpointId, NodeName};

use super::compiler::EndpointFacts;
use super::id_set::IdSet;
use super::labels::LabelIndex;
use super::namespaces::Namespaces;
use super::slab::{Slab, Texts};

/// All endpoints and namespaces, from which selectors select.
#[derive(Debug, Default)]
pub(crate) struct World {
    endpoints: Slab<Endpoint>,
    pub(crate) namespaces: Namespaces,
    /// The labels of endpoints. Only endpoints that can be peers are listed under them.
    pub(crate) labels: LabelIndex,
    /// The names of ports, nodes, networks and interfaces, each stored once.
    pub(crate) texts: Texts,
    /// The endpoints that can be peers.
    peers: IdSet,
    /// The endpoints that are governed on this node.
    governed: IdSet,
    addresses: Addresses,
}

/// One endpoint, in compact form.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) place: Place,
    pub(crate) namespace: u32,
    /// The endpoint's labels as numbers of [`World::labels`], ascending.
    pub(crate) labels: Box<[u32]>,
    pub(crate) ports: Box<[NamedPort]>,
    pub(crate) addresses: OwnAddresses,
    /// The pod's name after its length, then for other nodes' endpoints which attachment it is: one allocation for both.
    name: Box<[u8]>,
}

/// Where an endpoint is, as far as selectors care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The endpoint is on another node, whose name has this number.
    Remote(u32),
    /// The endpoint is on this node.
    Local,
    /// The endpoint is on this node and its pod has ended: it is governed while it exists, and is nobody's peer.
    Finished,
    /// The pod is expected on this node and has no address yet.
    Expected,
}

impl Place {
    pub(crate) const fn is_peer(self) -> bool {
        matches!(self, Self::Remote(_) | Self::Local)
    }

    pub(crate) const fn is_governed(self) -> bool {
        !matches!(self, Self::Remote(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedPort {
    pub(crate) name: u32,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

impl Endpoint {
    pub(crate) fn name(&self) -> &str {
        let name = self.name.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len)));
        name.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("")
    }

    /// The octets that follow the name: which attachment an endpoint of another node is.
    pub(crate) fn attachment(&self) -> &[u8] {
        self.name.split_first().and_then(|(len, rest)| rest.get(usize::from(*len)..)).unwrap_or(&[])
    }

    /// The numbers that the endpoint has for a named port, ascending, each once.
    pub(crate) fn numbers(&self, protocol: Protocol, name: u32) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().filter(move |port| port.protocol == protocol && port.name == name).map(|port| port.number)
    }
}

/// The addresses of an endpoint, in order, each once: nearly always one of a family, or one of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnAddresses {
    Few(Option<Ipv4Addr>, Option<Ipv6Addr>),
    Many(Box<[IpAddr]>),
}

impl OwnAddresses {
    fn new(addresses: &[IpAddr]) -> Self {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        match addresses.as_slice() {
            [] => Self::Few(None, None),
            [IpAddr::V4(v4)] => Self::Few(Some(*v4), None),
            [IpAddr::V6(v6)] => Self::Few(None, Some(*v6)),
            [IpAddr::V4(v4), IpAddr::V6(v6)] => Self::Few(Some(*v4), Some(*v6)),
            _ => Self::Many(addresses.into()),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let (v4, v6, many) = match self {
            Self::Few(v4, v6) => (*v4, *v6, [].as_slice()),
            Self::Many(many) => (None, None, &**many),
        };
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).chain(many.iter().copied())
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.iter().any(|own| own == address)
    }
}

/// The endpoints by address. An address has several owners only for a moment, when it was given out anew before the end
/// of its former owner was heard of.
#[derive(Debug, Default)]
struct Addresses {
    v4: HashMap<Ipv4Addr, u32>,
    v6: HashMap<Ipv6Addr, u32>,
    /// The owners beyond the first, for addresses that have several.
    more: HashMap<IpAddr, Vec<u32>>,
}

impl Addresses {
    fn insert(&mut self, address: IpAddr, owner: u32) {
        let first = match address {
            IpAddr::V4(v4) => *self.v4.entry(v4).or_insert(owner),
            IpAddr::V6(v6) => *self.v6.entry(v6).or_insert(owner),
        };
        if first != owner {
            self.more.entry(address).or_default().push(owner);
        }
    }

    fn remove(&mut self, address: IpAddr, owner: u32) {
        let others = self.more.remove(&address);
        let mut left: Vec<_> = self.first(address).into_iter().chain(others.into_iter().flatten()).collect();
        left.retain(|other| *other != owner);
        match address {
            IpAddr::V4(v4) => drop(self.v4.remove(&v4)),
            IpAddr::V6(v6) => drop(self.v6.remove(&v6)),
        }
        left.into_iter().for_each(|other| self.insert(address, other));
    }

    fn first(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&v4).copied(),
            IpAddr::V6(v6) => self.v6.get(&v6).copied(),
        }
    }

    fn owners(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        let more = if self.more.is_empty() { None } else { self.more.get(&address) };
        self.first(address).into_iter().chain(more.into_iter().flatten().copied())
    }
}

impl World {
    pub(crate) fn get(&self, id: u32) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    pub(crate) const fn peers(&self) -> &IdSet {
        &self.peers
    }

    pub(crate) const fn governed(&self) -> &IdSet {
        &self.governed
    }

    /// The endpoints that have an address.
    pub(crate) fn owners(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.addresses.owners(address)
    }

    /// Builds an endpoint and holds every text that it names. The caller puts it into the world or releases it.
    pub(crate) fn endpoint(&mut self, place: Place, attachment: &[u8], facts: &EndpointFacts) -> Endpoint {
        let mut name = Vec::with_capacity(1 + facts.name.len() + attachment.len());
        // A pod's name has at most 253 octets (RFC 1123), so its length fits into one.
        let len = u8::try_from(facts.name.len()).unwrap_or(0);
        name.push(len);
        name.extend(facts.name.bytes().take(usize::from(len)));
        name.extend(attachment);
        let mut ports: Vec<_> = facts
            .ports
            .iter()
            .map(|port| NamedPort { name: self.texts.hold(&port.name), protocol: port.protocol, number: port.port })
            .collect();
        ports.sort_unstable();
        Endpoint {
            place,
            namespace: self.namespaces.hold(&facts.namespace),
            labels: self.labels.hold_all(&facts.labels),
            ports: ports.into(),
            addresses: match place {
                Place::Expected => OwnAddresses::Few(None, None),
                Place::Remote(_) | Place::Local | Place::Finished => OwnAddresses::new(&facts.addresses),
            },
            name: name.into(),
        }
    }

    pub(crate) fn insert(&mut self, endpoint: Endpoint) -> u32 {
        let id = self.endpoints.insert(endpoint);
        self.list(id, true);
        id
    }

    /// Replaces an endpoint; the caller still has to release the old one.
    pub(crate) fn replace(&mut self, id: u32, endpoint: Endpoint) -> Option<Endpoint> {
        self.list(id, false);
        let old = self.endpoints.put(id, endpoint);
        self.list(id, true);
        old
    }

    /// Takes an endpoint out; the caller still has to release it.
    pub(crate) fn remove(&mut self, id: u32) -> Option<Endpoint> {
        self.list(id, false);
        self.endpoints.remove(id)
    }

    /// Releases the texts and labels that an endpoint holds.
    pub(crate) fn release(&mut self, endpoint: &Endpoint) {
        self.labels.release_all(&endpoint.labels);
        self.namespaces.release(endpoint.namespace);
        endpoint.ports.iter().for_each(|port| self.texts.release(port.name));
    }

    /// Which attachment an endpoint of another node is, in few octets. It holds texts and has to be released.
    pub(crate) fn hold_attachment(&mut self, node: &NodeName, id: &EndpointId) -> (u32, Vec<u8>) {
        let node = self.texts.hold(node.as_str());
        let (network, interface) = (self.texts.hold(id.network.as_str()), self.texts.hold(id.interface.as_str()));
        (node, pack(network, interface, id.container.as_str()))
    }

    /// The same octets of an endpoint that may be known already; none if it cannot be. Nothing is held.
    pub(crate) fn find_attachment(&self, node: &NodeName, id: &EndpointId) -> Option<(u32, Vec<u8>)> {
        let node = self.texts.find(node.as_str())?;
        let (network, interface) = (self.texts.find(id.network.as_str())?, self.texts.find(id.interface.as_str())?);
        Some((node, pack(network, interface, id.container.as_str())))
    }

    pub(crate) fn release_attachment(&mut self, node: u32, attachment: &[u8]) {
        self.texts.release(node);
        for number in attachment.chunks_exact(4).take(2) {
            if let Ok(number) = number.try_into() {
                self.texts.release(u32::from_le_bytes(number));
            }
        }
    }

    /// How many entries are kept, to find leaks.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        let addresses = self.addresses.v4.len() + self.addresses.v6.len() + self.addresses.more.len();
        self.endpoints.len() + self.namespaces.kept() + self.labels.kept() + self.texts.kept() + addresses
    }

    fn list(&mut self, id: u32, listed: bool) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let set = if listed { IdSet::insert } else { IdSet::remove };
        let namespace = self.namespaces.get_mut(endpoint.namespace);
        if endpoint.place.is_governed() {
            set(&mut self.governed, id);
        }
        if endpoint.place.is_peer() {
            set(&mut self.peers, id);
            let list = if listed { LabelIndex::list } else { LabelIndex::unlist };
            list(&mut self.labels, &endpoint.labels, id);
        }
        if let Some(namespace) = namespace {
            if endpoint.place.is_governed() {
                set(&mut namespace.governed, id);
            }
            if endpoint.place.is_peer() {
                set(&mut namespace.peers, id);
            }
        }
        let index = if listed { Addresses::insert } else { Addresses::remove };
        endpoint.addresses.iter().for_each(|address| index(&mut self.addresses, address, id));
    }
}

/// Network, interface and container; the latter nearly always is many hexadecimal digits, kept as half as many octets.
fn pack(network: u32, interface: u32, container: &str) -> Vec<u8> {
    let mut packed = Vec::with_capacity(9 + container.len() / 2);
    packed.extend(network.to_le_bytes());
    packed.extend(interface.to_le_bytes());
    let digit = |octet: &u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    };
    let octets: Option<Vec<u8>> = container
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect();
    match octets {
        Some(octets) => {
            packed.push(1);
            packed.extend(octets);
        }
        None => {
            packed.push(0);
            packed.extend(container.bytes());
        }
    }
    packed
}
