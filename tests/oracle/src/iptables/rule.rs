//! A rule, taken apart.

use crate::cidr::Cidr;

/// A rule of a chain. It fits a packet if all of its matches hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The matches, each with whether it was written with `!`.
    pub matches: Vec<(bool, Match)>,
    /// What happens to a packet that the rule fits; none if nothing does.
    pub target: Option<Target>,
    /// The text of the rule as it was written.
    pub text: String,
}

/// Two rules are equal if they say the same, however they are written: `-D` finds a rule by this.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.matches == other.matches && self.target == other.target
    }
}

impl Eq for Rule {}

/// One condition that a packet may meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// `-s`: the source lies in this range.
    Source(Cidr),
    /// `-d`: the destination lies in this range.
    Destination(Cidr),
    /// `-i`: the interface that the packet comes in by has this name, or with `+` a name that begins so.
    In(String),
    /// `-o`: the interface that the packet leaves by has this name, or with `+` a name that begins so.
    Out(String),
    /// `-p`: the protocol has this number.
    Protocol(u8),
    /// `--dport`, `--dports`: the destination port is in one of these ranges, both ends included.
    DestinationPorts(Vec<(u16, u16)>),
    /// `--sport`, `--sports`: the source port is in one of these ranges.
    SourcePorts(Vec<(u16, u16)>),
    /// `--ports`: the source or the destination port is in one of these ranges.
    AnyPorts(Vec<(u16, u16)>),
    /// `--tcp-flags MASK FLAGS`, `--syn`: of these TCP flags exactly those are set.
    TcpFlags {
        /// The flags that are looked at.
        mask: u8,
        /// Those of them that must be set; the others must not be.
        set: u8,
    },
    /// `--icmp-type`, `--icmpv6-type`: the ICMP type has this number.
    IcmpType(u8),
    /// `--ctstate`: connection tracking has put the packet into one of these states.
    State(States),
    /// `--match-set NAME FLAGS`: the set holds the packet's ends; a flag per dimension says whether it is the source.
    Set(String, Vec<bool>),
    /// `--mark VALUE/MASK`: the mark has this value in these bits.
    Mark {
        /// The value that is compared with.
        value: u32,
        /// The bits that are compared.
        mask: u32,
    },
    /// `-m rpfilter`: the way back to the source leads out of the interface that the packet came in by.
    ReversePath {
        /// `--invert`: the match holds if the way back leads elsewhere.
        inverted: bool,
    },
    /// `-m comment`: the match always holds, but is part of what identifies a rule.
    Comment(String),
}

/// A set of states, as bits: NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED; and DNAT, which any of them may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States(pub(super) u8);

impl States {
    /// DNAT: the connection's destination was translated.
    pub(super) const TRANSLATED: u8 = 1 << 7;
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The packet passes the chain of this table.
    Accept,
    /// The packet is dropped.
    Drop,
    /// The packet returns to the chain that jumped here; in a built-in chain the chain's policy decides.
    Return,
    /// The packet goes through another chain, and returns to behind this rule.
    Jump(String),
    /// The packet goes through another chain, and returns to where this chain would return to.
    Goto(String),
    /// `MARK --set-xmark VALUE/MASK`: the mark changes.
    Mark {
        /// The bits that are flipped after clearing.
        value: u32,
        /// The bits that are cleared.
        mask: u32,
    },
    /// `SET --map-set NAME FLAGS --map-mark`: the set gives the mark.
    MapMark(String, Vec<bool>),
    /// `NFLOG`: the packet is logged.
    Log,
    /// `MASQUERADE`: the packet's source is translated.
    Masquerade,
}
