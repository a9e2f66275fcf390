//! The part of the kernel that filters: IP sets, iptables, connection tracking. What is in them is the caller's business.
//!
//! ```text
//!   felix::acl ──┬──► trait Sets         IP sets by raw netlink (ipset's protocol over NFNL_SUBSYS_IPSET)
//!                ├──► trait Tables       iptables-save and iptables-restore as processes
//!                ├──► trait Connections  conntrack by raw netlink
//!                └──► RuleEvents         nftables generations; DropLog: NFLOG
//! ```

use std::net::IpAddr;
use std::time::Duration;

use types::policy::Protocol;
use types::{Family, Prefix};

use crate::KernelError;

/// The name of an IP set: at most 31 octets (IPSET_MAXNAMELEN less its end), printable, without spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(pub(crate) String);

/// What a set is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec {
    /// The type.
    pub kind: SetKind,
    /// The family of its members.
    pub family: Family,
    /// How many members it may have.
    pub max_elements: u32,
    /// How many buckets it begins with; a power of two, the kernel rounds up.
    pub hash_size: u32,
}

/// The types of sets that Manx makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `hash:ip`.
    Addresses,
    /// `hash:net`.
    Nets,
    /// `hash:ip,port`.
    Ports,
    /// `hash:ip skbinfo`: each address with a mark.
    Marks,
}

/// A member of a set; its form must be that of the set's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetElement {
    /// Of [`SetKind::Addresses`].
    Address(IpAddr),
    /// Of [`SetKind::Nets`]; the length is not zero.
    Net(Prefix),
    /// Of [`SetKind::Ports`].
    Port(IpAddr, Protocol, u16),
    /// Of [`SetKind::Marks`]: the mark that `SET --map-set ... --map-mark` gives, and its mask.
    Mark {
        /// The address.
        address: IpAddr,
        /// The mark.
        mark: u32,
        /// The bits that it sets.
        mask: u32,
    },
}

/// One change of a set's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementChange {
    /// Adds the member; one that is there already is overwritten in place (its mark), never absent in between.
    Put(SetElement),
    /// Takes it away; one that is absent is success.
    Delete(SetElement),
}

/// A change that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementFailure {
    /// Its place in the changes given.
    pub index: usize,
    /// Why. A full set is [`KernelError::Full`].
    pub error: KernelError,
}

/// A set as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetHeader {
    /// The name.
    pub name: SetName,
    /// What it is; none for a type that Manx does not make.
    pub spec: Option<SetSpec>,
    /// How many rules and sets refer to it.
    pub references: u32,
    /// How many members it has.
    pub elements: u32,
}

/// IP sets of a network namespace.
pub trait Sets: Send {
    /// All sets, others' too, without members.
    fn sets(&mut self) -> Result<Vec<SetHeader>, KernelError>;

    /// The members of a set. [`KernelError::Gone`] if there is none of that name.
    fn elements(&mut self, set: &SetName) -> Result<Vec<SetElement>, KernelError>;

    /// Makes a set. [`KernelError::Exists`] if the name is taken.
    fn create_set(&mut self, set: &SetName, spec: &SetSpec) -> Result<(), KernelError>;

    /// Deletes a set; an absent one is success. [`KernelError::Busy`] while a rule refers to it.
    fn destroy_set(&mut self, set: &SetName) -> Result<(), KernelError>;

    /// Exchanges the contents of two sets of one type (to give one a larger size under the rules that use it).
    fn swap_sets(&mut self, one: &SetName, other: &SetName) -> Result<(), KernelError>;

    /// Carries out all changes in order, batched, and answers those that failed; a failure does not stop the ones behind it.
    fn change_elements(&mut self, set: &SetName, changes: &[ElementChange])
    -> Result<Vec<ElementFailure>, KernelError>;
}

/// Which of the two implementations of iptables is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IptablesVariant {
    /// `iptables-nft`: over nftables.
    Nft,
    /// `iptables-legacy`: the older tables, changed as a whole under a lock.
    Legacy,
}

/// iptables of a network namespace.
pub trait Tables: Send {
    /// The variant in use.
    fn variant(&self) -> IptablesVariant;

    /// What `iptables-save -t TABLE` prints, without counters (with them where `counters`).
    fn save(&mut self, family: Family, table: &str, counters: bool) -> Result<String, KernelError>;

    /// Gives the text to `iptables-restore --noflush`: all of it is in force afterwards, or nothing of a table.
    fn restore(&mut self, family: Family, text: &str) -> Result<(), KernelError>;
}

/// A tracked connection, by the tuples of both directions. Both are as on the wire: the reply tuple is the one after NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// As it began.
    pub original: Tuple,
    /// As answers look.
    pub reply: Tuple,
    /// The zone; zero unless somebody configured zones.
    pub zone: u16,
    /// The kernel's id of the entry, where it gives one: a deletion that names it does not hit a successor.
    pub id: Option<u32>,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// The number of the IP protocol.
    pub protocol: u8,
    /// Port of the source; zero where the protocol has none.
    pub source_port: u16,
    /// Port of the destination.
    pub destination_port: u16,
}

/// Connection tracking of a network namespace.
pub trait Connections: Send {
    /// All entries of a family.
    fn connections(&mut self, family: Family) -> Result<Vec<Connection>, KernelError>;

    /// Deletes one; an absent one is success.
    fn delete_connection(&mut self, connection: &Connection) -> Result<(), KernelError>;
}

/// How long a program of iptables may take before it is ended and counts as failed.
pub const TABLES_PATIENCE: Duration = Duration::from_secs(10);
