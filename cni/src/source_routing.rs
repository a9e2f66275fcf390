//! How a pod answers by the interface that it was asked on, where its default route leads by another one: packets from the
//! interface's own address are looked up in a table of its own, in which the default route leads by it. Without that the pod
//! would send them by the first interface, whose host end drops what is not from its address.
//!
//! The table's number follows from the interface's index, and its routes go with the interface. The rule stays in the namespace
//! when the interface goes; it is taken away with the next interface that comes, and selects nothing until then.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::{Kernel, KernelError, Link, Route, RouteFilter, RouteNextHop, SourceRule, ours};
use types::{Family, Prefix};

use crate::plan::gateway;

/// What is added to an interface's index: a range of tables that nobody chooses by hand.
const FIRST_TABLE: u32 = 0x6d78_0000;

/// Before the kernel's own rules, and behind those that an administrator would put first.
const PRIORITY: u32 = 10_000;

/// Tells our rules from those of other plugins and of the pod.
const PROTOCOL: u8 = ours::ROUTE_PROTOCOL_LOCAL;

/// The default route of an interface's own table. The kernel is told that the gateway is on the link: the table has no other
/// route that would say so.
pub(crate) fn route(interface: u32, family: Family) -> Route {
    let hop = RouteNextHop { interface: Some(interface), onlink: true, ..RouteNextHop::via(gateway(family)) };
    let mut route = Route::via(Prefix::default_route(family), PROTOCOL, []);
    route.table = table(interface);
    route.next_hops = vec![hop];
    route
}

/// The rule by which packets from an address of the interface are looked up in its table.
pub(crate) fn rule(interface: u32, address: IpAddr) -> SourceRule {
    SourceRule { priority: PRIORITY, source: address, table: table(interface), protocol: PROTOCOL }
}

const fn table(interface: u32) -> u32 {
    FIRST_TABLE.wrapping_add(interface)
}

/// Puts the rule, and takes away those of interfaces that have gone.
pub(crate) fn put(kernel: &mut dyn Kernel, rule: &SourceRule) -> Result<(), KernelError> {
    let there: BTreeSet<u32> = kernel.links()?.iter().map(|link| table(link.index)).collect();
    let is_stale = |old: &SourceRule| old.protocol == PROTOCOL && old != rule && !there.contains(&old.table);
    for old in kernel.rules(Family::of(rule.source))?.iter().filter(|old| is_stale(old)) {
        kernel.delete_rule(old)?;
    }
    kernel.add_rule(rule)
}

/// What is wrong with the default route of an interface's own table, if anything.
pub(crate) fn route_is_wrong(
    kernel: &mut dyn Kernel,
    link: &Link,
    family: Family,
) -> Result<Option<String>, KernelError> {
    let table = table(link.index);
    let there = kernel.routes(&RouteFilter { table, ..RouteFilter::main(family) })?;
    let leads = |there: &Route| {
        let mut hops = there.next_hops.iter();
        there.prefix == Prefix::default_route(family) && hops.any(|hop| hop.interface == Some(link.index))
    };
    let name = &link.name;
    Ok((!there.iter().any(leads))
        .then(|| format!("table {table} of the pod has no default route of {family} by {name}")))
}

/// What is wrong with the rule of an address, if anything.
pub(crate) fn rule_is_wrong(
    kernel: &mut dyn Kernel,
    link: &Link,
    address: IpAddr,
) -> Result<Option<String>, KernelError> {
    let SourceRule { source, table, .. } = rule(link.index, address);
    let is_it = |there: &SourceRule| there.source == source && there.table == table;
    let is_there = kernel.rules(Family::of(address))?.iter().any(is_it);
    Ok((!is_there).then(|| {
        format!("the pod has no rule from {source} lookup {table}, so it answers for it by another interface")
    }))
}
