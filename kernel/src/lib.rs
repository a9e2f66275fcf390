//! The kernel seam: links, addresses, routes, neighbours, sysctls and namespaces of Linux, and ([`acl`]) what filters.
//!
//! The only crate that speaks netlink, runs iptables, enters namespaces, writes below `/proc/sys` and sets options of sockets
//! that libraries do not have ([`sockopt`]). It is blocking and
//! single threaded by itself: whoever owns a [`Kernel`] calls it from one thread. It holds no state of its own beyond a socket,
//! makes no decision and never retries a change; what is ours and what should be there is the callers' business
//! ([`ours`] only names the marks).
//!
//! ```text
//!   cni ──────┐                       ┌── Linux      one rtnetlink socket of a namespace
//!   felix ────┼──► trait Kernel ──────┤
//!   tests ────┘                       └── FakeKernel in memory, fails on request (feature "fake")
//!   felix ───────► trait EventSource ─┬── Events     one rtnetlink multicast socket
//!                                     └── FakeEvents
//!   felix::acl ──► acl: traits Sets, Tables, Connections, RuleEvents, their kernel side and their fakes
//! ```

mod address;
mod change;
mod error;
mod inbox;
mod link;
mod linux;
mod neighbour;
mod open_files;
mod route;
mod rule;
mod sysctl;
mod unacknowledged;

pub mod acl;
pub mod events;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod memory;
pub mod netns;
pub mod netstat;
pub mod ours;
pub mod sockopt;

use std::net::IpAddr;

use types::{Family, InterfaceName};

pub use address::{AddressFlags, InterfaceAddress};
pub use change::Change;
pub use error::{Failure, KernelError};
pub use link::{Link, LinkChange, VethSpec};
pub use linux::{Linux, PortId};
pub use neighbour::Neighbour;
pub use netns::Netns;
pub use open_files::raise_open_files;
pub use route::{
    MAIN_TABLE, Resolution, Route, RouteChange, RouteFailure, RouteFilter, RouteKind, RouteNextHop, Scope,
};
pub use rule::SourceRule;
pub use sysctl::SysctlKey;
pub use unacknowledged::unacknowledged;

/// What Manx asks of a network namespace's kernel state.
///
/// Every call blocks until the kernel has answered, which it does in microseconds except where it must wait for an RCU
/// grace period (deleting links: 10 to 25 ms).
pub trait Kernel: Send {
    /// All links of the namespace.
    fn links(&mut self) -> Result<Vec<Link>, KernelError>;

    /// The link of that name, if there is one.
    fn link(&mut self, name: &InterfaceName) -> Result<Option<Link>, KernelError>;

    /// Makes a pair of virtual Ethernet links in one request: the host's end here, the other end born in the pod's
    /// namespace, so that nothing is moved or renamed (which costs RCU waits). Answers the host end's index.
    ///
    /// [`KernelError::Exists`] if either name is taken; then nothing was made.
    fn create_veth(&mut self, veth: &VethSpec<'_>) -> Result<u32, KernelError>;

    /// Changes what `change` names, in one request.
    fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<(), KernelError>;

    /// Deletes a link and, if it is one end of a pair, the other end. A link that is gone already is success.
    fn delete_link(&mut self, index: u32) -> Result<(), KernelError>;

    /// Deletes all links of a group in one request, at the price of one RCU wait for all. An empty group is success.
    ///
    /// The kernel refuses as a whole if one member cannot be deleted (a physical interface): the caller looks at the
    /// members first.
    fn delete_link_group(&mut self, group: u32) -> Result<(), KernelError>;

    /// All addresses of the namespace, both families.
    fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, KernelError>;

    /// Adds an address to its interface; one that is there already is success.
    fn add_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError>;

    /// Takes an address from its interface; one that is absent is success.
    fn delete_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError>;

    /// The routes that pass the filter, each in its canonical form ([`Route::canonical`]). A consistent picture: a dump
    /// that the kernel reports as interrupted by changes is taken again.
    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>, KernelError>;

    /// Carries out all changes in order and answers those that failed, each with its place in `changes`; a failure does
    /// not stop the ones behind it. An error as a whole means that the socket failed and that nothing is known.
    fn change_routes(&mut self, changes: &[RouteChange]) -> Result<Vec<RouteFailure>, KernelError>;

    /// The route by which a packet to `destination` would leave. `None` when there is none, or when the one that matches
    /// is unreachable, prohibited or a black hole.
    fn resolve(&mut self, destination: IpAddr) -> Result<Option<Resolution>, KernelError>;

    /// The rules of a family that choose a table by one source.
    fn rules(&mut self, family: Family) -> Result<Vec<SourceRule>, KernelError>;

    /// Adds a rule; the same one that is there already is success.
    fn add_rule(&mut self, rule: &SourceRule) -> Result<(), KernelError>;

    /// Deletes a rule; one that is absent is success.
    fn delete_rule(&mut self, rule: &SourceRule) -> Result<(), KernelError>;

    /// Puts a permanent neighbour entry, in the place of any other entry for the address.
    fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), KernelError>;

    /// The neighbour entries that have a link-layer address, both families.
    fn neighbours(&mut self) -> Result<Vec<Neighbour>, KernelError>;

    /// Makes changes in order, in one request if the kernel takes them so: what a request costs by itself is paid once. The error is
    /// that of the first change that is refused; whether those behind it are made all the same is not said.
    fn change_all(&mut self, changes: &[Change]) -> Result<(), KernelError> {
        changes.iter().try_for_each(|change| match change {
            Change::Link(index, change) => self.change_link(*index, change),
            Change::Address(address) => self.add_address(address),
            Change::Neighbour(neighbour) => self.set_neighbour(neighbour),
            Change::Route(change) => match self.change_routes(std::slice::from_ref(change))?.into_iter().next() {
                None => Ok(()),
                Some(failure) => Err(failure.error),
            },
        })
    }

    /// Reads a sysctl, without the line's end.
    fn read_sysctl(&mut self, key: &SysctlKey) -> Result<String, KernelError>;

    /// Writes a sysctl.
    fn write_sysctl(&mut self, key: &SysctlKey, value: &str) -> Result<(), KernelError>;
}
