//! What the compiler says and every backend understands: IP sets, classes of endpoints with rules, and the class of
//! each address.
//!
//! Nothing here knows a family beyond that of an address: a set has members of both, a backend keeps one set of its own
//! per family. Names are functions of what a thing is, so that a restarted agent finds its sets and classes in the kernel.

use std::fmt;
use std::net::IpAddr;

use types::Prefix;
use types::policy::{Direction, PortRange, Protocol};

/// A number that stands for endpoints that the same policies govern in the same way; it fits into the bits of the mark.
/// No class has the number zero: an address without a class is unknown, and its packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(u16);

impl ClassId {
    /// The class of the endpoints that no policy governs.
    pub const OPEN: Self = Self(1);

    /// The class with this number; none for zero.
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number of the class.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What a class is, as a hash that is the same in every life of the agent: by it a class keeps its number over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey(pub u64);

/// Names a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetId {
    /// Peers and destination ports that one class allows in one direction: the narrow encoding. Members are
    /// [`Element::Port`].
    Narrow(ClassId, Direction),
    /// The addresses of the endpoints that a selector selects, shared by all classes: the broad encoding. By the hash of
    /// the selector. Members are [`Element::Net`] of full length.
    Selector(u64),
    /// The endpoints that a selector selects and that have a named port, each with that port. By the hash of selector,
    /// protocol and name. Members are [`Element::Port`].
    SelectorPort(u64),
    /// A block of addresses without its holes, as prefixes that do not overlap. By the hash of the block. Members are
    /// [`Element::Net`].
    Block(u64),
}

impl SetId {
    /// What kind of members the set has.
    pub const fn shape(self) -> SetShape {
        match self {
            Self::Narrow(..) | Self::SelectorPort(_) => SetShape::Ports,
            Self::Selector(_) => SetShape::Addresses,
            Self::Block(_) => SetShape::Nets,
        }
    }
}

impl fmt::Display for SetId {
    /// The middle of a set's name: short, and without a character that ipset does not take.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Narrow(class, Direction::Ingress) => write!(f, "i{}", class.number()),
            Self::Narrow(class, Direction::Egress) => write!(f, "e{}", class.number()),
            Self::Selector(hash) => write!(f, "s{hash:016x}"),
            Self::SelectorPort(hash) => write!(f, "p{hash:016x}"),
            Self::Block(hash) => write!(f, "b{hash:016x}"),
        }
    }
}

/// What the members of a set look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetShape {
    /// Each member is one address.
    Addresses,
    /// Each member is a prefix of any length except zero.
    Nets,
    /// Each member is an address with a destination port.
    Ports,
}

/// One member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A member of a set of addresses or of prefixes.
    Net(Prefix),
    /// A member of a set of addresses with ports.
    Port(IpAddr, Protocol, u16),
}

/// One rule of a class, in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassRule {
    /// Which other ends the rule fits.
    pub peer: PeerMatch,
    /// Which destination ports the rule fits.
    pub port: PortClause,
    /// What becomes of a packet that the rule fits.
    pub verdict: Verdict,
}

/// The other ends that a rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerMatch {
    /// The rule fits every other end.
    Any,
    /// The address of the other end is in the set ([`SetShape::Addresses`] or [`SetShape::Nets`]).
    In(SetId),
    /// The address of the other end, with the packet's protocol and destination port, is in the set
    /// ([`SetShape::Ports`]). On egress the other end is the destination, on ingress the source.
    PortIn(SetId),
}

/// The destination ports that a rule fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortClause {
    /// The rule fits every port of every protocol.
    Any,
    /// The rule fits every port of one protocol.
    All(Protocol),
    /// The rule fits some ports of one protocol: the ranges are ascending and do not touch. A backend may need several
    /// rules for many ranges.
    Ranges(Protocol, Vec<PortRange>),
}

/// What a rule does with a packet that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The class lets the packet pass; the rules of the other direction are judged next.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The packet skips what is left of its tier and goes on at the rule of this index. The index is always behind this
    /// rule; if it equals the number of rules, none is left. A class that only `NetworkPolicy` governs has no such
    /// rule.
    Pass(usize),
}

/// The rules of one direction of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// No policy governs the direction: everything passes.
    Open,
    /// The rules, in the order in which they are judged; a packet that none of them fits is dropped. The compiler has
    /// resolved tiers and `Pass`.
    Only(Vec<ClassRule>),
}

impl Rules {
    /// The rules as a list; an open direction has none.
    pub const fn as_slice(&self) -> &[ClassRule] {
        match self {
            Self::Open => &[],
            Self::Only(rules) => rules.as_slice(),
        }
    }
}

/// The rules for the endpoints of a class. Where either direction is governed, a TCP packet that begins a connection
/// without being a plain SYN is dropped in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// The hash of what the class is, by which a restarted agent finds it again.
    pub key: ClassKey,
    /// The rules for packets to the endpoints.
    pub ingress: Rules,
    /// The rules for packets from the endpoints.
    pub egress: Rules,
}

/// One step from what is in force to what should be, to be taken in the order in which they are given.
///
/// However few of them have been taken, either end of a flow allows only what one of the states allows that the updates
/// have gone through since the last list, and forbids nothing that all of them allow. The two ends of a flow change one
/// after the other, as they do when they are on two nodes. All this is promised for `NetworkPolicy`; of rules that deny or
/// pass only the end of the list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates a set that does not exist yet; changes that add its `expected` members follow.
    CreateSet {
        /// The set to create.
        set: SetId,
        /// How many members of the set are known now.
        expected: usize,
    },
    /// Adds a member that the set does not have.
    Add(SetId, Element),
    /// Removes a member that the set has.
    Remove(SetId, Element),
    /// Writes a whole class, whether it is new or replaces an earlier version.
    PutClass(ClassId, Class),
    /// Puts the address into the class, whether it had none or another one before.
    Join(IpAddr, ClassId),
    /// Takes the address out of its class, so that it has none.
    Leave(IpAddr),
    /// Removes a class that has no members any more.
    DropClass(ClassId),
    /// Destroys a set that no rule names any more, with the members that it still has.
    DestroySet(SetId),
}
