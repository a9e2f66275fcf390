//! What is in IP sets. A set knows what its members are: a [`SetOf`] takes changes of members of its kind, and no others.
//!
//! ```
//! # use kernel::acl::{ElementChange, SetName, SetOf};
//! # use types::Prefix;
//! let pools = SetOf::<Prefix>::new(SetName::new("manx-pools4")?);
//! let pool: Prefix = "10.65.0.0/16".parse()?;
//! let changes = pools.changes([ElementChange::Put(pool)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```compile_fail,E0271
//! # use kernel::acl::{AddressPort, ElementChange, SetName, SetOf};
//! # use types::{Prefix, policy::Protocol};
//! let pools = SetOf::<Prefix>::new(SetName::new("manx-pools4")?);
//! let port = AddressPort { address: [10, 65, 0, 5].into(), protocol: Protocol::Tcp, port: 80 };
//! let changes = pools.changes([ElementChange::Put(port)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use types::policy::Protocol;
use types::{Family, InterfaceName, Prefix};

use super::SetName;

/// How many members one call puts into a set that is a copy.
const CHANGES_PER_CALL: usize = 4_096;

/// The types of sets that Manx makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `hash:ip`, of [`IpAddr`].
    Addresses,
    /// `hash:net`, of [`Prefix`].
    Nets,
    /// `hash:ip,port`, of [`AddressPort`].
    Ports,
    /// `hash:ip skbinfo`, of [`MarkedAddress`].
    Marks,
    /// `hash:ip counters`, of [`CountedAddress`].
    Counted,
    /// `hash:net,iface`, of [`AddressHome`].
    Homes,
}

/// What a set can have as members: one type for each [`SetKind`]. Nothing else can be one.
pub trait Element: Copy + Ord + fmt::Debug + Into<SetElement> + TryFrom<SetElement> + sealed::Sealed {
    /// The kind of set that has such members.
    const KIND: SetKind;
}

/// An address, and a port of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPort {
    /// The address.
    pub address: IpAddr,
    /// Whose port.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// An address with the mark that `SET --map-set ... --map-mark` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkedAddress {
    /// The address.
    pub address: IpAddr,
    /// The mark.
    pub mark: u32,
    /// The bits that it sets.
    pub mask: u32,
}

/// An address of which the set counts by how many packets it has been matched ([`Sets::packets`](super::Sets::packets)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountedAddress(pub IpAddr);

/// An address with the interface that it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressHome {
    /// The address.
    pub address: IpAddr,
    /// The interface.
    pub interface: LinkName,
}

/// A member of a set of whatever kind, as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetElement {
    /// Of [`SetKind::Addresses`].
    Address(IpAddr),
    /// Of [`SetKind::Nets`]; the length is not zero.
    Net(Prefix),
    /// Of [`SetKind::Ports`].
    Port(AddressPort),
    /// Of [`SetKind::Marks`].
    Mark(MarkedAddress),
    /// Of [`SetKind::Counted`].
    Counted(CountedAddress),
    /// Of [`SetKind::Homes`].
    Home(AddressHome),
}

mod sealed {
    /// Only the types of this file are members.
    pub trait Sealed {}
}

/// Says of each type of members which variant it is, and of which kind of sets.
macro_rules! elements {
    ($($element:ty: $variant:ident of $kind:ident;)*) => {$(
        impl sealed::Sealed for $element {}

        impl Element for $element {
            const KIND: SetKind = SetKind::$kind;
        }

        impl From<$element> for SetElement {
            fn from(element: $element) -> Self {
                Self::$variant(element)
            }
        }

        impl TryFrom<SetElement> for $element {
            /// A member of another kind, as it was given.
            type Error = SetElement;

            fn try_from(element: SetElement) -> Result<Self, SetElement> {
                if let SetElement::$variant(element) = element { Ok(element) } else { Err(element) }
            }
        }
    )*};
}

elements! {
    IpAddr: Address of Addresses;
    Prefix: Net of Nets;
    AddressPort: Port of Ports;
    MarkedAddress: Mark of Marks;
    CountedAddress: Counted of Counted;
    AddressHome: Home of Homes;
}

impl SetElement {
    /// The family of its address.
    pub fn family(&self) -> Family {
        match self {
            Self::Address(address)
            | Self::Port(AddressPort { address, .. })
            | Self::Mark(MarkedAddress { address, .. })
            | Self::Counted(CountedAddress(address))
            | Self::Home(AddressHome { address, .. }) => Family::of(*address),
            Self::Net(prefix) => prefix.family(),
        }
    }

    /// The kind of set that has such members.
    pub const fn kind(&self) -> SetKind {
        match self {
            Self::Address(_) => SetKind::Addresses,
            Self::Net(_) => SetKind::Nets,
            Self::Port(_) => SetKind::Ports,
            Self::Mark(_) => SetKind::Marks,
            Self::Counted(_) => SetKind::Counted,
            Self::Home(_) => SetKind::Homes,
        }
    }
}

impl fmt::Display for SetElement {
    /// As `ipset` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) | Self::Counted(CountedAddress(address)) => write!(f, "{address}"),
            Self::Home(AddressHome { address, interface }) => write!(f, "{address},{interface}"),
            Self::Net(prefix) => write!(f, "{prefix}"),
            Self::Port(AddressPort { address, protocol, port }) => {
                write!(f, "{address},{}:{port}", protocol.to_string().to_lowercase())
            }
            Self::Mark(MarkedAddress { address, mark, mask }) => write!(f, "{address} skbmark {mark:#x}/{mask:#x}"),
        }
    }
}

/// One change of a set's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementChange<E = SetElement> {
    /// Adds the member; one that is there already is overwritten in place (its mark), never absent in between.
    Put(E),
    /// Takes it away; one that is absent is success.
    Delete(E),
}

impl<E: Copy> ElementChange<E> {
    /// Adds the member, or takes it away.
    pub const fn new(element: E, is_put: bool) -> Self {
        if is_put { Self::Put(element) } else { Self::Delete(element) }
    }

    /// The member that it is about.
    pub const fn element(&self) -> E {
        match self {
            Self::Put(element) | Self::Delete(element) => *element,
        }
    }

    /// Whether it adds.
    pub const fn is_put(&self) -> bool {
        matches!(self, Self::Put(_))
    }
}

/// A set by its name, all of whose members are of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetOf<E> {
    name: SetName,
    members: PhantomData<E>,
}

impl<E: Element> SetOf<E> {
    /// The set of this name is one of such members.
    pub const fn new(name: SetName) -> Self {
        Self { name, members: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &SetName {
        &self.name
    }

    /// Changes of its members, in order.
    pub fn changes(&self, changes: impl IntoIterator<Item = ElementChange<E>>) -> SetChanges {
        let any = |change: ElementChange<E>| ElementChange::new(change.element().into(), change.is_put());
        SetChanges { set: self.name.clone(), changes: changes.into_iter().map(any).collect() }
    }
}

/// A set and changes of its members, in order. It is made by a set that knows what its members are ([`SetOf::changes`]), so
/// all of them are of the set's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetChanges {
    set: SetName,
    changes: Vec<ElementChange>,
}

impl SetChanges {
    /// The set.
    pub const fn set(&self) -> &SetName {
        &self.set
    }

    /// The changes.
    pub fn as_slice(&self) -> &[ElementChange] {
        &self.changes
    }

    /// What puts these members of a set into another that is made as the same, so many at a time.
    pub(super) fn copying(members: &[SetElement], copy: &SetName) -> impl Iterator<Item = Self> {
        members
            .chunks(CHANGES_PER_CALL)
            .map(|piece| Self { set: copy.clone(), changes: piece.iter().copied().map(ElementChange::Put).collect() })
    }

    /// The same changes of another set that is made as the same.
    pub(super) fn moved_to(&self, copy: &SetName) -> Self {
        Self { set: copy.clone(), changes: self.changes.clone() }
    }
}

/// The name of an interface as a set keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName([u8; libc::IFNAMSIZ]);

impl LinkName {
    /// From its octets; none where they are no name of an interface (IFNAMSIZ less the octet that ends it).
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut octets = [0; libc::IFNAMSIZ];
        let fits = (1..libc::IFNAMSIZ).contains(&name.len()) && !name.contains(&0);
        octets.iter_mut().zip(name).for_each(|(octet, given)| *octet = *given);
        fits.then_some(Self(octets))
    }

    fn octets(&self) -> &[u8] {
        self.0.split(|octet| *octet == 0).next().unwrap_or_default()
    }
}

impl From<&InterfaceName> for LinkName {
    fn from(name: &InterfaceName) -> Self {
        // A name of that type fits.
        Self::new(name.as_str().as_bytes()).unwrap_or(Self([0; libc::IFNAMSIZ]))
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.octets()))
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
