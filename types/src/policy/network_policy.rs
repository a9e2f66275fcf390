//! `networking.k8s.io/v1` NetworkPolicy, read into the model.
//!
//! Absent, `null` and `[]` are the same for every list, as in the Kubernetes API: no peers or ports named means all of
//! them, no rules means none. `{}` is a rule, a selector that selects everything, and no peer.
//!
//! What cannot be read allows nothing. A rule loses the peers and ports that cannot be read and becomes narrower by it;
//! one that loses all of them fits nothing. A field that is not known could narrow what it stands in, so it takes its
//! peer, port, rule or policy with it. Where it is in doubt whether a policy governs, it governs, and allows nothing.

mod labels;
mod reader;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::{
    Action, Direction, EndpointSelector, LabelSelector, NamespaceSelector, Peer, Peers, Policy, PortMatch, PortRange,
    Ports, Protocol, Rule, Tier,
};
use crate::Prefix;

pub(crate) use labels::{label_fault, label_key_fault};
pub use reader::Problem;
use reader::{Place, Reader, present};

/// Reads the `spec` of a NetworkPolicy of a namespace, and names all of it that makes no sense. Never fails: what cannot
/// be read allows nothing (a rule, or a peer of it), and a policy whose selector cannot be read governs its whole namespace.
///
/// Rules keep their index in the list; one that cannot be read stays there as a rule that fits nothing.
pub fn network_policy(namespace: &str, spec: &Value) -> (Policy, Vec<Problem>) {
    let mut reader = Reader::default();
    let policy = policy(&mut reader, namespace, spec);
    (policy, reader.problems)
}

/// Whether a policy governs a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Governed {
    No,
    Yes,
    /// It cannot be told whether the policy governs the direction. It is taken to, and none of its rules is sure to be
    /// meant.
    InDoubt,
}

fn policy(reader: &mut Reader, namespace: &str, spec: &Value) -> Policy {
    let place = Place::root("spec");
    let nothing = Map::new();
    let (fields, whole) = match spec {
        Value::Object(fields) => {
            (fields, reader.knows(place, fields, &["podSelector", "policyTypes", "ingress", "egress"]))
        }
        _ => {
            reader.problem(place, "is not a mapping");
            (&nothing, false)
        }
    };
    let selector = match present(fields, "podSelector") {
        None => Some(LabelSelector::default()),
        Some(value) => labels::selector(reader, place.field("podSelector"), value),
    };
    // The rules are written for the pods that the policy selects; if it cannot be told which, no rule can be trusted.
    let sound = whole && selector.is_some();
    let mut read = Vec::new();
    for direction in Direction::ALL {
        // The rules are read even where the direction turns out not to be governed, since what is wrong in them is to
        // be told too.
        let rules = rules(reader, place, namespace, fields, direction);
        read.push((direction, rules));
    }
    let types = policy_types(reader, place, fields);
    let mut directions = read.into_iter().map(|(direction, rules)| {
        let governed = match &types {
            PolicyTypes::Listed { directions, .. } if directions.contains(&direction) => Governed::Yes,
            PolicyTypes::Listed { all_read: false, .. } | PolicyTypes::Unreadable => Governed::InDoubt,
            PolicyTypes::Listed { .. } => Governed::No,
            PolicyTypes::Default if direction == Direction::Ingress => Governed::Yes,
            PolicyTypes::Default => match &rules {
                None => Governed::InDoubt,
                Some(rules) if rules.is_empty() => Governed::No,
                Some(_) => Governed::Yes,
            },
        };
        match governed {
            Governed::No if whole => None,
            Governed::Yes if sound => Some(rules.unwrap_or_default()),
            Governed::No | Governed::Yes | Governed::InDoubt => Some(Vec::new()),
        }
    });
    let (ingress, egress) = (directions.next().flatten(), directions.next().flatten());
    Policy {
        tier: Tier::network_policy(),
        order: 0,
        subject: EndpointSelector {
            namespaces: NamespaceSelector::Named(namespace.to_owned()),
            endpoints: selector.unwrap_or_default(),
        },
        ingress,
        egress,
    }
}

/// `policyTypes`.
enum PolicyTypes {
    /// Absent or empty: ingress, and egress if there are rules for it.
    Default,
    /// These directions.
    Listed { directions: Vec<Direction>, all_read: bool },
    /// The field is no list.
    Unreadable,
}

fn policy_types(reader: &mut Reader, place: Place<'_>, fields: &Map<String, Value>) -> PolicyTypes {
    let place = place.field("policyTypes");
    let Some(types) = reader.list(place, present(fields, "policyTypes")) else { return PolicyTypes::Unreadable };
    if types.is_empty() {
        return PolicyTypes::Default;
    }
    let mut directions = Vec::new();
    for (index, name) in types.iter().enumerate() {
        match name.as_str() {
            Some("Ingress") => directions.push(Direction::Ingress),
            Some("Egress") => directions.push(Direction::Egress),
            _ => reader.problem(place.index(index), "is not Ingress or Egress"),
        }
    }
    PolicyTypes::Listed { all_read: directions.len() == types.len(), directions }
}

/// The rules of a direction; none if what stands there is no list.
fn rules(
    reader: &mut Reader,
    place: Place<'_>,
    namespace: &str,
    fields: &Map<String, Value>,
    direction: Direction,
) -> Option<Vec<Rule>> {
    let (field, peers) = match direction {
        Direction::Ingress => ("ingress", "from"),
        Direction::Egress => ("egress", "to"),
    };
    let place = place.field(field);
    let list = reader.list(place, present(fields, field))?;
    let read = |(index, value)| {
        // The rule keeps its place in the list, so that the others keep theirs.
        let unreadable = Rule { action: Action::Allow, peers: Peers::Only(Vec::new()), ports: Ports::Only(Vec::new()) };
        rule(reader, place.index(index), namespace, value, peers).unwrap_or(unreadable)
    };
    Some(list.iter().enumerate().map(read).collect())
}

fn rule(reader: &mut Reader, place: Place<'_>, namespace: &str, value: &Value, peers: &'static str) -> Option<Rule> {
    let fields = reader.object(place, value)?;
    let whole = reader.knows(place, fields, &[peers, "ports"]);
    // Both are read before either may fail, so that everything that is wrong is told.
    let ports = reader.list(place.field("ports"), present(fields, "ports")).map(|list| match list {
        [] => Ports::Any,
        list => Ports::Only(
            list.iter()
                .enumerate()
                .filter_map(|(index, value)| port(reader, place.field("ports").index(index), value))
                .collect(),
        ),
    });
    let peers = reader.list(place.field(peers), present(fields, peers)).map(|list| match list {
        [] => Peers::Any,
        list => Peers::Only(
            list.iter()
                .enumerate()
                .filter_map(|(index, value)| peer(reader, place.field(peers).index(index), namespace, value))
                .collect(),
        ),
    });
    whole.then_some(Rule { action: Action::Allow, peers: peers?, ports: ports? })
}

fn peer(reader: &mut Reader, place: Place<'_>, namespace: &str, value: &Value) -> Option<Peer> {
    let fields = reader.object(place, value)?;
    let whole = reader.knows(place, fields, &["podSelector", "namespaceSelector", "ipBlock"]);
    let mut selector =
        |field| present(fields, field).map(|value| (field, labels::selector(reader, place.field(field), value)));
    let (pods, namespaces) = (selector("podSelector"), selector("namespaceSelector"));
    let block = present(fields, "ipBlock").map(|value| block(reader, place.field("ipBlock"), value));
    let peer = match (pods, namespaces, block) {
        (None, None, None) => {
            if whole {
                reader.problem(place, "needs podSelector, namespaceSelector or ipBlock");
            }
            None
        }
        (None, None, Some(block)) => block,
        (Some((field, _)), _, Some(_)) | (None, Some((field, _)), Some(_)) => {
            reader.problem(place, format!("has both ipBlock and {field}, which exclude each other"));
            None
        }
        (pods, namespaces, None) => {
            // An absent selector has a meaning; one that cannot be read has none.
            let pods = pods.map_or_else(|| Some(LabelSelector::default()), |(_, selector)| selector);
            let namespaces = namespaces.map_or_else(
                || Some(NamespaceSelector::Named(namespace.to_owned())),
                |(_, selector)| selector.map(NamespaceSelector::Labelled),
            );
            pods.zip(namespaces)
                .map(|(endpoints, namespaces)| Peer::Endpoints(EndpointSelector { namespaces, endpoints }))
        }
    };
    peer.filter(|_| whole)
}

fn block(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<Peer> {
    let fields = reader.object(place, value)?;
    let whole = reader.knows(place, fields, &["cidr", "except"]);
    let cidr = match present(fields, "cidr") {
        None => {
            reader.problem(place.field("cidr"), "is missing");
            None
        }
        Some(value) => prefix(reader, place.field("cidr"), value),
    };
    let holes = reader.list(place.field("except"), present(fields, "except"))?;
    let (mut except, place) = (Vec::new(), place.field("except"));
    for (index, value) in holes.iter().enumerate() {
        let place = place.index(index);
        let hole = prefix(reader, place, value);
        if let (Some(cidr), Some(hole)) = (cidr, hole)
            && (!cidr.covers(&hole) || cidr == hole)
        {
            reader.problem(place, format!("{hole} is not a part of {cidr}"));
        } else {
            except.extend(hole);
        }
    }
    // Without one of its exceptions the block would be wider than it was meant to be.
    (whole && except.len() == holes.len()).then_some(Peer::Block { cidr: cidr?, except })
}

/// A prefix, whose host bits do not matter to the Kubernetes API.
fn prefix(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<Prefix> {
    let prefix = value.as_str().and_then(|text| {
        let (address, len) = text.split_once('/')?;
        // The parser of numbers would also take a sign or leading zeros.
        let plain = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
        let address: std::net::IpAddr = address.parse().ok()?;
        // Readers do not agree on what ::ffff:10.0.0.0/104 is meant to fit.
        let mapped = matches!(address, std::net::IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        if !plain || mapped {
            return None;
        }
        Prefix::new(address, len.parse().ok()?).ok()
    });
    if prefix.is_none() {
        reader.problem(place, format!("{value} is not a prefix such as 10.0.0.0/24 or fd00::/64"));
    }
    prefix
}

fn port(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<PortMatch> {
    let fields = reader.object(place, value)?;
    let whole = reader.knows(place, fields, &["protocol", "port", "endPort"]);
    let protocol = protocol(reader, place.field("protocol"), present(fields, "protocol"));
    let last = match present(fields, "endPort") {
        None => Some(None),
        Some(value) => number(reader, place.field("endPort"), value).map(Some),
    };
    let at = place.field("port");
    let port = match (present(fields, "port"), last) {
        (None, Some(None)) => protocol.map(PortMatch::All),
        (None, _) => {
            reader.problem(place.field("endPort"), "needs port");
            None
        }
        (Some(Value::String(name)), last) => {
            let fault = port_name_fault(name);
            if let Some(fault) = fault {
                reader.problem(at, format!("{name:?} {fault}"));
            }
            if last != Some(None) {
                reader.problem(place.field("endPort"), "needs a port that is a number");
            }
            let named = fault.is_none() && last == Some(None);
            protocol.filter(|_| named).map(|protocol| PortMatch::Named(protocol, name.clone()))
        }
        (Some(value), last) => {
            let first = number(reader, at, value);
            let range = first.zip(last).and_then(|(first, last)| {
                let range = PortRange::new(first, last.unwrap_or(first));
                if range.is_none() {
                    reader.problem(place.field("endPort"), "is less than port");
                }
                range
            });
            protocol.zip(range).map(|(protocol, range)| PortMatch::Range(protocol, range))
        }
    };
    port.filter(|_| whole)
}

fn protocol(reader: &mut Reader, place: Place<'_>, value: Option<&Value>) -> Option<Protocol> {
    let Some(value) = value else { return Some(Protocol::Tcp) };
    // The API knows protocols in upper case alone.
    let protocol = Protocol::ALL.into_iter().find(|protocol| value.as_str() == Some(protocol.to_string().as_str()));
    if protocol.is_none() {
        reader.problem(place, format!("{value} is not TCP, UDP or SCTP"));
    }
    protocol
}

fn number(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<u16> {
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
    if number.is_none() {
        reader.problem(place, format!("{value} is not a port number, 1 to 65535"));
    }
    number
}

/// What keeps a text from being the name of a port (RFC 6335 section 5.1, in lower case). A number in quotes is none.
fn port_name_fault(name: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 15 {
        Some("is not a port name: 1 to 15 characters")
    } else if !name.bytes().all(allowed) {
        Some("is not a port name: lower-case letters, digits and '-'")
    } else if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Some("is not a port name: at least one letter (a port number goes without quotes)")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Some("is not a port name: '-' only between letters and digits")
    } else {
        None
    }
}
