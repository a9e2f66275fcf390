//! Which addresses of Services this node announces (pure). The task around it is in
//! `announcements_task`.
//!
//! A range of BGPConfiguration is announced by every node: whichever takes a packet in, kube-proxy leads it on. Single
//! addresses are announced beside it where that is not so: of a Service with `externalTrafficPolicy: Local` by the nodes that
//! have a ready endpoint of it; and of an entry that is a single address, or of one that is not to be announced as a whole,
//! by every node as long as a Service has the address. A node that is not to take traffic of load balancers announces none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use types::update::{Change, Listing};
use types::{EndpointSlice, Family, NamespacedName, NodeName, Prefix, Service, ServiceRanges, Update};

/// The label of a node that is not to take traffic of load balancers, whatever its value.
pub(crate) const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What is known, and what follows. An update costs what concerns its Service.
#[derive(Debug)]
pub(crate) struct Announcements {
    /// This node.
    node: NodeName,
    /// The ranges that are to be announced.
    ranges: ServiceRanges,
    /// Whether this node takes no traffic of load balancers; none before that is known.
    excluded: Option<bool>,
    /// The Services that single addresses may be announced of.
    services: BTreeMap<NamespacedName, Facts>,
    /// Those of them that need to know where their endpoints are.
    in_need: BTreeSet<NamespacedName>,
    /// How far the listing of Services has come.
    service_listing: Listing<NamespacedName>,
    /// EndpointSlices with a ready endpoint on this node: whose they are.
    local: BTreeMap<NamespacedName, (NamespacedName, Family)>,
    /// How many of them a Service has.
    local_counts: BTreeMap<(NamespacedName, Family), usize>,
    /// How far the listing of EndpointSlices has come.
    slice_listing: Listing<NamespacedName>,
    /// The single addresses that are announced of a Service.
    single: BTreeMap<NamespacedName, BTreeSet<Prefix>>,
    /// The prefixes that are announced, each with the number of Services that it is announced for.
    counts: BTreeMap<Prefix, usize>,
}

/// The part of a Service that announcements follow from.
#[derive(Debug, PartialEq)]
struct Facts {
    /// Only nodes that have a ready endpoint of it take its packets (`externalTrafficPolicy: Local`).
    is_local: bool,
    /// The Service's cluster addresses; none unless it is local.
    cluster_ips: Vec<IpAddr>,
    /// The Service's external addresses.
    external_ips: Vec<IpAddr>,
    /// The addresses that its status names.
    ingress: Vec<IpAddr>,
}

impl Announcements {
    /// Announcements of a node that knows nothing yet.
    pub(crate) fn new(node: NodeName) -> Self {
        Self {
            node,
            ranges: ServiceRanges::default(),
            excluded: None,
            services: BTreeMap::new(),
            in_need: BTreeSet::new(),
            service_listing: Listing::new(),
            local: BTreeMap::new(),
            local_counts: BTreeMap::new(),
            slice_listing: Listing::new(),
            single: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Sets the ranges that are to be announced.
    pub(crate) fn set_ranges(&mut self, ranges: ServiceRanges) {
        if self.ranges != ranges {
            self.ranges = ranges;
            self.look_at_all();
        }
    }

    /// Whether this node takes no traffic of load balancers.
    pub(crate) fn set_excluded(&mut self, is_excluded: bool) {
        if self.excluded.replace(is_excluded) != Some(is_excluded) {
            self.look_at_all();
        }
    }

    /// A report of Services.
    pub(crate) fn service(&mut self, update: Update<NamespacedName, Service>) {
        match self.service_listing.follow(update, || self.services.keys().cloned()) {
            Change::Set(name, service) => {
                match facts(service) {
                    Some(facts) => drop(self.services.insert(name.clone(), facts)),
                    None => drop(self.services.remove(&name)),
                }
                self.look_at(&name);
            }
            Change::Gone(names) => names.iter().for_each(|name| self.drop_service(name)),
        }
    }

    /// A report of EndpointSlices.
    pub(crate) fn slice(&mut self, update: Update<NamespacedName, EndpointSlice>) {
        match self.slice_listing.follow(update, || self.local.keys().cloned()) {
            Change::Set(name, slice) => {
                let here = slice.ready_nodes.iter().any(|node| node == self.node.as_str());
                self.set_local(name, slice.service.zip(slice.family).filter(|_| here));
            }
            Change::Gone(names) => names.into_iter().for_each(|name| self.set_local(name, None)),
        }
    }

    /// Forgets every Service, as Services are not followed any more.
    pub(crate) fn forget_services(&mut self) {
        (self.services, self.service_listing) = Default::default();
        self.look_at_all();
    }

    /// Forgets every EndpointSlice, as they are not followed any more.
    pub(crate) fn forget_slices(&mut self) {
        (self.local, self.local_counts, self.slice_listing) = Default::default();
        self.look_at_all();
    }

    /// Whether Services are to be followed.
    pub(crate) const fn needs_services(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Whether EndpointSlices are to be followed.
    pub(crate) fn needs_slices(&self) -> bool {
        !self.in_need.is_empty()
    }

    /// Whether everything is known that announcements follow from.
    pub(crate) fn are_known(&self) -> bool {
        let services = !self.needs_services() || (self.excluded.is_some() && self.service_listing.is_known());
        services && (!self.needs_slices() || self.slice_listing.is_known())
    }

    /// The prefixes that are to be announced, as far as that is known.
    pub(crate) fn announced(&self) -> BTreeSet<Prefix> {
        if self.is_excluded() {
            return BTreeSet::new();
        }
        whole(&self.ranges).chain(self.counts.keys().copied()).collect()
    }

    fn is_excluded(&self) -> bool {
        self.excluded == Some(true)
    }

    fn drop_service(&mut self, name: &NamespacedName) {
        self.services.remove(name);
        self.look_at(name);
    }

    fn set_local(&mut self, slice: NamespacedName, of: Option<(NamespacedName, Family)>) {
        let before = match &of {
            Some(of) => self.local.insert(slice, of.clone()),
            None => self.local.remove(&slice),
        };
        if before == of {
            return;
        }
        if let Some(before) = &before
            && let Some(count) = self.local_counts.get_mut(before)
        {
            *count -= 1;
            if *count == 0 {
                self.local_counts.remove(before);
            }
        }
        if let Some(of) = &of {
            *self.local_counts.entry(of.clone()).or_default() += 1;
        }
        for (service, _) in before.iter().chain(&of) {
            self.look_at(service);
        }
    }

    fn look_at_all(&mut self) {
        let names: BTreeSet<NamespacedName> = self.services.keys().chain(self.single.keys()).cloned().collect();
        names.iter().for_each(|name| self.look_at(name));
        self.in_need.retain(|name| self.services.contains_key(name));
    }

    /// Puts right what is announced of a Service.
    fn look_at(&mut self, name: &NamespacedName) {
        let facts = self.services.get(name);
        if facts.is_some_and(|facts| facts.is_local && self.ranges_of(facts).next().is_some()) {
            self.in_need.insert(name.clone());
        } else {
            self.in_need.remove(name);
        }
        let wanted = facts.map(|facts| self.wanted(name, facts)).unwrap_or_default();
        let before = self.single.remove(name).unwrap_or_default();
        for prefix in before.difference(&wanted) {
            if let Some(count) = self.counts.get_mut(prefix) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(prefix);
                }
            }
        }
        for prefix in wanted.difference(&before) {
            *self.counts.entry(*prefix).or_default() += 1;
        }
        if !wanted.is_empty() {
            self.single.insert(name.clone(), wanted);
        }
    }

    fn wanted(&self, name: &NamespacedName, facts: &Facts) -> BTreeSet<Prefix> {
        if self.is_excluded() {
            return BTreeSet::new();
        }
        let is_announced = |(address, is_single): &(IpAddr, bool)| {
            if facts.is_local {
                self.local_counts.contains_key(&(name.clone(), Family::of(*address)))
            } else {
                *is_single
            }
        };
        self.ranges_of(facts).filter(is_announced).map(|(address, _)| Prefix::host(address)).collect()
    }

    /// The addresses of a Service that lie in ranges, with whether such a range is not announced as a whole.
    fn ranges_of<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = (IpAddr, bool)> + 'a {
        let ServiceRanges { cluster, external, load_balancer, load_balancer_apart: apart } = &self.ranges;
        let within = |addresses: &'a [IpAddr], ranges: &'a [Prefix], single: fn(&Prefix) -> bool| {
            addresses.iter().filter_map(move |address| {
                let mut covering = ranges.iter().filter(|range| range.contains(*address)).peekable();
                covering.peek()?;
                Some((*address, covering.any(single)))
            })
        };
        let load_balancer_is_single: fn(&Prefix) -> bool = if *apart { |_| true } else { Prefix::is_host };
        // Of a cluster range each node announces the whole, whatever its length.
        within(&facts.cluster_ips, cluster, |_| false)
            .chain(within(&facts.external_ips, external, Prefix::is_host))
            .chain(within(&facts.ingress, load_balancer, load_balancer_is_single))
    }
}

/// The ranges that are announced as such.
fn whole(ranges: &ServiceRanges) -> impl Iterator<Item = Prefix> {
    let load_balancer = ranges.load_balancer.iter().filter(|range| !ranges.load_balancer_apart && !range.is_host());
    let external = ranges.external.iter().filter(|range| !range.is_host());
    ranges.cluster.iter().chain(external).chain(load_balancer).copied()
}

/// What was announced before a restart and may be still, going by the ranges of now: all that can be said while the API
/// server is away. Without any memory the ranges are announced, as they are by every node.
pub(crate) fn remembered(ranges: &ServiceRanges, before: Option<&BTreeSet<Prefix>>) -> BTreeSet<Prefix> {
    let Some(before) = before else { return whole(ranges).collect() };
    let whole: BTreeSet<Prefix> = whole(ranges).collect();
    let may_be = |prefix: &&Prefix| {
        whole.contains(prefix) || (prefix.is_host() && ranges.all().any(|range| range.covers(prefix)))
    };
    before.iter().filter(may_be).copied().collect()
}

/// What is to be kept of a Service; nothing of one whose addresses are never announced one by one.
fn facts(service: Service) -> Option<Facts> {
    let Service { is_local, cluster_ips, external_ips, ingress, .. } = service;
    // A headless Service is reached at its endpoints alone.
    let serves = !cluster_ips.is_empty() && (is_local || !external_ips.is_empty() || !ingress.is_empty());
    serves.then(|| Facts {
        is_local,
        cluster_ips: if is_local { cluster_ips } else { Vec::new() },
        external_ips,
        ingress,
    })
}

#[cfg(test)]
mod tests;
