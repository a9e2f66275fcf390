//! The names of what is ours in the kernel: chains of at most 28 octets, sets of at most 31, all beginning with `manx-`.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use kernel::acl::{
    AddressHome, AddressPort, CountedAddress, Element, ElementChange, MarkedAddress, SetChanges, SetKind, SetName,
    SetOf,
};
use types::policy::Direction;
use types::{Family, Prefix};

use crate::policy::program::{ClassId, SetId, SetShape};

/// How every name of ours begins.
pub(crate) const PREFIX: &str = kernel::ours::ACL_PREFIX;

/// From the hook of mangle FORWARD.
pub(crate) const FORWARD: &str = "manx-forward";
/// From the hook of mangle INPUT.
pub(crate) const INPUT: &str = "manx-input";
/// What comes from pods.
pub(crate) const FROM: &str = "manx-from";
/// What goes to pods.
pub(crate) const TO: &str = "manx-to";
/// What comes from pods and goes on: what is closed to them whatever policies say.
pub(crate) const GUARD: &str = "manx-guard";
/// The same of what comes from pods to their own node.
pub(crate) const GUARD_INPUT: &str = "manx-guard-in";
/// The end of what is closed to pods whatever policies say.
pub(crate) const REFUSE: &str = "manx-refuse";
/// From the hook of raw PREROUTING.
pub(crate) const RAW: &str = "manx-raw";
/// The end of what a class does not let pass: counted, and dropped.
pub(crate) const fn drop_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "manx-drop-in",
        Direction::Egress => "manx-drop-out",
    }
}
/// From the hook of mangle POSTROUTING.
pub(crate) const SERVICES: &str = "manx-services";
/// From the hook of nat POSTROUTING.
pub(crate) const NAT: &str = "manx-nat";

/// A chain of a version of a class: the one of a direction, or a part of it that rules of an earlier part lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassChain {
    /// Whose traffic it judges.
    pub(crate) direction: Direction,
    /// The index of the class's rule that it begins with; zero for the whole.
    pub(crate) part: usize,
}

impl ClassChain {
    /// The chain that dispatch leads to.
    pub(crate) const fn whole(direction: Direction) -> Self {
        Self { direction, part: 0 }
    }

    /// Its name under a mark number, or under what stands for one that is not known yet.
    pub(crate) fn name(self, number: impl fmt::Display) -> String {
        let letter = match self.direction {
            Direction::Ingress => 'i',
            Direction::Egress => 'e',
        };
        match self.part {
            0 => format!("{PREFIX}{letter}-{number}"),
            part => format!("{PREFIX}{letter}-{number}-{part}"),
        }
    }

    /// The chain of a name, and its mark number.
    pub(crate) fn parse(name: &str) -> Option<(Self, u16)> {
        let (direction, rest) = match name.strip_prefix(PREFIX)?.split_once('-')? {
            ("i", rest) => (Direction::Ingress, rest),
            ("e", rest) => (Direction::Egress, rest),
            _ => return None,
        };
        let (number, part) = match rest.split_once('-') {
            None => (rest, 0),
            Some((number, part)) => (number, part.parse().ok().filter(|part| *part > 0)?),
        };
        Some((Self { direction, part }, number.parse().ok()?))
    }
}

/// The chain of a branch of the dispatch tree below `root`.
pub(crate) fn branch_chain(root: &str, branch: u16) -> String {
    format!("{root}-{branch:x}")
}

/// A set of ours in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SetRef {
    /// Which mark number each local address is mapped to.
    Marks(Family),
    /// The interface that each local address is behind.
    Homes(Family),
    /// Local addresses, with how many packets to or from each a policy dropped.
    Drops(Direction, Family),
    /// Ports that are closed to pods, each at its address: those of nodes and of configured peers.
    Speakers(Family),
    /// Local addresses of the pods that this node peers with.
    Routers(Family),
    /// All pools.
    Pools(Family),
    /// Pools from which masquerade leads out.
    Masquerade(Family),
    /// A set of the compiler's.
    Program(SetId, Family),
}

impl SetRef {
    /// Those that the first rules speak of.
    pub(crate) const fn base(family: Family) -> [Self; 6] {
        [
            Self::Marks(family),
            Self::Homes(family),
            Self::Speakers(family),
            Self::Routers(family),
            Self::Drops(Direction::Ingress, family),
            Self::Drops(Direction::Egress, family),
        ]
    }

    /// The family of its members.
    pub(crate) const fn family(self) -> Family {
        match self {
            Self::Marks(family)
            | Self::Homes(family)
            | Self::Drops(_, family)
            | Self::Speakers(family)
            | Self::Routers(family)
            | Self::Pools(family)
            | Self::Masquerade(family)
            | Self::Program(_, family) => family,
        }
    }

    /// Of which kind it is: the one that its [`OwnSet`] says.
    pub(crate) const fn kind(self) -> SetKind {
        match self {
            Self::Marks(family) => OwnSet::marks(family).kind(),
            Self::Homes(family) => OwnSet::homes(family).kind(),
            Self::Drops(direction, family) => OwnSet::drops(direction, family).kind(),
            Self::Speakers(family) => OwnSet::speakers(family).kind(),
            Self::Routers(family) => OwnSet::routers(family).kind(),
            Self::Pools(family) => OwnSet::pools(family).kind(),
            Self::Masquerade(family) => OwnSet::masquerade(family).kind(),
            Self::Program(set, family) => match ProgramSet::new(set, family) {
                ProgramSet::Addresses(set) => set.kind(),
                ProgramSet::Nets(set) => set.kind(),
                ProgramSet::Ports(set) => set.kind(),
            },
        }
    }

    /// Its name.
    pub(crate) fn kernel_name(self) -> SetName {
        name(self.to_string())
    }

    /// The name of a larger copy, while there is one.
    pub(crate) fn larger_name(self) -> SetName {
        name(format!("{self}~"))
    }

    /// Reads a name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix(PREFIX)?;
        let fixed = Family::ALL
            .into_iter()
            .flat_map(|family| Self::base(family).into_iter().chain([Self::Pools(family), Self::Masquerade(family)]));
        if let Some(set) = fixed.into_iter().find(|set| set.to_string().strip_prefix(PREFIX) == Some(name)) {
            return Some(set);
        }
        let family = match name.get(..1)? {
            "4" => Family::Ipv4,
            "6" => Family::Ipv6,
            _ => return None,
        };
        let (kind, id) = (name.get(1..2)?, name.get(2..)?);
        let hash = || u64::from_str_radix(id, 16).ok();
        let class = || ClassId::new(id.parse().ok()?);
        let set = match kind {
            "i" => SetId::Narrow(class()?, Direction::Ingress),
            "e" => SetId::Narrow(class()?, Direction::Egress),
            "s" => SetId::Selector(hash()?),
            "p" => SetId::SelectorPort(hash()?),
            "b" => SetId::Block(hash()?),
            _ => return None,
        };
        Some(Self::Program(set, family)).filter(|set| set.to_string().strip_prefix(PREFIX) == Some(name))
    }
}

impl fmt::Display for SetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = digit(self.family());
        match self {
            Self::Marks(_) => write!(f, "{PREFIX}c{digit}"),
            Self::Homes(_) => write!(f, "{PREFIX}homes{digit}"),
            Self::Drops(Direction::Ingress, _) => write!(f, "{PREFIX}drops-in{digit}"),
            Self::Drops(Direction::Egress, _) => write!(f, "{PREFIX}drops-out{digit}"),
            Self::Speakers(_) => write!(f, "{PREFIX}speakers{digit}"),
            Self::Routers(_) => write!(f, "{PREFIX}routers{digit}"),
            Self::Pools(_) => write!(f, "{PREFIX}pools{digit}"),
            Self::Masquerade(_) => write!(f, "{PREFIX}masq{digit}"),
            Self::Program(set, _) => write!(f, "{PREFIX}{digit}{set}"),
        }
    }
}

/// A set of ours that knows what its members are: here alone it is said of which kind each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnSet<E> {
    set: SetRef,
    members: PhantomData<E>,
}

impl OwnSet<MarkedAddress> {
    /// See [`SetRef::Marks`].
    pub(crate) const fn marks(family: Family) -> Self {
        Self::of(SetRef::Marks(family))
    }
}

impl OwnSet<AddressHome> {
    /// See [`SetRef::Homes`].
    pub(crate) const fn homes(family: Family) -> Self {
        Self::of(SetRef::Homes(family))
    }
}

impl OwnSet<CountedAddress> {
    /// See [`SetRef::Drops`].
    pub(crate) const fn drops(direction: Direction, family: Family) -> Self {
        Self::of(SetRef::Drops(direction, family))
    }
}

impl OwnSet<AddressPort> {
    /// See [`SetRef::Speakers`].
    pub(crate) const fn speakers(family: Family) -> Self {
        Self::of(SetRef::Speakers(family))
    }
}

impl OwnSet<IpAddr> {
    /// See [`SetRef::Routers`].
    pub(crate) const fn routers(family: Family) -> Self {
        Self::of(SetRef::Routers(family))
    }
}

impl OwnSet<Prefix> {
    /// See [`SetRef::Pools`].
    pub(crate) const fn pools(family: Family) -> Self {
        Self::of(SetRef::Pools(family))
    }

    /// See [`SetRef::Masquerade`].
    pub(crate) const fn masquerade(family: Family) -> Self {
        Self::of(SetRef::Masquerade(family))
    }
}

/// A set of the compiler's in one family, by what its members are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProgramSet {
    /// Of [`SetShape::Addresses`].
    Addresses(OwnSet<IpAddr>),
    /// Of [`SetShape::Nets`].
    Nets(OwnSet<Prefix>),
    /// Of [`SetShape::Ports`].
    Ports(OwnSet<AddressPort>),
}

impl ProgramSet {
    /// See [`SetRef::Program`].
    pub(crate) const fn new(set: SetId, family: Family) -> Self {
        let set_ref = SetRef::Program(set, family);
        match set.shape() {
            SetShape::Addresses => Self::Addresses(OwnSet::of(set_ref)),
            SetShape::Nets => Self::Nets(OwnSet::of(set_ref)),
            SetShape::Ports => Self::Ports(OwnSet::of(set_ref)),
        }
    }
}

impl<E: Element> OwnSet<E> {
    const fn of(set: SetRef) -> Self {
        Self { set, members: PhantomData }
    }

    /// Which set it is.
    pub(crate) const fn set_ref(self) -> SetRef {
        self.set
    }

    const fn kind(self) -> SetKind {
        E::KIND
    }

    /// Changes of its members, in order.
    pub(crate) fn changes(self, changes: impl IntoIterator<Item = ElementChange<E>>) -> SetChanges {
        SetOf::new(self.set.kernel_name()).changes(changes)
    }
}

#[expect(clippy::expect_used, reason = "a test goes through all forms of names")]
fn name(text: String) -> SetName {
    SetName::new(text).expect("our names are names")
}

/// `4` or `6`.
const fn digit(family: Family) -> char {
    match family {
        Family::Ipv4 => '4',
        Family::Ipv6 => '6',
    }
}

#[cfg(test)]
mod tests;
