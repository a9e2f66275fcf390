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
    /// The destination.
    pub prefix: Prefix,
    /// The table.
    pub table: u32,
    /// Who made it (`rt_protos`).
    pub protocol: u8,
    /// The lower one is preferred. IPv6 knows no 0: it means 1024.
    pub metric: u32,
    /// What happens to packets.
    pub kind: RouteKind,
    /// How far the destination is: IPv4 wants [`Scope::Link`] for routes without gateway. IPv6 has no scopes.
    pub scope: Scope,
    /// Through where; several share the load. Empty for kinds other than unicast.
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

    /// A route of the main table to an interface on which the destination itself is.
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

    /// The same with this metric.
    #[must_use]
    pub fn with_metric(self, metric: u32) -> Self {
        Self { metric, ..self }.canonical()
    }

    /// The same with this source address.
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
        // IPv6 shows `dev lo` for unreachable routes.
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
    /// As `ip route` would show it: `unreachable 10.0.0.0/26`, `10.0.0.0/26 via 192.0.2.1`.
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

/// One way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteNextHop {
    /// The next router; none if the destination is on the link. May be of the other family (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// The interface; none lets the kernel find it by the gateway.
    pub interface: Option<u32>,
    /// The gateway is taken to be on the link, whatever the table says.
    pub onlink: bool,
    /// Its share of the flows among several, 1 to 256 in the kernel, here 1 to 255.
    pub weight: u8,
}

impl RouteNextHop {
    /// Through a gateway, of weight 1.
    pub const fn via(gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), interface: None, onlink: false, weight: 1 }
    }

    /// Straight to an interface, of weight 1.
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
    /// Forwards.
    Unicast,
    /// The host's own address.
    Local,
    /// A link's broadcast address.
    Broadcast,
    /// Drops silently.
    Blackhole,
    /// Answers "unreachable".
    Unreachable,
    /// Answers "prohibited".
    Prohibit,
    /// Anything else.
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
    /// Everywhere.
    Universe,
    /// Within the site.
    Site,
    /// On the link.
    Link,
    /// In this host.
    Host,
    /// Anything else.
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
    /// Puts the route only where no route of the same table, prefix and metric is; otherwise
    /// [`KernelError::Exists`]. How to put a route without ever taking the place of a foreign one.
    Add(Route),
    /// Puts the route, in the place of any route of the same table, prefix and metric, whoever made that one.
    Replace(Route),
    /// Deletes the route of this table, prefix, metric and protocol, whatever its next hops. An absent one is success.
    /// For IPv4 the kernel takes metric 0 to mean any: the route with the lowest one goes.
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
    /// Its place among the changes.
    pub index: usize,
    /// Why not.
    pub error: KernelError,
}

/// Which routes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFilter {
    /// The family.
    pub family: Family,
    /// The table.
    pub table: u32,
    /// Only routes of this protocol.
    pub protocol: Option<u8>,
}

impl RouteFilter {
    /// All routes of the main table.
    pub const fn main(family: Family) -> Self {
        Self { family, table: MAIN_TABLE, protocol: None }
    }

    /// Those of one protocol.
    #[must_use]
    pub const fn of_protocol(self, protocol: u8) -> Self {
        Self { protocol: Some(protocol), ..self }
    }

    /// Whether a route passes.
    pub fn passes(&self, route: &Route) -> bool {
        route.prefix.family() == self.family
            && route.table == self.table
            && self.protocol.is_none_or(|protocol| route.protocol == protocol)
    }
}

/// How the kernel would send a packet: the entry of the table that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The prefix that matches.
    pub prefix: Prefix,
    /// Who made the route.
    pub protocol: u8,
    /// Its metric.
    pub metric: u32,
    /// [`RouteKind::Local`] for an own address, else unicast.
    pub kind: RouteKind,
    /// Its next hops.
    pub next_hops: Vec<RouteNextHop>,
    /// The destination is on the link: no next hop has a gateway.
    pub connected: bool,
}

#[cfg(test)]
mod tests;
