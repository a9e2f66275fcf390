//! The part of the kernel that filters: IP sets, iptables, connection tracking. What is in them is the caller's business.
//!
//! ```text
//!   felix::acl ──┬──► trait Sets ─────────── LinuxSets        ipset's protocol over netlink
//!                ├──► trait Tables ───────── Iptables         iptables-save and -restore as processes
//!                ├──► trait Connections ──── ConnectionTable  conntrack over netlink
//!                └──► trait RuleEvents ───── NftEvents        nftables' notifications, a waker, a timeout
//!   agent ──────────► DropLog                                 packets that rules logged with NFLOG
//! ```
//!
//! Each has a fake (feature "fake", `kernel::fake::acl`); those of one `FakeAcl` share a world, in
//! which a rule holds the sets that it names.

mod connections;
mod drop_log;
mod elements;
mod events;
mod iptables;
mod nfnetlink;
mod packet;
mod remains;
mod sets;

pub mod saved;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use types::Family;
pub use types::config::IptablesVariant;
use types::policy::Protocol;

use crate::KernelError;

pub use connections::ConnectionTable;
pub use drop_log::{DropLog, LogEvent, LoggedPacket};
pub use elements::{
    AddressHome, AddressPort, CountedAddress, Element, ElementChange, LinkName, MarkedAddress, SetChanges, SetElement,
    SetKind, SetOf,
};
pub use events::{NftEvents, RuleChange, RuleChangeKind, RuleEvent, RuleEvents};
pub use iptables::{Iptables, OwnRestores};
pub use packet::{Icmp, Packet};
pub use remains::{ForeignRule, Remains};
pub use sets::LinuxSets;

/// The name of an IP set: at most 31 octets (IPSET_MAXNAMELEN less its end), printable ASCII without spaces and commas
/// (`--match-set` and `ipset restore` would cut it there).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(String);

/// A text that is no name of a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of an IP set: 1 to {MAX} printable octets without spaces and commas", MAX = SetName::MAX_OCTETS)]
pub struct SetNameError(String);

impl SetName {
    /// IPSET_MAXNAMELEN less the octet that ends the name.
    pub const MAX_OCTETS: usize = 31;

    /// Checks the name.
    pub fn new(name: impl Into<String>) -> Result<Self, SetNameError> {
        let name = name.into();
        let fits = (1..=Self::MAX_OCTETS).contains(&name.len());
        let plain = name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b',' && octet != b'"');
        // `-` at the head would be read as an option.
        if fits && plain && !name.starts_with('-') { Ok(Self(name)) } else { Err(SetNameError(name)) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a set is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec {
    /// The type.
    pub kind: SetKind,
    /// The family of its members.
    pub family: Family,
    /// How many members it may have.
    pub max_elements: u32,
    /// How many buckets it begins with; a power of two, the kernel rounds up. What a listing gives is how many it has now.
    pub hash_size: u32,
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

    /// How many packets each member of a set of [`SetKind::Counted`] has been matched by since it was put there; nothing of
    /// sets of other kinds. [`KernelError::Gone`] if there is none of that name.
    fn packets(&mut self, set: &SetName) -> Result<Vec<(IpAddr, u64)>, KernelError>;

    /// Makes a set. [`KernelError::Exists`] if the name is taken, whatever the other one is.
    fn create_set(&mut self, set: &SetName, spec: &SetSpec) -> Result<(), KernelError>;

    /// Deletes a set; an absent one is success. [`KernelError::Busy`] while a rule refers to it.
    fn destroy_set(&mut self, set: &SetName) -> Result<(), KernelError>;

    /// Exchanges the contents of two sets of one type (to give one a larger size under the rules that use it).
    /// [`KernelError::Gone`] if either is absent, [`KernelError::Rejected`] if they differ in type or family.
    fn swap_sets(&mut self, one: &SetName, other: &SetName) -> Result<(), KernelError>;

    /// Carries out all changes in order, batched, and answers those that failed, in order; a failure does not stop the ones
    /// behind it. An absent set is [`KernelError::Gone`] as a whole; any other error as a whole means that the socket
    /// failed and that nothing is known.
    fn change_elements(&mut self, changes: &SetChanges) -> Result<Vec<ElementFailure>, KernelError>;

    /// Carries out changes of a set that is full, under the rules that use it: `larger` is made as `sized` says, who is told
    /// what the set is made as and how many members it has, takes these members and then the changes, and changes its
    /// contents with the set. Answers whether `larger` took all; if not, or if the set is absent or of a type that Manx does
    /// not make, the set is as it was.
    fn enlarge(
        &mut self,
        changes: &SetChanges,
        larger: &SetName,
        sized: &dyn Fn(SetSpec, usize) -> SetSpec,
    ) -> Result<bool, KernelError> {
        let set = changes.set();
        let known = self.sets()?.into_iter().find(|header| header.name == *set).and_then(|header| header.spec);
        let Some(spec) = known else { return Ok(false) };
        let members = self.elements(set)?;
        self.destroy_set(larger)?;
        self.create_set(larger, &sized(spec, members.len()))?;
        let mut failures = 0;
        for piece in SetChanges::copying(&members, larger).chain([changes.moved_to(larger)]) {
            failures += self.change_elements(&piece)?.len();
        }
        if failures == 0 {
            self.swap_sets(set, larger)?;
        }
        self.destroy_set(larger)?;
        Ok(failures == 0)
    }
}

/// The tables that Manx has something in, the most important first.
pub const TABLES: [&str; 4] = ["mangle", "raw", "nat", "filter"];

/// iptables of a network namespace.
pub trait Tables: Send {
    /// The variant in use.
    fn variant(&self) -> IptablesVariant;

    /// Those of [`TABLES`] that there are: the legacy programs make a table when they are asked for it.
    fn tables(&mut self, family: Family) -> Result<Vec<String>, KernelError>;

    /// What `iptables-save -t TABLE` prints, without counters of rules (with them where `counters`).
    fn save(&mut self, family: Family, table: &str, counters: bool) -> Result<String, KernelError>;

    /// Gives the text to `iptables-restore --noflush`: all of it is in force afterwards, or nothing of a table. Tables are
    /// committed one after the other, so those before the table with the error are in force. A line `:CHAIN - [0:0]` empties
    /// a chain of the user's that is there.
    ///
    /// [`KernelError::Busy`]: the lock is held, the program took too long and was ended, a chain to delete is in use.
    /// [`KernelError::Rejected`]: the text is wrong; the error quotes the line.
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
    /// The kernel's id of the entry, where it gives one: a deletion that names it does not hit a successor, unless that
    /// lies at the same place in the kernel's memory (the id is a hash of that and of the tuple).
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
    /// Port of the source; zero where the protocol has none. Of ICMP in connection tracking the identifier, else zero.
    pub source_port: u16,
    /// Port of the destination. Of ICMP in connection tracking type (the high octet) and code, else zero.
    pub destination_port: u16,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = SocketAddr::new(self.source, self.source_port);
        let destination = SocketAddr::new(self.destination, self.destination_port);
        match Protocol::ALL.into_iter().find(|protocol| protocol.number() == self.protocol) {
            Some(protocol) => write!(f, "{protocol} {source} > {destination}"),
            None => write!(f, "protocol {} {} > {}", self.protocol, self.source, self.destination),
        }
    }
}

impl Connection {
    /// Whether one of the addresses is at either end of either tuple.
    pub fn has_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let ends = [self.original.source, self.original.destination, self.reply.source, self.reply.destination];
        ends.iter().any(|end| addresses.contains(end))
    }
}

/// Connection tracking of a network namespace.
pub trait Connections: Send {
    /// All entries of a family.
    fn connections(&mut self, family: Family) -> Result<Vec<Connection>, KernelError>;

    /// The entries that have one of the addresses at either end of either tuple.
    fn connections_of(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Vec<Connection>, KernelError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            if addresses.iter().any(|&address| Family::of(address) == family) {
                let all = self.connections(family)?;
                found.extend(all.into_iter().filter(|connection| connection.has_any(addresses)));
            }
        }
        Ok(found)
    }

    /// Deletes one; an absent one is success, and so is one of another id.
    fn delete_connection(&mut self, connection: &Connection) -> Result<(), KernelError>;
}

/// How long a program of iptables may take before it is ended and counts as failed.
pub const IPTABLES_TIME_LIMIT: Duration = Duration::from_secs(10);
