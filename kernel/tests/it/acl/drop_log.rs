//! Tests of the log of denied packets.

use std::time::Duration;

use kernel::KernelError;
use kernel::acl::{DropLog, LogEvent, LoggedPacket};
use kernel::events::Wait;
use types::Family;

use super::{CLIENT, Forwarder, SERVER, each_variant, rule, udp};
use crate::{in_fresh_namespace, ip};

/// Long enough for any machine; only a failing test waits for it.
const TEST_TIME_LIMIT: Duration = Duration::from_secs(20);

fn await_packet(log: &mut DropLog, family: Family) -> LoggedPacket {
    loop {
        match log.next(Some(TEST_TIME_LIMIT)).unwrap() {
            Wait::Event(LogEvent::Packet(logged))
                if logged.packet.is_some_and(|packet| Family::of(packet.tuple.source) == family) =>
            {
                return logged;
            }
            Wait::Event(_) => {}
            other => panic!("no packet: {other:?}"),
        }
    }
}

#[test]
fn a_dropped_packet_is_read_with_its_rule_interfaces_and_tuple() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            let node = Forwarder::new();
            let mut log = DropLog::open(77).unwrap();
            for (family, client, server) in [(Family::Ipv4, CLIENT[0], SERVER[0]), (Family::Ipv6, CLIENT[1], SERVER[1])]
            {
                let rules = "-A FORWARD -p udp -j MARK --set-xmark 0x50000/0xff0000\n\
                             -A FORWARD -p udp -j NFLOG --nflog-group 77 --nflog-prefix \"manx:in:7\"\n\
                             -A FORWARD -p udp -j DROP";
                rule(&mut tables, family, "mangle", rules);
                let socket = udp(&node.client, client, 0);
                socket.send_to(b"forbidden", (ip(server), 9)).unwrap();
                let logged = await_packet(&mut log, family);
                assert_eq!(logged.prefix, "manx:in:7");
                assert_eq!((logged.in_interface, logged.out_interface), (Some(node.links[0]), Some(node.links[1])));
                assert_eq!(logged.mark, 0x50000);
                let tuple = logged.packet.unwrap().tuple;
                assert_eq!((tuple.source, tuple.destination), (ip(client), ip(server)));
                assert_eq!((tuple.protocol, tuple.destination_port), (17, 9));
                assert_eq!(tuple.source_port, socket.local_addr().unwrap().port());
                rule(&mut tables, family, "mangle", "-F FORWARD");
            }
        });
    });
}

#[test]
fn a_group_has_one_reader_until_that_is_gone() {
    in_fresh_namespace(|| {
        let first = DropLog::open(77).unwrap();
        let error = DropLog::open(77).unwrap_err();
        assert!(matches!(error, KernelError::Denied(_)), "{error}");
        assert!(error.to_string().contains("another program reads it"), "{error}");
        let other = kernel::Netns::create().unwrap();
        DropLog::open_in(&other, 77).unwrap();
        drop(first);
        DropLog::open(77).unwrap();
    });
}

#[test]
fn a_wait_for_packets_ends_when_it_is_woken() {
    in_fresh_namespace(|| {
        let mut log = DropLog::open(1).unwrap();
        let waker = log.waker();
        std::thread::scope(|scope| {
            scope.spawn(move || waker.wake());
            assert_eq!(log.next(Some(TEST_TIME_LIMIT)).unwrap(), Wait::Woken);
        });
        assert_eq!(log.next(Some(Duration::ZERO)).unwrap(), Wait::TimedOut);
    });
}
