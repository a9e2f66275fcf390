//! A kernel in memory, for unit tests: the rules that callers rely on, failures on request, and means to look at the
//! state and to disturb it as other programs would.
//!
//! It is strict where the kernel is: a route's gateway must be on a link that is up, interfaces must exist, links take
//! their routes with them. It knows no timers, carriers or RCU waits; a link runs as soon as it is up.

pub mod acl;

mod events;
mod failures;
mod state;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use types::{Family, InterfaceName, Prefix};

use crate::events::Event;
use crate::{
    InterfaceAddress, Kernel, KernelError, Link, LinkChange, Neighbour, Netns, Resolution, Route, RouteChange,
    RouteFailure, RouteFilter, SourceRule, SysctlKey, VethSpec,
};

pub use events::FakeEvents;
use state::State;

/// A handle on a namespace of the fake; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    state: Arc<Mutex<State>>,
}

/// The calls of [`Kernel`], to count them and to let them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Kernel::links`].
    Links,
    /// [`Kernel::link`].
    Link,
    /// [`Kernel::create_veth`].
    CreateVeth,
    /// [`Kernel::change_link`].
    ChangeLink,
    /// [`Kernel::delete_link`].
    DeleteLink,
    /// [`Kernel::delete_link_group`].
    DeleteLinkGroup,
    /// [`Kernel::addresses`].
    Addresses,
    /// [`Kernel::add_address`].
    AddAddress,
    /// [`Kernel::delete_address`].
    DeleteAddress,
    /// [`Kernel::routes`].
    Routes,
    /// [`Kernel::change_routes`], as a whole.
    ChangeRoutes,
    /// [`Kernel::resolve`].
    Resolve,
    /// [`Kernel::rules`].
    Rules,
    /// [`Kernel::add_rule`].
    AddRule,
    /// [`Kernel::delete_rule`].
    DeleteRule,
    /// [`Kernel::set_neighbour`].
    SetNeighbour,
    /// [`Kernel::neighbours`].
    Neighbours,
    /// [`Kernel::read_sysctl`].
    ReadSysctl,
    /// [`Kernel::write_sysctl`].
    WriteSysctl,
}

/// What another program does at a moment that a test has chosen.
pub(crate) struct Meddling(Box<dyn FnOnce(&FakeKernel) + Send>);

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddling")
    }
}

impl FakeKernel {
    /// A namespace with nothing but `lo`, index 1, up.
    pub fn new() -> Self {
        Self::default()
    }

    /// The namespace that `netns` stands for, where the other ends of veths appear. Made when first asked for.
    pub fn namespace(&self, netns: &Netns) -> Self {
        self.lock().namespace(netns.id())
    }

    /// Lets the `nth` call of an operation from now on (1 is the next) fail with this error number.
    pub fn fail(&self, operation: Operation, nth: usize, errno: i32) {
        self.lock().failures.calls.on_call(operation, nth, errno);
    }

    /// Lets every call of an operation fail until [`FakeKernel::heal`].
    pub fn fail_always(&self, operation: Operation, errno: i32) {
        self.lock().failures.calls.always(operation, errno);
    }

    /// Lets every change of routes to this prefix fail until [`FakeKernel::heal`].
    pub fn fail_route(&self, prefix: Prefix, errno: i32) {
        self.lock().failures.on_route(prefix, errno);
    }

    /// Lets something happen right before the next call of an operation, as another program may do it between two calls.
    pub fn before(&self, operation: Operation, act: impl FnOnce(&Self) + Send + 'static) {
        self.lock().before.insert(operation, Meddling(Box::new(act)));
    }

    /// Ends all failures that were asked for.
    pub fn heal(&self) {
        self.lock().failures = state::Failures::default();
    }

    /// The operations called so far, in order.
    pub fn calls(&self) -> Vec<Operation> {
        self.lock().calls.clone()
    }

    /// How many calls of one operation there were.
    pub fn count(&self, operation: Operation) -> usize {
        self.lock().calls.iter().filter(|&&call| call == operation).count()
    }

    /// The route changes that were carried out since the last time this was asked.
    pub fn take_route_changes(&self) -> Vec<RouteChange> {
        std::mem::take(&mut self.lock().route_changes)
    }

    /// Subscribes to everything that happens from now on.
    pub fn events(&self) -> Result<FakeEvents, KernelError> {
        self.lock().subscribe()
    }

    /// Tells every subscriber that events were lost.
    pub fn lose_events(&self) {
        self.lock().emit(&Event::Lost);
    }

    /// Makes a link as another program would, such as a network card (which has no kind); returns its index.
    pub fn add_link(&self, name: &str, up: bool) -> u32 {
        self.lock().add_link(name, up, None).index
    }

    /// Deletes a link as another program would, or as if it was unplugged. A link that does not exist is ignored.
    pub fn remove_link(&self, index: u32) {
        self.lock().remove_link(index);
    }

    /// Sets a link up or down as another program would.
    pub fn set_link_up(&self, index: u32, up: bool) {
        // A test may name a link that does not exist: then there is nothing to change.
        let _ = self.lock().change_link(index, &LinkChange { up: Some(up), ..LinkChange::default() });
    }

    /// Removes a namespace, and with it the host's ends of the pairs whose other end was in there.
    pub fn remove_namespace(&self, netns: &Netns) {
        self.lock().remove_namespace(netns.id());
    }

    /// Puts a route as another program would: like [`RouteChange::Replace`], but not counted among our changes.
    pub fn put_route(&self, route: Route) -> Result<(), KernelError> {
        let mut state = self.lock();
        state.change_route(&RouteChange::Replace(route))?;
        Ok(())
    }

    /// Deletes all routes to a prefix as another program would.
    pub fn remove_routes(&self, prefix: Prefix) {
        self.lock().remove_routes(|route| route.prefix == prefix, state::Tell::Always);
    }

    /// Every route of every table, in order.
    pub fn all_routes(&self) -> Vec<Route> {
        self.lock().routes()
    }

    /// The value of a sysctl; none if it was never written.
    pub fn sysctl(&self, key: &SysctlKey) -> Option<String> {
        self.lock().sysctls.get(key).cloned()
    }

    /// Sets a sysctl as an administrator would, without any check.
    pub fn set_sysctl(&self, key: SysctlKey, value: &str) {
        self.lock().sysctls.insert(key, value.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // If another test panicked while it held the lock, that test has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, and fails it if a test has asked for that.
    fn call(&self, operation: Operation, what: impl FnOnce() -> String) -> Result<MutexGuard<'_, State>, KernelError> {
        let meddling = self.lock().before.remove(&operation);
        if let Some(Meddling(act)) = meddling {
            act(self);
        }
        let mut state = self.lock();
        state.calls.push(operation);
        match state.failures.calls.of_call(operation) {
            Some(errno) => Err(KernelError::refused(what(), errno, None)),
            None => Ok(state),
        }
    }
}

impl Kernel for FakeKernel {
    fn links(&mut self) -> Result<Vec<Link>, KernelError> {
        Ok(self.call(Operation::Links, || "cannot list links".to_owned())?.links.values().cloned().collect())
    }

    fn link(&mut self, name: &InterfaceName) -> Result<Option<Link>, KernelError> {
        let state = self.call(Operation::Link, || format!("cannot read link {name}"))?;
        Ok(state.links.values().find(|link| link.name == name.as_str()).cloned())
    }

    fn create_veth(&mut self, veth: &VethSpec<'_>) -> Result<u32, KernelError> {
        self.call(Operation::CreateVeth, || format!("cannot create {veth}"))?.create_veth(veth)
    }

    fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<(), KernelError> {
        self.call(Operation::ChangeLink, || format!("cannot change link {index}"))?.change_link(index, change)
    }

    fn delete_link(&mut self, index: u32) -> Result<(), KernelError> {
        self.call(Operation::DeleteLink, || format!("cannot delete link {index}"))?.remove_link(index);
        Ok(())
    }

    fn delete_link_group(&mut self, group: u32) -> Result<(), KernelError> {
        self.call(Operation::DeleteLinkGroup, || format!("cannot delete link group {group}"))?.remove_group(group)
    }

    fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, KernelError> {
        Ok(self.call(Operation::Addresses, || "cannot list addresses".to_owned())?.addresses.clone())
    }

    fn add_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError> {
        self.call(Operation::AddAddress, || format!("cannot add {address}"))?.add_address(address)
    }

    fn delete_address(&mut self, address: &InterfaceAddress) -> Result<(), KernelError> {
        self.call(Operation::DeleteAddress, || format!("cannot delete {address}"))?.delete_address(address);
        Ok(())
    }

    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>, KernelError> {
        let state = self.call(Operation::Routes, || format!("cannot list {} routes", filter.family))?;
        Ok(state.routes().into_iter().filter(|route| filter.passes(route)).collect())
    }

    fn change_routes(&mut self, changes: &[RouteChange]) -> Result<Vec<RouteFailure>, KernelError> {
        let mut state = self.call(Operation::ChangeRoutes, || format!("cannot change {} routes", changes.len()))?;
        let mut failures = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            match state.change_route(change) {
                Ok(()) => state.route_changes.push(change.clone()),
                Err(error) => failures.push(RouteFailure { index, error }),
            }
        }
        Ok(failures)
    }

    fn resolve(&mut self, destination: IpAddr) -> Result<Option<Resolution>, KernelError> {
        Ok(self.call(Operation::Resolve, || format!("cannot look up {destination}"))?.resolve(destination))
    }

    fn rules(&mut self, family: Family) -> Result<Vec<SourceRule>, KernelError> {
        let state = self.call(Operation::Rules, || format!("cannot list {family} rules"))?;
        Ok(state.rules.iter().filter(|rule| Family::of(rule.source) == family).copied().collect())
    }

    fn add_rule(&mut self, rule: &SourceRule) -> Result<(), KernelError> {
        self.call(Operation::AddRule, || format!("cannot add rule {rule}"))?.rules.insert(*rule);
        Ok(())
    }

    fn delete_rule(&mut self, rule: &SourceRule) -> Result<(), KernelError> {
        self.call(Operation::DeleteRule, || format!("cannot delete rule {rule}"))?.rules.remove(rule);
        Ok(())
    }

    fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), KernelError> {
        let operation = || format!("cannot set neighbour {}", neighbour.address);
        self.call(Operation::SetNeighbour, operation)?.set_neighbour(neighbour)
    }

    fn neighbours(&mut self) -> Result<Vec<Neighbour>, KernelError> {
        let state = self.call(Operation::Neighbours, || "cannot list neighbours".to_owned())?;
        Ok(state.neighbours.values().copied().collect())
    }

    fn read_sysctl(&mut self, key: &SysctlKey) -> Result<String, KernelError> {
        let operation = || format!("cannot read sysctl {key}");
        let state = self.call(Operation::ReadSysctl, operation)?;
        state.check_sysctl(key, operation())?;
        Ok(state.sysctls.get(key).map_or_else(|| "0".to_owned(), Clone::clone))
    }

    fn write_sysctl(&mut self, key: &SysctlKey, value: &str) -> Result<(), KernelError> {
        let operation = || format!("cannot set sysctl {key} to {value}");
        let mut state = self.call(Operation::WriteSysctl, operation)?;
        state.check_sysctl(key, operation())?;
        state.sysctls.insert(key.clone(), value.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
