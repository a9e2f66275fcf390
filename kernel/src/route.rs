//! Routes: their canonical form, in which equal routes are equal values, and changes of them.

use std::fmt;
use std::net::IpAddr;

use types::{Family, Prefix};

use crate::KernelError;

/// The table that ordinary look-ups use (RT_TABLE_MAIN).
pub const MAIN_TABLE: u32 = 254;

/// The metric that the kernel gives an IPv6 route that asks for none (IP6_RT_PRIO_USER).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// A route. The kernel identifies it by table, prefix and metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The destination prefix.
    pub prefix: Prefix,
    /// The number of the table that the route is in.
    pub table: u32,
    /// The program that made the route, by its protocol number (`rt_protos`).
    pub protocol: u8,
    /// The metric: of several routes to a prefix the one with the lowest is used. IPv6 knows no 0, which means 1024
    /// there.
    pub metric: u32,
    /// What the route does to packets.
    pub kind: RouteKind,
    /// How far the destination is: IPv4 wants [`Scope::Link`] for routes without gateway. IPv6 has no scopes.
    pub scope: Scope,
    /// The next hops; several share the load. Empty for kinds other than unicast.
    pub next_hops: Vec<RouteNextHop>,
    /// The source address of packets that the host itself sends by this route.
    pub preferred_source: Option<IpAddr>,
}

impl Route {
    /// A route of the main table through gateways; the kernel finds their interfaces.
    pub fn via(prefix: Prefix, protocol: u8, gateways: impl IntoIterator<Item = IpAddr>) -> Self {
        let next_hops = gateways.into_iter().map(RouteNextHop::via).collect();
        Self { next_hops, ..Self::of_kind(prefix, protocol, RouteKind::Unicast, Scope::Universe) }
    }

    /// A route of the main table to an interface that has the destination itself on its link.
    pub fn on_link(prefix: Prefix, protocol: u8, interface: u32) -> Self {
        let scope = match prefix.family() {
            Family::Ipv4 => Scope::Link,
            Family::Ipv6 => Scope::Universe,
        };
        Self {
            next_hops: vec![RouteNextHop::on(interface)],
            ..Self::of_kind(prefix, protocol, RouteKind::Unicast, scope)
        }
    }

    /// A route of the main table that answers "unreachable".
    pub fn unreachable(prefix: Prefix, protocol: u8) -> Self {
        Self::of_kind(prefix, protocol, RouteKind::Unreachable, Scope::Universe)
    }

    fn of_kind(prefix: Prefix, protocol: u8, kind: RouteKind, scope: Scope) -> Self {
        let (table, next_hops) = (MAIN_TABLE, Vec::new());
        Self { prefix, table, protocol, metric: 0, kind, scope, next_hops, preferred_source: None }.canonical()
    }

    /// The same route with this metric.
    #[must_use]
    pub fn with_metric(self, metric: u32) -> Self {
        Self { metric, ..self }.canonical()
    }

    /// The same route with this source address.
    #[must_use]
    pub fn with_preferred_source(self, source: Option<IpAddr>) -> Self {
        Self { preferred_source: source, ..self }
    }

    /// The form in which the kernel would show this route: IPv6 without scope and with a metric, next hops in order and
    /// once each, a single next hop with weight 1, none for kinds that forward nothing.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        if self.prefix.family() == Family::Ipv6 {
            self.scope = Scope::Universe;
            if self.metric == 0 {
                self.metric = IPV6_DEFAULT_METRIC;
            }
        }
        // IPv6 shows `dev lo` as the next hop of unreachable routes.
        if matches!(self.kind, RouteKind::Unreachable | RouteKind::Blackhole | RouteKind::Prohibit) {
            self.next_hops.clear();
        }
        self.next_hops.sort_unstable();
        self.next_hops.dedup();
        if let [only] = self.next_hops.as_mut_slice() {
            only.weight = 1;
        }
        self
    }

    /// Whether `installed` is what the kernel shows once this route was put: equal, but a next hop that names no
    /// interface is met on any. Both in canonical form.
    pub fn is_met_by(&self, installed: &Self) -> bool {
        let identity = |route: &Self| {
            (route.prefix, route.table, route.protocol, route.metric, route.kind, route.scope, route.preferred_source)
        };
        let mut left: Vec<&RouteNextHop> = installed.next_hops.iter().collect();
        identity(self) == identity(installed)
            && self.next_hops.iter().all(|wanted| {
                let found = left.iter().position(|hop| wanted.is_met_by(hop));
                found.map(|place| left.swap_remove(place)).is_some()
            })
            && left.is_empty()
    }
}

impl fmt::Display for Route {
    /// Writes the route as `ip route` shows it: `unreachable 10.0.0.0/26`, `10.0.0.0/26 via 192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => f.write_str("local ")?,
            RouteKind::Broadcast => f.write_str("broadcast ")?,
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
            RouteKind::Other(kind) => write!(f, "type {kind} ")?,
        }
        write!(f, "{}", self.prefix)?;
        for hop in &self.next_hops {
            write!(f, " {hop}")?;
        }
        if let Some(source) = self.preferred_source {
            write!(f, " src {source}")?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

/// One of the ways that a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteNextHop {
    /// The next router; none if the destination is on the link. It may be of the other family (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// The interface; none lets the kernel find it by the gateway.
    pub interface: Option<u32>,
    /// Whether the gateway is taken to be on the link, whatever the table says.
    pub onlink: bool,
    /// The share of flows that take this way among several: 1 to 256 in the kernel, here 1 to 255.
    pub weight: u8,
}

impl RouteNextHop {
    /// A next hop through a gateway, of weight 1.
    pub const fn via(gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), interface: None, onlink: false, weight: 1 }
    }

    /// A next hop straight to an interface, of weight 1.
    pub const fn on(interface: u32) -> Self {
        Self { gateway: None, interface: Some(interface), onlink: false, weight: 1 }
    }

    fn is_met_by(&self, installed: &Self) -> bool {
        (self.gateway, self.onlink, self.weight) == (installed.gateway, installed.onlink, installed.weight)
            && self.interface.is_none_or(|interface| installed.interface == Some(interface))
    }
}

impl fmt::Display for RouteNextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.gateway, self.interface) {
            (Some(gateway), Some(interface)) => write!(f, "via {gateway} dev {interface}"),
            (Some(gateway), None) => write!(f, "via {gateway}"),
            (None, Some(interface)) => write!(f, "dev {interface}"),
            (None, None) => f.write_str("to nowhere"),
        }
    }
}

/// What a route does to packets (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// The route forwards packets.
    Unicast,
    /// The destination is an address of the host itself.
    Local,
    /// The destination is a broadcast address of a link.
    Broadcast,
    /// The route drops packets silently.
    Blackhole,
    /// The route answers packets with "unreachable".
    Unreachable,
    /// The route answers packets with "prohibited".
    Prohibit,
    /// Any other kind, by its number.
    Other(u8),
}

impl From<u8> for RouteKind {
    fn from(number: u8) -> Self {
        match number {
            libc::RTN_UNICAST => Self::Unicast,
            libc::RTN_LOCAL => Self::Local,
            libc::RTN_BROADCAST => Self::Broadcast,
            libc::RTN_BLACKHOLE => Self::Blackhole,
            libc::RTN_UNREACHABLE => Self::Unreachable,
            libc::RTN_PROHIBIT => Self::Prohibit,
            other => Self::Other(other),
        }
    }
}

impl From<RouteKind> for u8 {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => libc::RTN_UNICAST,
            RouteKind::Local => libc::RTN_LOCAL,
            RouteKind::Broadcast => libc::RTN_BROADCAST,
            RouteKind::Blackhole => libc::RTN_BLACKHOLE,
            RouteKind::Unreachable => libc::RTN_UNREACHABLE,
            RouteKind::Prohibit => libc::RTN_PROHIBIT,
            RouteKind::Other(other) => other,
        }
    }
}

/// How far an address or a destination reaches (`rtm_scope`, `ifa_scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The address or destination may be anywhere.
    Universe,
    /// The address or destination is within the site.
    Site,
    /// The address or destination is on the link.
    Link,
    /// The address or destination is in this host.
    Host,
    /// Any other scope, by its number.
    Other(u8),
}

impl From<u8> for Scope {
    fn from(number: u8) -> Self {
        match number {
            libc::RT_SCOPE_UNIVERSE => Self::Universe,
            libc::RT_SCOPE_SITE => Self::Site,
            libc::RT_SCOPE_LINK => Self::Link,
            libc::RT_SCOPE_HOST => Self::Host,
            other => Self::Other(other),
        }
    }
}

impl From<Scope> for u8 {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Universe => libc::RT_SCOPE_UNIVERSE,
            Scope::Site => libc::RT_SCOPE_SITE,
            Scope::Link => libc::RT_SCOPE_LINK,
            Scope::Host => libc::RT_SCOPE_HOST,
            Scope::Other(other) => other,
        }
    }
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// Puts the route only if no route has the same table, prefix and metric; otherwise [`KernelError::Exists`]. This
    /// is how a route is put without ever replacing a foreign one.
    Add(Route),
    /// Puts the route, replacing any route with the same table, prefix and metric, whoever made it.
    Replace(Route),
    /// Deletes the route with this table, prefix, metric and protocol, whatever its next hops. It is no error if there
    /// is none. For IPv4 the kernel takes metric 0 to mean any: the route with the lowest metric goes.
    Delete(Route),
}

impl RouteChange {
    /// The route that is put or deleted.
    pub const fn route(&self) -> &Route {
        match self {
            Self::Add(route) | Self::Replace(route) | Self::Delete(route) => route,
        }
    }
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Add(_) => "add",
            Self::Replace(_) => "replace",
            Self::Delete(_) => "delete",
        };
        write!(f, "{verb} route {}", self.route())
    }
}

/// A change that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFailure {
    /// The place of the change among those that were given.
    pub index: usize,
    /// The reason why the change was not carried out.
    pub error: KernelError,
}

/// Which routes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFilter {
    /// The family of the routes.
    pub family: Family,
    /// The table of the routes.
    pub table: u32,
    /// If set, only routes of this protocol are read.
    pub protocol: Option<u8>,
}

impl RouteFilter {
    /// Every route of the main table.
    pub const fn main(family: Family) -> Self {
        Self { family, table: MAIN_TABLE, protocol: None }
    }

    /// The routes of the main table that have one protocol.
    #[must_use]
    pub const fn of_protocol(self, protocol: u8) -> Self {
        Self { protocol: Some(protocol), ..self }
    }

    /// Whether a route passes the filter.
    pub fn passes(&self, route: &Route) -> bool {
        route.prefix.family() == self.family
            && route.table == self.table
            && self.protocol.is_none_or(|protocol| route.protocol == protocol)
    }
}

/// How the kernel would send a packet: the entry of the table that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The prefix of the entry that matches.
    pub prefix: Prefix,
    /// The protocol number of the entry: the program that made it.
    pub protocol: u8,
    /// The metric of the entry.
    pub metric: u32,
    /// The kind of the entry: [`RouteKind::Local`] for an own address, else unicast.
    pub kind: RouteKind,
    /// The next hops of the entry.
    pub next_hops: Vec<RouteNextHop>,
    /// Whether the destination is on the link: then no next hop has a gateway.
    pub connected: bool,
}

#[cfg(test)]
mod tests;
