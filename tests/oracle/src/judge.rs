//! The judge: whether the first packet of a connection passes, by the text of the NetworkPolicy API and nothing else.
//!
//! It is brute force, in the order in which the specification speaks, and asks every policy anew for every packet. What
//! the specification leaves open is decided closed. A part that cannot be read allows nothing, and the rest stands. Where
//! it is in doubt whether a policy governs a pod or a direction, it does, and allows nothing in it.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use crate::cidr::Cidr;
use crate::selector::selects;
use crate::world::{Labels, Packet, Pod, PodName, PolicyName, Protocol, World};

/// The verdict on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the packet passes: both ends let it.
    pub allowed: bool,
    /// What the source's egress policies say.
    pub egress: Side,
    /// What the destination's ingress policies say.
    pub ingress: Side,
}

/// The verdict of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Whether this end lets the packet pass.
    pub allowed: bool,
    /// The reason in words.
    pub why: String,
}

/// Traffic that no policy can stop. By default it is all that the specification exempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemptions {
    /// Traffic to a pod from the node that it is on.
    pub from_own_node: bool,
    /// Traffic from a pod to the node that it is on (the specification says nothing; implementations have a setting).
    pub to_own_node: bool,
    /// Traffic from a pod to itself.
    pub itself: bool,
}

impl Default for Exemptions {
    fn default() -> Self {
        Self { from_own_node: true, to_own_node: true, itself: true }
    }
}

/// The two directions of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Traffic to the pod.
    Ingress,
    /// Traffic from the pod.
    Egress,
}

/// Judges a packet. A connection needs the leave of its source's egress and of its destination's ingress.
pub fn judge(world: &World, packet: &Packet, exemptions: Exemptions) -> Verdict {
    let egress = side(world, packet, exemptions, Direction::Egress);
    let ingress = side(world, packet, exemptions, Direction::Ingress);
    Verdict { allowed: egress.allowed && ingress.allowed, egress, ingress }
}

/// One end: no policy that selects the pod for this direction, and all is allowed; one, and only what any rule of any of them
/// allows.
fn side(world: &World, packet: &Packet, exemptions: Exemptions, direction: Direction) -> Side {
    let (own, other) = match direction {
        Direction::Egress => (packet.source, packet.destination),
        Direction::Ingress => (packet.destination, packet.source),
    };
    let Some((name, pod)) = world.pod_at(own) else { return Side::allowed(format!("{own} is no pod's")) };
    if exemptions.itself && world.pod_at(other).is_some_and(|(other, _)| other == name) {
        return Side::allowed(format!("{name} is both ends"));
    }
    let own_node = match direction {
        Direction::Egress => exemptions.to_own_node,
        Direction::Ingress => exemptions.from_own_node,
    };
    if own_node && world.is_address_of_node(&pod.node, other) {
        return Side::allowed(format!("{other} is the node of {name}"));
    }
    let mut governing = Vec::new();
    for (policy, spec) in &world.policies {
        let Some(rules) = governs(policy, spec, name, pod, direction) else { continue };
        governing.push(policy.to_string());
        for (index, rule) in rules.iter().enumerate() {
            if fits(world, policy, rule, direction, packet, other).is_ok_and(|fits| fits) {
                return Side::allowed(format!("{policy} {direction} rule {index}"));
            }
        }
    }
    match governing.as_slice() {
        [] => Side::allowed(format!("no policy selects {name} for {direction}")),
        governing => Side { allowed: false, why: format!("no {direction} rule of {} fits", governing.join(", ")) },
    }
}

/// The rules for a direction of a policy that governs the pod in it; none if it does not. It does if it is in the pod's
/// namespace, is of the direction's type, and its `podSelector` fits (absent or `{}`: all pods of the namespace).
fn governs<'w>(
    policy: &PolicyName,
    spec: &'w Value,
    name: &PodName,
    pod: &Pod,
    direction: Direction,
) -> Option<&'w [Value]> {
    if policy.namespace != name.namespace {
        return None;
    }
    let subject = match field(spec, "podSelector") {
        None => Ok(true),
        Some(selector) => selects(selector, &pod.labels),
    };
    match (subject, rules(spec, direction)) {
        (Ok(false), _) | (_, Ok(None)) => None,
        (Ok(true), Ok(Some(rules))) => Some(rules),
        (Err(_), Ok(Some(_))) | (_, Err(_)) => Some(&[]),
    }
}

/// The rules for a direction, if the policy is of its type: one of `policyTypes`, where that has any entry; otherwise always for
/// ingress, and for egress if there is at least one rule for it. No rules allow nothing, whether absent, null or `[]`.
fn rules(spec: &Value, direction: Direction) -> Result<Option<&[Value]>, Unreadable> {
    known_fields(spec, &["podSelector", "policyTypes", "ingress", "egress"])?;
    let name = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let rules = list(spec, name).map(|rules| rules.map_or(&[][..], Vec::as_slice));
    let types = list(spec, "policyTypes")?.map_or(&[][..], Vec::as_slice);
    let of_type = if types.is_empty() {
        direction == Direction::Ingress || !rules.clone()?.is_empty()
    } else if types.iter().any(|entry| *entry == direction.to_string()) {
        true
    } else if types.iter().all(|entry| entry == "Ingress" || entry == "Egress") {
        false
    } else {
        return Err(Unreadable::at("policyTypes"));
    };
    if of_type { rules.map(Some) } else { Ok(None) }
}

/// Whether a rule allows the packet: one of its peers and one of its ports fits. Absent, null or empty means any peer
/// (`from`, `to`), or every port of every protocol (`ports`).
fn fits(
    world: &World,
    policy: &PolicyName,
    rule: &Value,
    direction: Direction,
    packet: &Packet,
    other: IpAddr,
) -> Result<bool, Unreadable> {
    let peers_name = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    known_fields(rule, &[peers_name, "ports"])?;
    let peers = list(rule, peers_name)?.map_or(&[][..], Vec::as_slice);
    let ports = list(rule, "ports")?.map_or(&[][..], Vec::as_slice);
    let peer = |peer: &Value| peer_fits(world, policy, peer, other).is_ok_and(|fits| fits);
    let port = |port: &Value| port_fits(world, port, packet).is_ok_and(|fits| fits);
    Ok((peers.is_empty() || peers.iter().any(peer)) && (ports.is_empty() || ports.iter().any(port)))
}

/// A peer is a block of addresses, or a selection of pods. Of the latter, `namespaceSelector` picks namespaces (absent: the
/// policy's own) and `podSelector` pods in them (absent: all). Blocks and selectors exclude each other; neither is no peer.
fn peer_fits(world: &World, policy: &PolicyName, peer: &Value, other: IpAddr) -> Result<bool, Unreadable> {
    known_fields(peer, &["ipBlock", "namespaceSelector", "podSelector"])?;
    match (field(peer, "ipBlock"), field(peer, "namespaceSelector"), field(peer, "podSelector")) {
        (Some(block), None, None) => block_fits(block, other),
        (None, None, None) | (Some(_), ..) => Err(Unreadable::at("a peer that is not of one kind")),
        (None, namespaces, pods) => {
            let none = Labels::new();
            let at = world.pod_at(other);
            let namespace = at.map(|(name, _)| name.namespace.as_str());
            // Both are read even if the end is no pod, so that an unreadable part is unreadable for every packet.
            let in_namespace = match namespaces {
                None => namespace == Some(policy.namespace.as_str()),
                Some(selector) => {
                    selects(selector, namespace.and_then(|name| world.namespaces.get(name)).unwrap_or(&none))?
                }
            };
            let selected = match pods {
                None => true,
                Some(selector) => selects(selector, at.map_or(&none, |(_, pod)| &pod.labels))?,
            };
            Ok(at.is_some() && in_namespace && selected)
        }
    }
}

/// Addresses in `cidr` and in none of `except`, pods' addresses too. Each exception is a strict part of the block.
fn block_fits(block: &Value, other: IpAddr) -> Result<bool, Unreadable> {
    known_fields(block, &["cidr", "except"])?;
    let cidr = |value: Option<&Value>| {
        value.and_then(Value::as_str).and_then(Cidr::parse).ok_or_else(|| Unreadable::at("a block that is no range"))
    };
    let whole = cidr(field(block, "cidr"))?;
    let mut fits = whole.contains(other);
    for except in list(block, "except")?.into_iter().flatten() {
        let except = cidr(Some(except))?;
        if !whole.strictly_contains(&except) {
            return Err(Unreadable::at("an exception that is not part of its block"));
        }
        fits &= !except.contains(other);
    }
    Ok(fits)
}

/// A port: `protocol` is TCP unless said. `port` is absent (all of the protocol), a number, the first of a range up to `endPort`
/// included, or a name: then it is what the destination pod calls so for this protocol. What is no pod has no names.
fn port_fits(world: &World, port: &Value, packet: &Packet) -> Result<bool, Unreadable> {
    known_fields(port, &["protocol", "port", "endPort"])?;
    let protocol = match field(port, "protocol").map(Value::as_str) {
        None | Some(Some("TCP")) => Protocol::Tcp,
        Some(Some("UDP")) => Protocol::Udp,
        Some(Some("SCTP")) => Protocol::Sctp,
        Some(_) => return Err(Unreadable::at("a protocol")),
    };
    let fits = match (field(port, "port"), field(port, "endPort")) {
        (None, None) => true,
        (Some(Value::Number(_)), None) => packet.port == number(port, "port")?,
        (Some(Value::Number(_)), Some(_)) => {
            let (first, last) = (number(port, "port")?, number(port, "endPort")?);
            if last < first {
                return Err(Unreadable::at("a range that ends before it begins"));
            }
            (first..=last).contains(&packet.port)
        }
        (Some(Value::String(name)), None) if is_port_name(name) => {
            world.pod_at(packet.destination).is_some_and(|(_, pod)| {
                pod.ports.iter().any(|has| has.name == *name && has.protocol == protocol && has.number == packet.port)
            })
        }
        _ => return Err(Unreadable::at("a port")),
    };
    Ok(fits && packet.protocol == protocol)
}

/// Reads a port's number: 1 to 65535.
fn number(port: &Value, name: &str) -> Result<u16, Unreadable> {
    let number = field(port, name).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| Unreadable::at("a port's number"))
}

/// Reads a port's name (RFC 6335 section 5.1): up to 15 letters, digits and single hyphens inside, a letter among them;
/// here in lower case.
fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-')
        && name.bytes().any(|octet| octet.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// A part of a document that does not say what the specification lets it say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {0}")]
pub(crate) struct Unreadable(&'static str);

impl Unreadable {
    pub(crate) const fn at(what: &'static str) -> Self {
        Self(what)
    }
}

/// A field of an object; null counts as absent.
pub(crate) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.get(name).filter(|value| !value.is_null())
}

/// A field that is a list; none if it is absent.
pub(crate) fn list<'v>(value: &'v Value, name: &str) -> Result<Option<&'v Vec<Value>>, Unreadable> {
    match field(value, name) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(Unreadable::at("what should be a list")),
    }
}

/// Checks that an object has no fields but these: an unknown one might narrow what is allowed.
pub(crate) fn known_fields(value: &Value, known: &[&str]) -> Result<(), Unreadable> {
    let object = value.as_object().ok_or_else(|| Unreadable::at("what should be an object"))?;
    match object.keys().all(|key| known.contains(&key.as_str())) {
        true => Ok(()),
        false => Err(Unreadable::at("a field that is not known")),
    }
}

impl Side {
    const fn allowed(why: String) -> Self {
        Self { allowed: true, why }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allowed { "allowed" } else { "denied" };
        write!(f, "{word} (source: {}; destination: {})", self.egress.why, self.ingress.why)
    }
}
