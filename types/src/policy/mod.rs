//! The one policy model, which every kind of policy is read into: it says which endpoints may talk to which.
//!
//! A direction of an endpoint is judged by tiers in order; within a tier by policies in order; within a policy by rules in
//! order. The first rule that fits decides, `Pass` goes to the next tier. An endpoint that no policy of any tier governs
//! in a direction is open in it. `NetworkPolicy` is the case of one tier, whose policies only allow and whose end denies.

mod explain;
mod network_policy;
mod selector;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Prefix;

pub use explain::{
    Decision, EffectiveDirection, EffectivePeer, EffectivePolicy, EffectivePort, EffectiveRule, EffectiveRules, End,
    Entry, Explanation, Flow, Judgement, Part, Party, Reason,
};
pub use network_policy::{Problem, network_policy};
pub(crate) use network_policy::{label_fault, label_key_fault};
pub use selector::{LabelSelector, Operator, Requirement};

/// Labels of an endpoint or a namespace.
pub type Labels = BTreeMap<String, String>;

/// A transport protocol that policies speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All protocols that policies can name.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol's number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text:?} is not TCP, UDP or SCTP"))
    }
}

/// The two directions, as the governed endpoint sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Traffic to the endpoint.
    Ingress,
    /// Traffic from the endpoint.
    Egress,
}

impl Direction {
    /// Both, in the order in which they are printed.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A tier: a group of policies that are judged before the next group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tier {
    /// The tier's place among all tiers: lower ones come first.
    pub order: u32,
    /// The tier's name.
    pub name: String,
    /// What becomes of traffic that a policy of this tier governs and no rule of it decides.
    pub end: TierEnd,
}

impl Tier {
    /// The tier of `NetworkPolicy`.
    pub fn network_policy() -> Self {
        Self { order: 1_000_000, name: "default".to_owned(), end: TierEnd::Deny }
    }
}

/// What becomes of traffic that no rule of a tier decides: see [`Tier::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierEnd {
    /// The traffic is dropped.
    Deny,
    /// The traffic is judged by the next tier.
    Pass,
}

/// What identifies a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId {
    /// The kind of the policy, such as `NetworkPolicy`.
    pub kind: PolicyKind,
    /// The namespace of the policy; empty for kinds that have none.
    pub namespace: String,
    /// The name of the policy.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// The kinds of policy that Manx implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkPolicy => "NetworkPolicy",
        })
    }
}

/// A policy of any kind, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The tier that the policy is in.
    pub tier: Tier,
    /// The policy's place within its tier: lower comes first, equal ones by [`PolicyId`].
    pub order: u32,
    /// The endpoints that the policy governs.
    pub subject: EndpointSelector,
    /// The rules for traffic to the governed endpoints; none if the policy does not govern this direction. An empty
    /// list governs it and allows nothing.
    pub ingress: Option<Vec<Rule>>,
    /// The rules for traffic from the governed endpoints; none and empty mean the same as for `ingress`.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// One rule. Peers and ports must both fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of traffic that the rule fits.
    pub action: Action,
    /// The other ends that the rule fits.
    pub peers: Peers,
    /// The destination ports that the rule fits.
    pub ports: Ports,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Lets the traffic through.
    Allow,
    /// Drops the traffic.
    Deny,
    /// Leaves the traffic to the next tier.
    Pass,
}

/// The other ends that a rule fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Every other end, inside and outside the cluster.
    Any,
    /// Any of these other ends; an empty list fits none.
    Only(Vec<Peer>),
}

/// One kind of other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Endpoints, by labels.
    Endpoints(EndpointSelector),
    /// Addresses, whether endpoints have them or not.
    Block {
        /// The range of addresses.
        cidr: Prefix,
        /// Ranges within it that do not fit. They are not denied: another peer may still fit.
        except: Vec<Prefix>,
    },
}

/// Selects endpoints by the labels of their namespaces and their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSelector {
    /// The namespaces that the endpoints are in.
    pub namespaces: NamespaceSelector,
    /// The endpoints within those namespaces.
    pub endpoints: LabelSelector,
}

/// Selects namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceSelector {
    /// The policy's own namespace.
    Named(String),
    /// Those with fitting labels. An empty selector means all namespaces, also one that nothing is known of but that
    /// endpoints name.
    Labelled(LabelSelector),
}

/// The destination ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Any of these ports; an empty list fits none.
    Any,
    /// One of these; none of none.
    Only(Vec<PortMatch>),
}

/// One kind of destination port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// Every port of a protocol.
    All(Protocol),
    /// Ports by number, both ends included.
    Range(Protocol, PortRange),
    /// The port that the destination endpoint has under this name, of this protocol. Fits no address that is not an
    /// endpoint's.
    Named(Protocol, String),
}

/// Ports from `first` to `last`, both included, `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range from `first` to `last`; none if it ends before it begins.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// A range of one port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Every port.
    pub const fn all() -> Self {
        Self { first: 0, last: u16::MAX }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The range as the bounds of an iterator.
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}
