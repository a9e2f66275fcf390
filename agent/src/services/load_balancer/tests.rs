//! Addresses of Services, state by state.

use super::*;

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(name: &str, cidr: &str) -> LoadBalancerPool {
    LoadBalancerPool { name: name.to_owned(), cidr: cidr.parse().unwrap(), is_disabled: false }
}

fn pools() -> Vec<LoadBalancerPool> {
    vec![pool("lb", "203.0.113.0/30"), pool("lb6", "2001:db8::/126")]
}

/// A Service of one family, the `age`th that was made.
fn service(age: u32) -> Service {
    Service {
        is_load_balancer: true,
        families: vec![Family::Ipv4],
        created: format!("2026-01-01T00:00:{age:02}Z"),
        version: "1".to_owned(),
        ..Service::default()
    }
}

fn asking(age: u32, requested: &[&str]) -> Service {
    let mut service = service(age);
    service.requested.addresses = requested.iter().map(|text| address(text)).collect();
    service
}

/// Services as the API server has them, whose status follows what is found.
#[derive(Default)]
struct World {
    pools: Vec<LoadBalancerPool>,
    services: BTreeMap<NamespacedName, Service>,
}

impl World {
    fn of(services: impl IntoIterator<Item = (&'static str, Service)>) -> Self {
        let services = services.into_iter().map(|(service, spec)| (name(service), spec)).collect();
        Self { pools: pools(), services }
    }

    /// Puts every change in force, until there is none.
    fn settle(&mut self) -> usize {
        let mut rounds = 0;
        loop {
            let changes = changes(&self.pools, &self.services, &BTreeMap::new());
            if changes.is_empty() {
                self.is_sound();
                return rounds;
            }
            for change in changes {
                let service = self.services.get_mut(&change.service).unwrap();
                (service.ingress, service.said) = (change.addresses, change.condition);
            }
            rounds += 1;
            assert!(rounds < 3, "it does not come to rest");
        }
    }

    /// No address of ours is in two status.
    fn is_sound(&self) {
        let mut seen = BTreeSet::new();
        for service in self.services.values().filter(|service| service.said.is_some()) {
            for address in &service.ingress {
                assert!(seen.insert(*address), "{address} is given twice: {:#?}", self.services);
            }
        }
    }

    fn given(&self, service: &str) -> Vec<String> {
        self.services[&name(service)].ingress.iter().map(ToString::to_string).collect()
    }

    fn reason(&self, service: &str) -> &str {
        self.services[&name(service)].said.as_ref().map_or("", |said| said.reason.as_str())
    }
}

#[test]
fn each_gets_an_address_per_family_of_its_own_and_keeps_it() {
    let both = Service { families: vec![Family::Ipv6, Family::Ipv4], ..service(2) };
    let mut world = World::of([("a", service(1)), ("b", both)]);
    assert_eq!(world.settle(), 1);
    assert_eq!(world.given("a"), ["203.0.113.0"]);
    assert_eq!(world.given("b"), ["2001:db8::", "203.0.113.1"]);
    assert_eq!(world.reason("b"), "Assigned");
    // An older one that comes later takes nothing away.
    world.services.insert(name("old"), service(0));
    world.settle();
    assert_eq!(
        (world.given("a"), world.given("old")),
        (vec!["203.0.113.0".to_owned()], vec!["203.0.113.2".to_owned()])
    );
}

#[test]
fn what_a_service_gives_up_is_free_for_others() {
    let mut world =
        World::of([("a", service(1)), ("b", service(2)), ("c", service(3)), ("d", service(4)), ("e", service(5))]);
    world.settle();
    assert_eq!((world.given("e"), world.reason("e")), (vec![], "NoFreeAddress"));
    assert_eq!(problems(&world.services).len(), 1);
    // No longer of the type, of another class, gone.
    world.services.get_mut(&name("a")).unwrap().is_load_balancer = false;
    world.settle();
    assert_eq!((world.given("a"), world.reason("a")), (vec![], ""));
    assert_eq!(world.given("e"), ["203.0.113.0"]);
    world.services.get_mut(&name("b")).unwrap().class = Some("other".to_owned());
    world.services.remove(&name("c"));
    world.services.insert(name("f"), service(6));
    world.services.insert(name("g"), service(7));
    world.settle();
    assert_eq!(world.given("b"), Vec::<String>::new());
    // What b has to give up is free only once it has; what c had was free at once.
    assert_eq!((world.given("f"), world.given("g")), (vec!["203.0.113.2".to_owned()], vec!["203.0.113.1".to_owned()]));
    assert!(problems(&world.services).is_empty());
}

#[test]
fn a_requested_address_is_given_to_the_older_and_a_plain_service_keeps_off_it() {
    let mut world = World::of([
        ("young", asking(3, &["203.0.113.0"])),
        ("old", asking(2, &["203.0.113.0"])),
        ("plain", service(1)),
    ]);
    world.settle();
    assert_eq!(world.given("old"), ["203.0.113.0"]);
    assert_eq!((world.given("young"), world.reason("young")), (vec![], "AddressInUse"));
    assert_eq!(world.given("plain"), ["203.0.113.1"]);
    // It is in force, so it stays where it is when somebody older asks for it.
    world.services.insert(name("oldest"), asking(0, &["203.0.113.0"]));
    world.settle();
    assert_eq!((world.given("old"), world.reason("oldest")), (vec!["203.0.113.0".to_owned()], "AddressInUse"));
    world.services.remove(&name("old"));
    world.settle();
    assert_eq!((world.given("oldest"), world.given("young")), (vec!["203.0.113.0".to_owned()], vec![]));
}

#[test]
fn a_change_of_what_is_requested_moves_the_service() {
    let mut world = World::of([("a", service(1))]);
    world.settle();
    world.services.get_mut(&name("a")).unwrap().requested.addresses = vec![address("203.0.113.3")];
    world.settle();
    assert_eq!(world.given("a"), ["203.0.113.3"]);
    world.services.get_mut(&name("a")).unwrap().requested.addresses = vec![address("198.51.100.1")];
    world.settle();
    assert_eq!((world.given("a"), world.reason("a")), (vec![], "NotInPool"));
    world.services.get_mut(&name("a")).unwrap().requested.addresses.clear();
    world.settle();
    assert_eq!(world.given("a"), ["203.0.113.0"]);
}

#[test]
fn a_request_that_makes_no_sense_is_told_and_does_not_cost_the_other_family() {
    let both = Service { families: Family::ALL.to_vec(), ..asking(1, &["203.0.113.1", "203.0.113.2"]) };
    let mut world = World::of([("a", both), ("b", asking(2, &["2001:db8::1"]))]);
    world.services.get_mut(&name("b")).unwrap().requested.problem = None;
    world.settle();
    assert_eq!(
        (world.given("a"), world.reason("a")),
        (vec!["203.0.113.1".into(), "2001:db8::".into()], "InvalidRequest")
    );
    assert_eq!(world.reason("b"), "InvalidRequest");
    let mut unreadable = service(3);
    unreadable.requested.problem = Some("no list".to_owned());
    world.services.insert(name("c"), unreadable);
    world.settle();
    assert_eq!((world.given("c"), world.reason("c")), (vec![], "InvalidRequest"));
}

#[test]
fn pools_can_be_chosen_by_name_or_range_and_disabled_ones_give_nothing_new() {
    let mut world = World::of([("a", service(1)), ("b", service(2)), ("c", service(3))]);
    world.pools.push(pool("more", "198.51.100.0/30"));
    for (service, choice) in [("a", "more"), ("b", "198.51.100.0/30"), ("c", "none")] {
        let service = world.services.get_mut(&name(service)).unwrap();
        service.requested.pools = vec![(Family::Ipv4, vec![choice.to_owned()])];
    }
    world.settle();
    assert_eq!(
        (world.given("a"), world.given("b")),
        (vec!["198.51.100.0".to_owned()], vec!["198.51.100.1".to_owned()])
    );
    assert_eq!(world.reason("c"), "NoFreeAddress");
    world.pools.iter_mut().for_each(|pool| pool.is_disabled = true);
    world.services.insert(name("d"), service(4));
    world.settle();
    assert_eq!((world.given("a"), world.reason("d")), (vec!["198.51.100.0".to_owned()], "NoFreeAddress"));
}

#[test]
fn a_pool_that_goes_takes_its_addresses_along() {
    let mut world = World::of([("a", service(1))]);
    world.settle();
    world.pools = vec![pool("new", "192.0.2.0/30")];
    world.settle();
    assert_eq!(world.given("a"), ["192.0.2.0"]);
    world.pools.clear();
    world.settle();
    assert_eq!((world.given("a"), world.reason("a")), (vec![], ""));
}

#[test]
fn services_of_others_are_left_alone_and_their_addresses_too() {
    let classed = Service { class: Some("example.com/other".to_owned()), ..service(1) };
    let served = Service { ingress: vec![address("192.0.2.1"), address("203.0.113.0")], ..service(2) };
    let by_name = Service { has_ingress_hostname: true, ..service(3) };
    let external = Service { is_load_balancer: false, external_ips: vec![address("203.0.113.1")], ..service(4) };
    let ours = Service { class: Some(CLASS.to_owned()), ..service(5) };
    let mut world = World::of([
        ("classed", classed.clone()),
        ("served", served.clone()),
        ("named", by_name.clone()),
        ("external", external),
        ("ours", ours),
        ("plain", service(6)),
    ]);
    world.settle();
    for (service, before) in [("classed", classed), ("served", served), ("named", by_name)] {
        assert_eq!(world.services[&name(service)], before);
    }
    assert_eq!(
        (world.given("ours"), world.given("plain")),
        (vec!["203.0.113.2".to_owned()], vec!["203.0.113.3".to_owned()])
    );
}

#[test]
fn an_address_of_a_pool_that_somebody_else_has_written_is_taken_over() {
    let mut world = World::of([("a", Service { ingress: vec![address("203.0.113.2")], ..service(1) })]);
    world.settle();
    assert_eq!((world.given("a"), world.reason("a")), (vec!["203.0.113.2".to_owned()], "Assigned"));
}

#[test]
fn two_status_with_one_address_are_put_right() {
    let with = |age| Service { ingress: vec![address("203.0.113.2")], ..service(age) };
    let mut world = World::of([("young", with(2)), ("old", with(1))]);
    world.settle();
    assert_eq!(
        (world.given("old"), world.given("young")),
        (vec!["203.0.113.2".to_owned()], vec!["203.0.113.0".to_owned()])
    );
}

#[test]
fn what_may_have_been_written_is_given_to_nobody_else_and_written_again() {
    let world = World::of([("a", service(2)), ("b", service(1))]);
    let held = BTreeMap::from([(name("a"), vec![address("203.0.113.0")])]);
    let changes = changes(&world.pools, &world.services, &held);
    let of = |service| &changes.iter().find(|change| change.service == name(service)).unwrap().addresses;
    assert_eq!((of("a"), of("b")), (&vec![address("203.0.113.0")], &vec![address("203.0.113.1")]));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_service() -> impl Strategy<Value = Service> {
        let last = prop::sample::select((0..8_u8).collect::<Vec<_>>());
        let some = prop::option::of(last.clone());
        (0..6_u32, some.clone(), some, any::<bool>(), prop::option::weighted(0.2, Just("other".to_owned()))).prop_map(
            |(age, requested, present, is_load_balancer, class)| {
                let address = |last: u8| IpAddr::from([203, 0, 113, last]);
                let mut service = Service { is_load_balancer, class, ..service(age) };
                service.requested.addresses = requested.into_iter().map(address).collect();
                service.ingress = present.filter(|_| is_load_balancer).into_iter().map(address).collect();
                service
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_there_it_comes_to_rest_at_once_with_every_address_given_once(
            services in prop::collection::btree_map("[a-h]", any_service(), 0..8),
        ) {
            let services = services.into_iter().map(|(service, spec)| (name(&service), spec)).collect();
            let mut world = World { pools: pools(), services };
            let others: BTreeSet<IpAddr> = world.services.values()
                .filter(|service| !is_ours(&world.pools, service)).flat_map(|service| service.ingress.clone()).collect();
            prop_assert!(world.settle() <= 1);
            let all = pools();
            let in_pools = |address: &IpAddr| all.iter().any(|pool| pool.cidr.contains(*address));
            for service in world.services.values().filter(|service| service.said.is_some()) {
                prop_assert!(service.ingress.iter().all(|address| in_pools(address) && !others.contains(address)));
                let asked = service.requested.addresses.first();
                prop_assert!(asked.is_none() || service.ingress.iter().all(|given| Some(given) == asked));
            }
        }
    }
}
