//! What the compiler says and every backend understands: IP sets, classes of endpoints with rules, and who is in which
//! class.
//!
//! Nothing here knows a family beyond that of an address: a set has members of both, a backend keeps one set of its own
//! per family. Names are functions of what a thing is, so that a restarted agent finds its sets and classes in the kernel.

use std::fmt;
use std::net::IpAddr;

use types::Prefix;
use types::policy::{Direction, PortRange, Protocol};

/// A number that stands for endpoints that the same policies govern in the same way; it fits the mark's bits. Zero is
/// nobody's: an address without a class is unknown, and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(u16);

impl ClassId {
    /// Endpoints that no policy governs.
    pub const OPEN: Self = Self(1);

    /// The class of a number; none for zero.
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What a class is, as a hash that is the same in every life of the agent: by it a class keeps its number over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey(pub u64);

/// A set.
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
    /// What its members are.
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

/// The form of a set's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetShape {
    /// Single addresses.
    Addresses,
    /// Prefixes of any length; never of length zero.
    Nets,
    /// An address and a destination port.
    Ports,
}

/// A member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// Of a set of addresses or prefixes.
    Net(Prefix),
    /// Of a set of addresses with ports.
    Port(IpAddr, Protocol, u16),
}

/// One rule of a class, in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassRule {
    /// The other end.
    pub peer: PeerMatch,
    /// The destination port.
    pub port: PortClause,
    /// What becomes of a packet that fits.
    pub verdict: Verdict,
}

/// Which other ends a rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerMatch {
    /// Whoever.
    Any,
    /// Its address is in the set ([`SetShape::Addresses`] or [`SetShape::Nets`]).
    In(SetId),
    /// Its address together with the packet's protocol and destination port is in the set ([`SetShape::Ports`]). On
    /// egress the peer is the destination, on ingress the source.
    PortIn(SetId),
}

/// Which destination ports a rule fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortClause {
    /// All of all protocols.
    Any,
    /// All of one protocol.
    All(Protocol),
    /// Some of one protocol: ascending, apart from each other. A backend may need several rules for many.
    Ranges(Protocol, Vec<PortRange>),
}

/// What a rule does with a packet that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The class has no objection; the other direction is judged next.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The rules up to the one of this index are passed over: what is left of a tier. It is always behind this rule; the
    /// number of all rules means that none is left. Never given for a class that only `NetworkPolicy` governs.
    Pass(usize),
}

/// The rules of a direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// No policy governs it: everything passes.
    Open,
    /// In order; what no rule fits is dropped. Tiers and `Pass` are resolved by the compiler.
    Only(Vec<ClassRule>),
}

impl Rules {
    /// The rules; none of a direction that is open.
    pub const fn as_slice(&self) -> &[ClassRule] {
        match self {
            Self::Open => &[],
            Self::Only(rules) => rules.as_slice(),
        }
    }
}

/// What holds for the endpoints of a class. Where either direction is governed, a TCP packet that begins a connection
/// without being a plain SYN is dropped in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What it is, beyond its number.
    pub key: ClassKey,
    /// To them.
    pub ingress: Rules,
    /// From them.
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
    /// A set that is not there yet; `expected` members will follow.
    CreateSet {
        /// The set.
        set: SetId,
        /// How many members are known now.
        expected: usize,
    },
    /// A member that the set does not have.
    Add(SetId, Element),
    /// A member that it has.
    Remove(SetId, Element),
    /// The class as a whole, new or in the place of what it was.
    PutClass(ClassId, Class),
    /// The address belongs to the class, from nothing or from another class.
    Join(IpAddr, ClassId),
    /// The address belongs to none.
    Leave(IpAddr),
    /// Nobody is in the class any more.
    DropClass(ClassId),
    /// No rule speaks of the set any more; it goes with the members that it still has.
    DestroySet(SetId),
}
