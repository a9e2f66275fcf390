//! Which Service of type LoadBalancer gets which address (pure). The task around it is in
//! `load_balancer_task`.
//!
//! What Services' status says is the truth: an elected agent knows from it alone what was given out, so the next one goes on
//! where the last one ended. What is there and may be stays; then addresses that are asked for are given, then any, each time
//! to the older Service first. A Service whose status shows addresses that are of no pool, and nothing said by us, is served
//! by somebody else: it is left alone, as are those of another class.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use types::{AddressCondition, Family, NamespacedName, Prefix, Service};

use crate::cluster::desired::LoadBalancerPool;

/// The class of Services that are ours even where classless ones are somebody else's.
pub(crate) const CLASS: &str = "manx.io/load-balancer";

/// What a Service's status should say, and which state of it that was found for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusChange {
    /// The Service.
    pub(crate) service: NamespacedName,
    /// The state of it that this was found for, as the API server numbers it.
    pub(crate) version: String,
    /// The addresses that its status is to name.
    pub(crate) addresses: Vec<IpAddr>,
    /// The condition to write; none takes ours away, as the Service's addresses are not ours any more.
    pub(crate) condition: Option<AddressCondition>,
}

/// Whether a Service has to do with load balancing: what others of its fields say takes addresses away from nobody.
pub(crate) fn concerns(service: &Service) -> bool {
    service.is_load_balancer
        || service.said.is_some()
        || !service.ingress.is_empty()
        || !service.external_ips.is_empty()
}

/// The changes that bring Services' status to what it should be. `held`: addresses that were, or may have been, written to
/// a status that has not been seen since.
pub(crate) fn changes(
    pools: &[LoadBalancerPool],
    services: &BTreeMap<NamespacedName, Service>,
    held: &BTreeMap<NamespacedName, Vec<IpAddr>>,
) -> Vec<StatusChange> {
    let mut taken = BTreeMap::new();
    let mut ours = Vec::new();
    for (name, service) in services {
        taken.extend(service.external_ips.iter().map(|address| (*address, name)));
        if is_ours(pools, service) {
            ours.push(Claim::new(pools, name, service, held.get(name)));
        } else {
            // Of one that was ours, until its status says that it has given them up.
            taken.extend(service.ingress.iter().map(|address| (*address, name)));
        }
    }
    ours.sort_by(|a, b| (&a.service.created, a.name).cmp(&(&b.service.created, b.name)));
    ours.iter_mut().for_each(|claim| claim.keep(&mut taken));
    ours.iter_mut().for_each(|claim| claim.take_requested(&mut taken));
    let mut free = Free::default();
    ours.iter_mut().for_each(|claim| claim.take_any(&mut taken, &mut free));

    let released = services.iter().filter(|(_, service)| service.said.is_some() && !is_ours(pools, service));
    let released = released.map(|(name, service)| StatusChange {
        service: name.clone(),
        version: service.version.clone(),
        addresses: Vec::new(),
        condition: None,
    });
    let put = ours.into_iter().filter_map(|claim| {
        let is_unsure = held.contains_key(claim.name);
        let service = claim.service;
        let change = claim.outcome();
        let is_there = change.addresses == service.ingress && change.condition == service.said;
        (!is_there || is_unsure).then_some(change)
    });
    released.chain(put).collect()
}

/// Whether the Service is to have its addresses from us.
fn is_ours(pools: &[LoadBalancerPool], service: &Service) -> bool {
    // Without pools this is not what we are for; what was given out of former ones is taken back.
    if !service.is_load_balancer || pools.is_empty() {
        return false;
    }
    let is_pooled = |address: &IpAddr| pools.iter().any(|pool| pool.cidr.contains(*address));
    match service.class.as_deref() {
        Some(class) => class == CLASS,
        None => {
            let is_served = service.has_ingress_hostname || !service.ingress.iter().all(is_pooled);
            service.said.is_some() || !is_served
        }
    }
}

/// A Service on its way to its addresses.
struct Claim<'a> {
    name: &'a NamespacedName,
    service: &'a Service,
    pools: &'a [LoadBalancerPool],
    /// The addresses that the Service has and may keep.
    present: Vec<IpAddr>,
    /// What it is to have, by family, in the order of its families.
    wants: Vec<Want>,
    /// The reason and the sentence of what is wrong with the Service's request.
    problem: Option<(&'static str, String)>,
}

struct Want {
    family: Family,
    /// Just this address.
    requested: Option<IpAddr>,
    given: Option<IpAddr>,
}

impl<'a> Claim<'a> {
    fn new(
        pools: &'a [LoadBalancerPool],
        name: &'a NamespacedName,
        service: &'a Service,
        held: Option<&Vec<IpAddr>>,
    ) -> Self {
        let requested = &service.requested;
        let mut problem = requested.problem.clone().map(|problem| ("InvalidRequest", problem));
        let of_family = |family| requested.addresses.iter().copied().filter(move |it| Family::of(*it) == family);
        let mut wants: Vec<Want> = service
            .families
            .iter()
            .map(|family| Want { family: *family, requested: of_family(*family).next(), given: None })
            .collect();
        for family in Family::ALL {
            let most = usize::from(service.families.contains(&family));
            if of_family(family).count() > most {
                problem.get_or_insert_with(|| {
                    ("InvalidRequest", format!("more {family} addresses are requested than the Service can have"))
                });
            }
        }
        // A family that no pool is of is not missed beside one that there are pools of.
        let is_pooled = |family: Family| pools.iter().any(|pool| pool.cidr.family() == family);
        if wants.iter().any(|want| is_pooled(want.family)) {
            wants.retain(|want| want.requested.is_some() || is_pooled(want.family));
        }
        let present = held.into_iter().flatten().chain(&service.ingress).copied().collect();
        Self { name, service, pools, present, wants, problem }
    }

    /// The pools that it may have any address of.
    fn pools_of(&self, family: Family) -> impl Iterator<Item = &'a LoadBalancerPool> {
        let named = self.service.requested.pools.iter().find(|(of, _)| *of == family).map(|(_, names)| names);
        let is_named = move |pool: &LoadBalancerPool| {
            named.is_none_or(|names| names.contains(&pool.name) || names.contains(&pool.cidr.to_string()))
        };
        self.pools.iter().filter(move |pool| pool.cidr.family() == family && is_named(pool))
    }

    /// Lets the Service keep the addresses that it has and may have.
    fn keep(&mut self, taken: &mut BTreeMap<IpAddr, &'a NamespacedName>) {
        let mut wants = std::mem::take(&mut self.wants);
        for want in &mut wants {
            let is_valid = |address: &&IpAddr| {
                let is_pooled = || self.pools_of(want.family).any(|pool| pool.cidr.contains(**address));
                match want.requested {
                    Some(requested) => requested == **address && self.is_pooled(**address),
                    None => Family::of(**address) == want.family && is_pooled(),
                }
            };
            let mut valid = self.present.iter().filter(is_valid);
            want.given = valid.find(|address| !taken.contains_key(*address)).copied();
            taken.extend(want.given.map(|address| (address, self.name)));
        }
        self.wants = wants;
    }

    fn is_pooled(&self, address: IpAddr) -> bool {
        self.pools.iter().any(|pool| pool.cidr.contains(address))
    }

    /// Takes what it asks for.
    fn take_requested(&mut self, taken: &mut BTreeMap<IpAddr, &'a NamespacedName>) {
        for want in self.wants.iter_mut().filter(|want| want.given.is_none()) {
            let Some(address) = want.requested else { continue };
            let pool = self.pools.iter().find(|pool| pool.cidr.contains(address) && !pool.is_disabled);
            let problem = match (taken.get(&address), pool) {
                (Some(other), _) => ("AddressInUse", format!("{address} is requested, which {other} has")),
                (None, None) => {
                    ("NotInPool", format!("{address} is requested, which is in no pool for load balancing"))
                }
                (None, Some(_)) => {
                    taken.insert(address, self.name);
                    want.given = Some(address);
                    continue;
                }
            };
            self.problem.get_or_insert(problem);
        }
    }

    /// Takes what is free, in the first pool that has something.
    fn take_any(&mut self, taken: &mut BTreeMap<IpAddr, &'a NamespacedName>, free: &mut Free) {
        let is_unreadable = self.service.requested.problem.is_some();
        let mut wants = std::mem::take(&mut self.wants);
        for want in wants.iter_mut().filter(|want| want.given.is_none() && want.requested.is_none() && !is_unreadable) {
            want.given =
                self.pools_of(want.family).filter(|pool| !pool.is_disabled).find_map(|pool| free.take(pool, taken));
            match want.given {
                Some(address) => drop(taken.insert(address, self.name)),
                None => drop(self.problem.get_or_insert_with(|| {
                    ("NoFreeAddress", format!("no pool for load balancing has a free {} address for it", want.family))
                })),
            }
        }
        self.wants = wants;
    }

    fn outcome(self) -> StatusChange {
        let Self { name, service, pools, wants, problem, .. } = self;
        let addresses: Vec<IpAddr> = wants.iter().filter_map(|want| want.given).collect();
        let is_met = problem.is_none();
        let (reason, message) = problem.unwrap_or_else(|| {
            let of = |address: &IpAddr| pools.iter().find(|pool| pool.cidr.contains(*address));
            let texts: Vec<String> = addresses
                .iter()
                .map(|address| format!("{address} of pool {}", of(address).map_or("?", |pool| pool.name.as_str())))
                .collect();
            ("Assigned", texts.join(", "))
        });
        let condition = AddressCondition { is_met, reason: reason.to_owned(), message };
        StatusChange { service: name.clone(), version: service.version.clone(), addresses, condition: Some(condition) }
    }
}

/// Where the search for free addresses of each pool stands. Within one pass addresses are only taken.
#[derive(Default)]
struct Free(BTreeMap<Prefix, u128>);

impl Free {
    fn take<V>(&mut self, pool: &LoadBalancerPool, taken: &BTreeMap<IpAddr, V>) -> Option<IpAddr> {
        let bits = u32::from(pool.cidr.family().bits() - pool.cidr.len());
        let count = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        let next = self.0.entry(pool.cidr).or_default();
        while *next < count {
            let address = nth(pool.cidr, *next);
            if !taken.contains_key(&address) {
                return Some(address);
            }
            *next += 1;
        }
        None
    }
}

fn nth(range: Prefix, offset: u128) -> IpAddr {
    match range.addr() {
        // The offset is smaller than the range, so it fits into the bits of the address.
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() | u32::try_from(offset).unwrap_or(0)).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | offset).into(),
    }
}

/// What is wrong with which Services, for people.
pub(crate) fn problems(services: &BTreeMap<NamespacedName, Service>) -> BTreeSet<String> {
    let unmet = services.iter().filter_map(|(name, service)| Some((name, service.said.as_ref()?)));
    let unmet = unmet.filter(|(_, said)| !said.is_met);
    unmet
        .map(|(name, said)| format!("Service {name} has not the addresses that it is to have: {}", said.message))
        .collect()
}

#[cfg(test)]
mod tests;
