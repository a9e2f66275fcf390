//! Measures how long calls take; the times are printed and never judged. `cargo test ... speed -- --nocapture`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use kernel::acl::{ConnectionTable, Connections, ElementChange, LinuxSets, SetElement, SetKind, SetOf, SetSpec, Sets};
use nix::sys::resource::{UsageWho, getrusage};
use types::Family;

use super::{each_variant, rule, run, set_name};
use crate::in_fresh_namespace;

/// Times of this thread: what the clock says, and what the processor worked (on a loaded machine the one to compare).
struct Stopwatch(Instant, Duration);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), worked())
    }

    fn print(&self, what: &str, divisor: u32) {
        eprintln!("{what}: {:?} wall, {:?} processor", self.0.elapsed() / divisor, (worked() - self.1) / divisor);
    }
}

fn worked() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let of = |time: nix::sys::time::TimeVal| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64);
    of(usage.user_time()) + of(usage.system_time())
}

const MEMBERS: u32 = 100_000;

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

#[test]
fn a_hundred_thousand_members_are_put_listed_and_deleted() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        let name = set_name("manx-large");
        let spec =
            SetSpec { kind: SetKind::Addresses, family: Family::Ipv4, max_elements: 1 << 20, hash_size: 1 << 15 };
        sets.create_set(&name, &spec).unwrap();
        let set = SetOf::new(name.clone());
        let puts: Vec<_> = (0..MEMBERS).map(|number| ElementChange::Put(address(number))).collect();
        let stopwatch = Stopwatch::start();
        for put in puts.iter().take(2_000) {
            assert_eq!(sets.change_elements(&set.changes([*put])).unwrap(), []);
        }
        stopwatch.print("one by one, a member", 2_000);
        for batch in [3, 64] {
            let stopwatch = Stopwatch::start();
            for put in puts.chunks(batch).take(500) {
                assert_eq!(sets.change_elements(&set.changes(put.iter().copied())).unwrap(), []);
            }
            stopwatch.print(&format!("{batch} at once, a batch"), 500);
        }
        let stopwatch = Stopwatch::start();
        assert_eq!(sets.change_elements(&set.changes(puts.iter().copied())).unwrap(), []);
        stopwatch.print("all at once", 1);
        let stopwatch = Stopwatch::start();
        let mut listed = sets.elements(&name).unwrap();
        stopwatch.print("listed", 1);
        listed.sort();
        assert_eq!(listed, (0..MEMBERS).map(|number| SetElement::Address(address(number))).collect::<Vec<_>>());
        // Adding and deleting by turns prevents that changes are packed.
        let turns: Vec<_> =
            puts.iter().take(5_000).flat_map(|put| [ElementChange::Delete(put.element()), *put]).collect();
        let stopwatch = Stopwatch::start();
        assert_eq!(sets.change_elements(&set.changes(turns)).unwrap(), []);
        stopwatch.print("10,000 by turns", 1);
        let deletions: Vec<_> = (0..MEMBERS).map(|number| ElementChange::Delete(address(number))).collect();
        let stopwatch = Stopwatch::start();
        assert_eq!(sets.change_elements(&set.changes(deletions)).unwrap(), []);
        stopwatch.print("all deleted", 1);
        assert_eq!(sets.elements(&name).unwrap(), []);
    });
}

#[test]
fn thousands_of_connections_are_listed_and_those_of_one_address_picked() {
    in_fresh_namespace(|| {
        let tested = std::cell::Cell::new(false);
        each_variant(|mut tables| {
            if tested.replace(true) {
                return;
            }
            run("ip", &["link", "set", "lo", "up"]);
            rule(&mut tables, Family::Ipv4, "mangle", "-A OUTPUT -m conntrack --ctstate NEW -j ACCEPT");
            let sink = std::net::UdpSocket::bind(("127.0.0.1", 9)).unwrap();
            for port in 0..10_000_u16 {
                let from = Ipv4Addr::new(127, 0, 1, (port % 250) as u8);
                let socket = std::net::UdpSocket::bind((from, 20_000 + port)).unwrap();
                socket.send_to(b"x", sink.local_addr().unwrap()).unwrap();
            }
            let mut table = ConnectionTable::open().unwrap();
            let stopwatch = Stopwatch::start();
            let all = table.connections(Family::Ipv4).unwrap();
            stopwatch.print("10,000 connections listed", 1);
            assert_eq!(all.len(), 10_000);
            let one: IpAddr = [127, 0, 1, 7].into();
            let stopwatch = Stopwatch::start();
            let picked = table.connections_of(&[one].into()).unwrap();
            stopwatch.print("40 of one address picked", 1);
            assert_eq!(picked.len(), 40);
            let stopwatch = Stopwatch::start();
            for connection in &picked {
                table.delete_connection(connection).unwrap();
            }
            stopwatch.print("deleted", 1);
            assert_eq!(table.connections(Family::Ipv4).unwrap().len(), 9_960);
        });
    });
}
