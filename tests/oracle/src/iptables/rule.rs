//! A rule, taken apart.

use crate::cidr::Cidr;

/// A rule: all matches must hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What must hold, each with whether it was written with `!`.
    pub matches: Vec<(bool, Match)>,
    /// What then happens; none: nothing.
    pub target: Option<Target>,
    /// As it was written.
    pub text: String,
}

/// Equal rules say the same, however they are written: by that `-D` finds one.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.matches == other.matches && self.target == other.target
    }
}

impl Eq for Rule {}

/// One match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// `-s`
    Source(Cidr),
    /// `-d`
    Destination(Cidr),
    /// `-i`: a name, or with `+` the beginning of one.
    In(String),
    /// `-o`
    Out(String),
    /// `-p`
    Protocol(u8),
    /// `--dport`, `--dports`: ranges, both ends included.
    DestinationPorts(Vec<(u16, u16)>),
    /// `--sport`, `--sports`
    SourcePorts(Vec<(u16, u16)>),
    /// `--ports`: either of the two.
    AnyPorts(Vec<(u16, u16)>),
    /// `--tcp-flags MASK FLAGS`, `--syn`
    TcpFlags {
        /// The bits looked at.
        mask: u8,
        /// Those of them that are set, and no other.
        set: u8,
    },
    /// `--icmp-type`, `--icmpv6-type`
    IcmpType(u8),
    /// `--ctstate`
    State(States),
    /// `--match-set NAME FLAGS`: per dimension, whether it is the source's.
    Set(String, Vec<bool>),
    /// `--mark VALUE/MASK`
    Mark {
        /// The value.
        value: u32,
        /// The bits compared.
        mask: u32,
    },
    /// `-m rpfilter`: the way back to the source leads out of the interface that the packet came in by.
    ReversePath {
        /// `--invert`: it does not.
        inverted: bool,
    },
    /// `-m comment`: always holds, but is part of what a rule is.
    Comment(String),
}

/// A set of states, as bits: NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States(pub(super) u8);

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The packet passes this table's chain.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that jumped here; from a chain of the kernel's own, to its policy.
    Return,
    /// Through another chain, and back to behind this rule.
    Jump(String),
    /// Through another chain, and back to where this one would go back to.
    Goto(String),
    /// `MARK --set-xmark VALUE/MASK`
    Mark {
        /// What is flipped in after clearing.
        value: u32,
        /// What is cleared.
        mask: u32,
    },
    /// `SET --map-set NAME FLAGS --map-mark`
    MapMark(String, Vec<bool>),
    /// `NFLOG`
    Log,
    /// `MASQUERADE`
    Masquerade,
}
