//! Tests of the kernel's events.

use std::time::Duration;

use kernel::events::{Event, EventSource, Events, Group, Wait};
use kernel::netns::run_in;
use kernel::{Kernel, Linux, Route, RouteChange, ours};

use crate::{Node, in_fresh_namespace, ip, link_scoped, name, prefix, set_up, veth};

/// Long enough for any machine; only a failing test waits for it.
const TEST_TIME_LIMIT: Duration = Duration::from_secs(20);

/// The first event that passes the test; panics if none does in time.
pub(crate) fn await_event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        match events.next(Some(TEST_TIME_LIMIT)).unwrap() {
            Wait::Event(event) if wanted(&event) => return event,
            Wait::Event(_) => {}
            other => panic!("no such event: {other:?}"),
        }
    }
}

/// All events so far: what was done before this call is in the queue already.
fn drain(events: &mut Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Wait::Event(event) = events.next(Some(Duration::ZERO)).unwrap() {
        all.push(event);
    }
    all
}

#[test]
fn a_route_deleted_by_another_program_is_reported_whole() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let routes = [
            Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1"), ip("192.0.2.2")]),
            Route::via(prefix("fd00::/122"), 78, [ip("2001:db8::1"), ip("2001:db8::2")]),
            Route::unreachable(prefix("10.0.0.64/26"), 77),
        ];
        assert_eq!(node.kernel.change_routes(&routes.clone().map(RouteChange::Replace)).unwrap(), []);
        let mut events = Events::subscribe_to(&[Group::Routes]).unwrap().except(node.kernel.port().unwrap());
        let mut other = Linux::open().unwrap();
        assert_eq!(other.change_routes(&routes.clone().map(RouteChange::Delete)).unwrap(), []);
        for route in routes {
            let route = route.canonical();
            await_event(&mut events, |event| matches!(event, Event::RouteDeleted(gone) if route.is_met_by(gone)));
        }
    });
}

#[test]
fn own_changes_are_left_out_and_foreign_ones_are_not() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let mut events = Events::subscribe_to(&[Group::Routes]).unwrap().except(node.kernel.port().unwrap());
        let block = |n: u8| prefix(&format!("10.0.{n}.0/26"));
        let own = (0..100).map(|n| RouteChange::Replace(Route::unreachable(block(n), 77)));
        assert_eq!(node.kernel.change_routes(&own.collect::<Vec<_>>()).unwrap(), []);
        let foreign = RouteChange::Replace(Route::unreachable(block(200), 4));
        assert_eq!(Linux::open().unwrap().change_routes(&[foreign]).unwrap(), []);
        let mut told = drain(&mut events);
        // The kernel makes routes for the node's addresses by itself, at a time of its own.
        told.retain(|event| !matches!(event, Event::RouteChanged(route) if route.protocol == libc::RTPROT_KERNEL));
        assert!(matches!(told.as_slice(), [Event::RouteChanged(route)] if route.prefix == block(200)), "{told:?}");
    });
}

#[test]
fn a_link_that_goes_down_says_so_but_its_ipv4_routes_go_silently() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let route = Route::via(prefix("10.0.0.0/26"), 78, [ip("192.0.2.1")]);
        assert_eq!(node.kernel.change_routes(&[RouteChange::Replace(route)]).unwrap(), []);
        let mut events = Events::subscribe().unwrap();
        set_up(&mut node.kernel, node.eth0, false);
        await_event(&mut events, |event| matches!(event, Event::LinkChanged(link) if link.name == "eth0" && !link.up));
        let rest = drain(&mut events);
        assert!(!rest.iter().any(|event| matches!(event, Event::RouteDeleted(r) if r.protocol == 78)), "{rest:?}");
        node.kernel.delete_link(node.eth0).unwrap();
        await_event(&mut events, |event| matches!(event, Event::LinkDeleted(link) if link.index == node.eth0));
    });
}

#[test]
fn carrier_and_addresses_are_reported() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let mut events = Events::subscribe_to(&[Group::Links, Group::Addresses]).unwrap();
        run_in(&node.fabric, || {
            let mut outside = Linux::open().unwrap();
            let peer = outside.link(&name("eth0")).unwrap().unwrap().index;
            set_up(&mut outside, peer, false);
        })
        .unwrap();
        await_event(&mut events, |event| matches!(event, Event::LinkChanged(link) if link.up && !link.running));
        let address = link_scoped(node.eth0, "169.254.1.1");
        node.kernel.add_address(&address).unwrap();
        await_event(&mut events, |event| matches!(event, Event::AddressChanged(a) if a.address == address.address));
        node.kernel.delete_address(&address).unwrap();
        await_event(&mut events, |event| matches!(event, Event::AddressDeleted(a) if a.address == address.address));
        let pod = kernel::Netns::create().unwrap();
        node.kernel.create_veth(&veth("mx0", &pod)).unwrap();
        await_event(&mut events, |event| matches!(event, Event::LinkChanged(link) if link.mac == Some(ours::HOST_MAC)));
    });
}

#[test]
fn what_a_slow_reader_misses_is_reported_as_lost() {
    in_fresh_namespace(|| {
        let mut node = Node::new();
        let mut events = Events::subscribe_to(&[Group::Routes]).unwrap();
        let flap: Vec<RouteChange> = (0..50_000)
            .flat_map(|_| {
                let route = Route::unreachable(prefix("10.0.0.0/26"), 77);
                [RouteChange::Replace(route.clone()), RouteChange::Delete(route)]
            })
            .collect();
        assert_eq!(node.kernel.change_routes(&flap).unwrap(), []);
        await_event(&mut events, |event| *event == Event::Lost);
    });
}

#[test]
fn a_wait_ends_when_it_is_woken_from_another_thread() {
    in_fresh_namespace(|| {
        let mut events = Events::subscribe_to(&[Group::Links]).unwrap();
        let waker = events.waker();
        std::thread::scope(|scope| {
            scope.spawn(move || waker.wake());
            assert_eq!(events.next(Some(TEST_TIME_LIMIT)).unwrap(), Wait::Woken);
        });
        assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Wait::TimedOut);
    });
}
