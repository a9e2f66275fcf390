//! What the policies in force say of a flow and of an endpoint, in a form that can be sent, printed and read by people.
//!
//! The compiler fills these in from the same state that it compiles; nothing here judges anything.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Action, Direction, EndpointSelector, Labels, NamespaceSelector, Peer, Peers, PolicyId, PortMatch, Ports, Protocol,
    Rule,
};
use crate::NodeName;

/// A connection, or the first packet of one, from the end that begins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// The address that the connection comes from.
    pub source: IpAddr,
    /// The address that the connection goes to: a pod's own, since services are translated before policies judge.
    pub destination: IpAddr,
    /// The protocol; none for ICMP and other protocols that policies cannot name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The destination port; without meaning where there is no protocol.
    #[serde(default)]
    pub port: u16,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(protocol) => write!(f, "{} -> {} {protocol} {}", self.source, self.destination, self.port),
            None => write!(f, "{} -> {} without ports", self.source, self.destination),
        }
    }
}

/// Whether a flow passes, and who says so at either end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The flow that was asked about.
    pub flow: Flow,
    /// The verdict: the flow is allowed where both ends allow it.
    pub verdict: Judgement,
    /// The end that begins the connection, judged by its egress policies.
    pub source: End,
    /// The other end, judged by its ingress policies.
    pub destination: End,
    /// What becomes of the same connection where a Service hides who began it, by the node at which it comes in. Empty
    /// where [`Explanation::depends_on_entry`] says that it does not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
}

impl Explanation {
    /// Combines the two ends into one explanation.
    pub fn new(flow: Flow, source: End, destination: End) -> Self {
        let both = source.verdict() == Judgement::Allowed && destination.verdict() == Judgement::Allowed;
        let verdict = if both { Judgement::Allowed } else { Judgement::Denied };
        Self { flow, verdict, source, destination, entries: Vec::new() }
    }

    /// Whether a Service that hides clients may change the verdict: the connection begins at no pod, and policies govern
    /// the pod that it goes to. On the pod's own node the client is judged before kube-proxy hides it; a connection that
    /// comes in at another node arrives with that node's address.
    pub fn depends_on_entry(&self) -> bool {
        matches!(self.source.party, Party::Outside { .. })
            && matches!(self.destination.party, Party::Endpoint { .. })
            && matches!(self.destination.reason, Reason::Rule(_) | Reason::Isolated { .. })
    }
}

/// A node other than the pod's, at which a connection to a Service with `externalTrafficPolicy: Cluster` comes in. The
/// policies of the pod judge the node's address in place of the client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The node's name.
    pub node: NodeName,
    /// The address of the node that the pod sees.
    pub address: IpAddr,
    /// The verdict on the connection.
    pub verdict: Judgement,
}

/// The verdict on a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// The flow passes.
    Allowed,
    /// The flow is dropped.
    Denied,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        })
    }
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Who is at this end.
    pub party: Party,
    /// The directions in which policies govern this end, whether or not this flow takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub governed: Vec<Direction>,
    /// Why this end lets the flow pass or not.
    pub reason: Reason,
}

impl End {
    /// The verdict of this end alone.
    pub const fn verdict(&self) -> Judgement {
        self.reason.verdict()
    }
}

/// Who is at an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Party {
    /// A pod is at this end.
    Endpoint {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The node that the pod is on; none if it is the node that answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeName>,
        /// The address by which the pod was found.
        address: IpAddr,
    },
    /// An address that belongs to no pod is at this end.
    Outside {
        /// The address.
        address: IpAddr,
    },
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { namespace, name, node: None, address } => write!(f, "pod {namespace}/{name} ({address})"),
            Self::Endpoint { namespace, name, node: Some(node), address } => {
                write!(f, "pod {namespace}/{name} ({address}) on {node}")
            }
            Self::Outside { address } => write!(f, "{address}, which is no pod's"),
        }
    }
}

/// Why one end lets a flow pass, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "because")]
pub enum Reason {
    /// No endpoint has the address, so no policy governs this end.
    NotAnEndpoint,
    /// No policy selects the endpoint in this direction.
    NotGoverned,
    /// Both ends are the same endpoint, and nothing keeps one from talking to itself.
    Itself,
    /// The node that the endpoint is on always reaches it.
    OwnNode,
    /// The flow goes to a port of a node or of a router that is closed to pods whatever policies say: of BGP, of BFD, of
    /// DHCP's clients.
    Infrastructure,
    /// A rule has decided.
    Rule(Decision),
    /// Policies govern the endpoint in this direction and no rule of theirs allows the flow.
    Isolated {
        /// The policies that govern the endpoint, in the order in which they are judged.
        policies: Vec<PolicyId>,
    },
}

impl Reason {
    /// The verdict that follows from the reason. A rule that passes to the next tier decides nothing and is never a
    /// reason.
    pub const fn verdict(&self) -> Judgement {
        match self {
            Self::NotAnEndpoint | Self::NotGoverned | Self::Itself | Self::OwnNode => Judgement::Allowed,
            Self::Rule(Decision { action: Action::Allow, .. }) => Judgement::Allowed,
            Self::Rule(Decision { action: Action::Deny | Action::Pass, .. })
            | Self::Isolated { .. }
            | Self::Infrastructure => Judgement::Denied,
        }
    }
}

/// The rule that decided, and what of it fitted. All indices count from zero, as in the policy's own lists.
///
/// They are indices of the model's lists, from which a part that could not be read is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The policy that the rule belongs to.
    pub policy: PolicyId,
    /// The tier that the policy is in.
    pub tier: String,
    /// The index of the rule in its direction.
    pub rule: usize,
    /// What the rule does.
    pub action: Action,
    /// The first peer of the rule that fits; none if the rule is for any peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Part>,
    /// The first port of the rule that fits; none if the rule is for any port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Part>,
}

/// A peer or port of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The index of the peer or port in the rule.
    pub index: usize,
    /// The peer or port in words.
    pub text: String,
}

impl Part {
    /// A [`Peer`] or [`PortMatch`] at its place.
    pub fn new(index: usize, what: &impl fmt::Display) -> Self {
        Self { index, text: what.to_string() }
    }
}

/// All that governs one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePolicy {
    /// The endpoint's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels, as policies see them.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The policies for what comes to the endpoint.
    pub ingress: EffectiveDirection,
    /// The policies for what goes from the endpoint.
    pub egress: EffectiveDirection,
}

impl EffectivePolicy {
    /// The policies that govern one direction.
    pub const fn direction(&self, direction: Direction) -> &EffectiveDirection {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What governs an endpoint in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum EffectiveDirection {
    /// No policy governs the direction: everything passes.
    Open,
    /// These policies govern the direction; what none of their rules allows is dropped.
    Governed {
        /// The policies, in the order in which they are judged.
        policies: Vec<EffectiveRules>,
    },
}

/// The rules of one policy for one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRules {
    /// The policy's name.
    pub policy: PolicyId,
    /// The tier that the policy is in.
    pub tier: String,
    /// The rules in order. If there are none, the policy allows nothing.
    pub rules: Vec<EffectiveRule>,
}

/// A rule, with what its selectors select now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRule {
    /// What the rule does with what it fits.
    pub action: Action,
    /// The other ends that the rule fits; none means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<EffectivePeer>>,
    /// The destination ports that the rule fits; none means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<EffectivePort>>,
}

impl EffectiveRule {
    /// The rule in words, with `members` for how many endpoints a selector selects now, and `numbers` for the ports that a
    /// name stands for now (ascending, each once).
    pub fn new(
        rule: &Rule,
        mut members: impl FnMut(&EndpointSelector) -> usize,
        mut numbers: impl FnMut(Protocol, &str) -> Vec<u16>,
    ) -> Self {
        let peers = match &rule.peers {
            Peers::Any => None,
            Peers::Only(peers) => Some(
                peers
                    .iter()
                    .map(|peer| EffectivePeer {
                        text: peer.to_string(),
                        members: match peer {
                            Peer::Endpoints(selector) => Some(members(selector)),
                            Peer::Block { .. } => None,
                        },
                    })
                    .collect(),
            ),
        };
        let ports = match &rule.ports {
            Ports::Any => None,
            Ports::Only(ports) => Some(
                ports
                    .iter()
                    .map(|port| EffectivePort {
                        text: port.to_string(),
                        numbers: match port {
                            PortMatch::Named(protocol, name) => Some(numbers(*protocol, name)),
                            PortMatch::All(_) | PortMatch::Range(..) => None,
                        },
                    })
                    .collect(),
            ),
        };
        Self { action: rule.action, peers, ports }
    }
}

/// A peer of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePeer {
    /// The peer in words.
    pub text: String,
    /// How many endpoints the peer selects now; none for a block of addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
}

/// A port of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePort {
    /// The port in words.
    pub text: String,
    /// The numbers that a named port stands for now; none for other ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Vec<u16>>,
}

impl fmt::Display for Peer {
    /// `pods app=web in namespace shop`, `10.0.0.0/8 except 10.1.0.0/16`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(selector) => selector.fmt(f),
            Self::Block { cidr, except } if except.is_empty() => cidr.fmt(f),
            Self::Block { cidr, except } => {
                let except: Vec<_> = except.iter().map(ToString::to_string).collect();
                write!(f, "{cidr} except {}", except.join(", "))
            }
        }
    }
}

impl fmt::Display for EndpointSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.endpoints.is_empty() {
            f.write_str("all pods")?;
        } else {
            write!(f, "pods {}", self.endpoints)?;
        }
        match &self.namespaces {
            NamespaceSelector::Named(name) => write!(f, " in namespace {name}"),
            NamespaceSelector::Labelled(labels) if labels.is_empty() => f.write_str(" in all namespaces"),
            NamespaceSelector::Labelled(labels) => write!(f, " in namespaces {labels}"),
        }
    }
}

impl fmt::Display for PortMatch {
    /// `TCP 80`, `TCP 8000-8080`, `UDP dns`, `all SCTP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(protocol) => write!(f, "all {protocol}"),
            Self::Range(protocol, range) => write!(f, "{protocol} {range}"),
            Self::Named(protocol, name) => write!(f, "{protocol} {name}"),
        }
    }
}
