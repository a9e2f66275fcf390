//! The kernel itself, by rtnetlink and `/proc/sys`.
//!
//! Requests are built with the message types of rtnetlink. Answers are read attribute by attribute: a few of them matter,
//! and an attribute of a newer kernel or of another program's route must not make a whole table unreadable.

mod addresses;
mod changes;
mod links;
mod neighbours;
mod routes;
mod rules;
pub(crate) mod socket;

use std::net::IpAddr;

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use types::{Family, InterfaceName};

use crate::netns::run_in;
use crate::{
    Change, InterfaceAddress, Kernel, KernelError, Link, LinkChange, Neighbour, Netns, Resolution, Route, RouteChange,
    RouteFailure, RouteFilter, SourceRule, SysctlKey, VethSpec, sysctl,
};
use socket::Socket;

pub(crate) use addresses::parse_address;
pub(crate) use links::parse_link;
pub(crate) use routes::parse_route;

/// One rtnetlink socket.
///
/// It keeps the namespace in which it was opened, whichever thread uses it. Sysctls are the exception: `/proc/sys/net`
/// is always that of the calling thread's namespace.
#[derive(Debug)]
pub struct Linux {
    socket: Socket,
}

/// The identity of this socket in the kernel: by it, [`crate::events::Events`] tell our own changes from those of
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortId(pub(crate) u32);

impl Linux {
    /// Opens a socket in the calling thread's namespace. This takes three system calls.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { socket: Socket::open(NETLINK_ROUTE)? })
    }

    /// Opens a socket in another namespace. This takes a thread; a thread that is in there already uses
    /// [`Linux::open`].
    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        run_in(netns, Self::open)?
    }

    /// The mark of notifications about changes that were made with this handle.
    pub fn port(&mut self) -> Result<PortId, KernelError> {
        self.socket.port().map(PortId)
    }
}

impl Kernel for Linux {
    fn links(&mut self) -> Result<Vec<Link>, KernelError> {
        links::list(&mut self.socket)
    }

    fn link(&mut self, name: &InterfaceName) -> Result<Option<Link>, KernelError> {
        links::named(&mut self.socket, name)
    }

    fn create_veth(&mut self, veth: &VethSpec<'_>) -> Result<u32, KernelError> {
        links::create_veth(&mut self.socket, veth)
    }

    fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<(), KernelError> {
        links::change(&mut self.socket, index, change)
    }

    fn delete_link(&mut self, index: u32) -> Result<(), KernelError> {
        links::delete(&mut self.socket, index)
    }

    fn delete_link_group(&mut self, group: u32) -> Result<(), KernelError> {
        links::delete_group(&mut self.socket, group)
    }

    fn change_all(&mut self, changes: &[Change]) -> Result<(), KernelError> {
        changes::make(&mut self.socket, changes)
    }

    fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, KernelError> {
        addresses::list(&mut self.socket)
    }

    fn add_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError> {
        addresses::add(&mut self.socket, address)
    }

    fn delete_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError> {
        addresses::delete(&mut self.socket, address)
    }

    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>, KernelError> {
        routes::list(&mut self.socket, filter)
    }

    fn change_routes(&mut self, changes: &[RouteChange]) -> Result<Vec<RouteFailure>, KernelError> {
        routes::change(&mut self.socket, changes)
    }

    fn resolve(&mut self, destination: IpAddr) -> Result<Option<Resolution>, KernelError> {
        routes::resolve(&mut self.socket, destination)
    }

    fn rules(&mut self, family: Family) -> Result<Vec<SourceRule>, KernelError> {
        rules::list(&mut self.socket, family)
    }

    fn add_rule(&mut self, rule: &SourceRule) -> Result<(), KernelError> {
        rules::add(&mut self.socket, rule)
    }

    fn delete_rule(&mut self, rule: &SourceRule) -> Result<(), KernelError> {
        rules::delete(&mut self.socket, rule)
    }

    fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), KernelError> {
        neighbours::set(&mut self.socket, neighbour)
    }

    fn neighbours(&mut self) -> Result<Vec<Neighbour>, KernelError> {
        neighbours::list(&mut self.socket)
    }

    fn read_sysctl(&mut self, key: &SysctlKey) -> Result<String, KernelError> {
        sysctl::read(key)
    }

    fn write_sysctl(&mut self, key: &SysctlKey, value: &str) -> Result<(), KernelError> {
        sysctl::write(key, value)
    }
}
