//! What is in the kernel follows from what the sources have said last, whatever happened on the way.

use kernel::RouteChange;
use proptest::prelude::*;

use super::*;

/// One thing that happens to a node.
#[derive(Debug, Clone)]
enum NodeEvent {
    Attach {
        pod: u8,
    },
    Detach {
        pod: u8,
    },
    OwnBlocks(u8),
    Learn {
        place: usize,
        next_hops: u8,
    },
    Unlearn {
        place: usize,
    },
    Link {
        index: u32,
        up: bool,
    },
    /// Another program puts (or deletes) a static route to the next hop that is not on a link.
    StaticRoute(bool),
    /// Another program puts (or deletes) a route with our metric.
    ForeignRoute {
        place: usize,
        there: bool,
    },
    /// Another program deletes a route of ours.
    Theft {
        place: usize,
    },
    LostEvents,
    Fail(Operation),
    FailRoute {
        place: usize,
    },
    Heal,
    /// The owner takes what has come; then this much time passes.
    Round {
        millis: u64,
    },
}

/// The prefixes of routes: some are wanted by several sources, and one covers next hops.
const PLACES: [&str; 6] = ["10.0.0.0/26", "10.0.0.64/26", P, "10.0.0.1/32", "192.0.2.0/25", "fd00:1::/122"];
const BLOCKS: [&str; 3] = ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.1/32"];

fn step() -> impl Strategy<Value = NodeEvent> {
    let place = || 0..PLACES.len();
    prop_oneof![
        3 => (0..4_u8).prop_map(|pod| NodeEvent::Attach { pod }),
        2 => (0..4_u8).prop_map(|pod| NodeEvent::Detach { pod }),
        2 => (0..8_u8).prop_map(NodeEvent::OwnBlocks),
        6 => (place(), 1..8_u8).prop_map(|(place, next_hops)| NodeEvent::Learn { place, next_hops }),
        3 => place().prop_map(|place| NodeEvent::Unlearn { place }),
        4 => (2..8_u32, any::<bool>()).prop_map(|(index, up)| NodeEvent::Link { index, up }),
        2 => any::<bool>().prop_map(NodeEvent::StaticRoute),
        2 => (place(), any::<bool>()).prop_map(|(place, there)| NodeEvent::ForeignRoute { place, there }),
        2 => place().prop_map(|place| NodeEvent::Theft { place }),
        1 => Just(NodeEvent::LostEvents),
        1 => prop_oneof![
            Just(Operation::ChangeRoutes), Just(Operation::Routes), Just(Operation::Links),
            Just(Operation::Addresses), Just(Operation::Resolve)
        ].prop_map(NodeEvent::Fail),
        1 => place().prop_map(|place| NodeEvent::FailRoute { place }),
        1 => Just(NodeEvent::Heal),
        8 => (0..200_u64).prop_map(|millis| NodeEvent::Round { millis }),
    ]
}

/// What the sources say once everything has happened.
#[derive(Debug, Default, PartialEq)]
struct Said {
    pods: BTreeSet<u8>,
    blocks: BTreeSet<Prefix>,
    learned: BTreeMap<usize, u8>,
}

impl Said {
    /// Tells all of it to an owner that has heard nothing yet.
    fn all(&self, routes: &mut Routes) {
        self.learned.iter().for_each(|(place, hops)| routes.tell(Command::Fib(vec![learn(*place, *hops)])));
        routes.tell(Command::OwnBlocks(self.blocks.clone()));
        self.pods.iter().for_each(|pod| drop(routes.attach(*pod, &pod_address(*pod))));
    }
}

fn pod_address(pod: u8) -> String {
    format!("10.0.0.{}", pod + 1)
}

fn learn(place: usize, next_hops: u8) -> FibUpdate {
    let prefix = prefix(PLACES[place]);
    let of_family = NEXT_HOPS.iter().map(|hop| ip(hop)).filter(|hop| Family::of(*hop) == prefix.family());
    let chosen: Vec<_> =
        of_family.enumerate().filter(|(bit, _)| next_hops >> bit & 1 == 1).map(|(_, hop)| hop).collect();
    FibUpdate::Set { prefix, next_hops: chosen }
}

fn foreign_route(place: usize) -> Route {
    let prefix = prefix(PLACES[place]);
    Route::unreachable(prefix, 4).with_metric(metric::bgp(prefix.family()))
}

fn take(step: &NodeEvent, kernel: &FakeKernel, routes: &mut Routes, said: &mut Said) {
    let mut other = kernel.clone();
    match *step {
        NodeEvent::Attach { pod } => {
            said.pods.insert(pod);
            let mut answer = routes.attach(pod, &pod_address(pod));
            // If the interface could not be read, the attach has failed and the pod is not attached.
            if matches!(answer.try_recv(), Ok(Err(_))) {
                said.pods.remove(&pod);
            }
        }
        NodeEvent::Detach { pod } => {
            said.pods.remove(&pod);
            drop(routes.detach(&pod_address(pod)));
        }
        NodeEvent::OwnBlocks(which) => {
            let chosen = BLOCKS.iter().enumerate().filter(|(bit, _)| which >> bit & 1 == 1);
            said.blocks = chosen.map(|(_, block)| prefix(block)).collect();
            routes.tell(Command::OwnBlocks(said.blocks.clone()));
        }
        NodeEvent::Learn { place, next_hops } => {
            said.learned.insert(place, next_hops);
            routes.tell(Command::Fib(vec![learn(place, next_hops)]));
        }
        NodeEvent::Unlearn { place } => {
            said.learned.remove(&place);
            routes.tell(Command::Fib(vec![withdraw(PLACES[place])]));
        }
        NodeEvent::Link { index, up } => kernel.set_link_up(index, up),
        // The kernel refuses this route while its gateway's link is down; then there is none.
        NodeEvent::StaticRoute(true) => {
            drop(kernel.put_route(Route::via(prefix("203.0.113.0/24"), 4, [ip("192.0.2.254")])));
        }
        NodeEvent::StaticRoute(false) => kernel.remove_routes(prefix("203.0.113.0/24")),
        NodeEvent::ForeignRoute { place, there: true } => drop(kernel.put_route(foreign_route(place))),
        NodeEvent::ForeignRoute { place, there: false } => {
            drop(other.change_routes(&[RouteChange::Delete(foreign_route(place))]));
        }
        NodeEvent::Theft { place } => {
            let route = |protocol, metric| Route::unreachable(prefix(PLACES[place]), protocol).with_metric(metric);
            let bgp = route(ours::ROUTE_PROTOCOL_BGP, metric::bgp(prefix(PLACES[place]).family()));
            let local = route(ours::ROUTE_PROTOCOL_LOCAL, metric::LOCAL);
            let block = route(ours::ROUTE_PROTOCOL_LOCAL, metric::own_block(prefix(PLACES[place]).family()));
            let theft = [bgp, local, block].map(RouteChange::Delete);
            drop(other.change_routes(&theft));
        }
        NodeEvent::LostEvents => kernel.lose_events(),
        NodeEvent::Fail(operation) => kernel.fail(operation, 1, 105),
        NodeEvent::FailRoute { place } => kernel.fail_route(prefix(PLACES[place]), 12),
        NodeEvent::Heal => kernel.heal(),
        NodeEvent::Round { millis } => {
            let before = foreign(kernel);
            routes.after(Duration::from_millis(millis));
            assert_eq!(foreign(kernel), before, "foreign routes are never touched");
        }
    }
}

/// Lets time pass until everything that was refused or has to be read again is settled.
fn calm(routes: &mut Routes) {
    for _ in 0..4 {
        routes.after(Duration::from_secs(31));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever has happened on the way: what is in the kernel in the end follows from what the sources say in the end,
    /// and who starts anew finds nothing to write.
    #[test]
    fn the_kernel_follows_from_the_last_state_alone(steps in proptest::collection::vec(step(), 1..60)) {
        let kernel = node();
        let mut routes = Routes::start(&kernel);
        let mut said = Said::default();
        let mut down = BTreeSet::new();
        for step in &steps {
            take(step, &kernel, &mut routes, &mut said);
            if let NodeEvent::Link { index, up } = step {
                if *up { down.remove(index) } else { down.insert(*index) };
            }
        }
        kernel.heal();
        routes.tell(Command::LocalInSync);
        routes.fib(Family::ALL.map(|family| FibUpdate::InSync { family }));
        calm(&mut routes);

        let fresh = node();
        down.iter().for_each(|index| fresh.set_link_up(*index, false));
        foreign(&kernel).into_iter().for_each(|route| fresh.put_route(route).unwrap());
        let mut direct = Routes::start(&fresh);
        said.all(&mut direct);
        calm(&mut direct);
        prop_assert_eq!(kernel.all_routes(), fresh.all_routes());
        prop_assert_eq!(routes.view().failures, direct.view().failures);

        kernel.take_route_changes();
        let mut restarted = Routes::start(&kernel);
        said.all(&mut restarted);
        restarted.tell(Command::LocalInSync);
        restarted.fib(Family::ALL.map(|family| FibUpdate::InSync { family }));
        calm(&mut restarted);
        prop_assert_eq!(kernel.take_route_changes(), []);
    }
}
