//! Tests of connection tracking.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::IpAddr;

use kernel::acl::{Connection, ConnectionTable, Connections};
use types::Family;

use super::{CLIENT, Forwarder, SERVER, connect, each_variant, installed, rule, run, udp};
use crate::{in_fresh_namespace, ip};

/// A rule that makes the kernel track what is forwarded.
fn track(tables: &mut kernel::acl::Iptables) {
    for family in Family::ALL {
        rule(tables, family, "mangle", "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT");
    }
}

/// These tests run with the rules of one variant only, as both variants track connections alike.
fn tracked(test: impl Fn(&Forwarder, &mut ConnectionTable)) {
    let tested = std::cell::Cell::new(false);
    each_variant(|mut tables| {
        if !tested.replace(true) {
            let node = Forwarder::new();
            track(&mut tables);
            test(&node, &mut ConnectionTable::open().unwrap());
        }
    });
}

fn to_port(connections: &[Connection], port: u16) -> Connection {
    let found = connections.iter().find(|connection| connection.original.destination_port == port);
    found.unwrap_or_else(|| panic!("port {port} in {connections:?}")).clone()
}

#[test]
fn connections_of_both_families_are_listed_with_both_tuples() {
    in_fresh_namespace(|| {
        tracked(|node, table| {
            for (family, client, server) in [(Family::Ipv4, CLIENT[0], SERVER[0]), (Family::Ipv6, CLIENT[1], SERVER[1])]
            {
                let (client_end, _server_end) = connect(node, server, 4433);
                let found = to_port(&table.connections(family).unwrap(), 4433);
                assert_eq!((found.original.source, found.original.destination), (ip(client), ip(server)));
                assert_eq!(found.original.source_port, client_end.local_addr().unwrap().port());
                assert_eq!((found.original.protocol, found.zone), (6, 0));
                assert_eq!(
                    (found.reply.source, found.reply.destination_port),
                    (ip(server), found.original.source_port)
                );
                assert!(found.id.is_some());
                if installed("conntrack") {
                    let id = found.id.unwrap().to_string();
                    let shown =
                        run("conntrack", &["-L", "-o", "id", "-f", if client.contains(':') { "ipv6" } else { "ipv4" }]);
                    assert!(shown.contains(&format!("id={id}")), "{id} in {shown}");
                }
            }
        });
    });
}

#[test]
fn a_deleted_connection_is_gone_and_one_of_another_id_stays() {
    in_fresh_namespace(|| {
        tracked(|node, table| {
            let (mut client, mut server) = connect(node, SERVER[0], 4433);
            let found = to_port(&table.connections(Family::Ipv4).unwrap(), 4433);
            let other = Connection { id: found.id.map(|id| id ^ 1), ..found.clone() };
            table.delete_connection(&other).expect("another id is success");
            assert_eq!(to_port(&table.connections(Family::Ipv4).unwrap(), 4433), found);
            table.delete_connection(&found).unwrap();
            table.delete_connection(&found).expect("an absent one is success");
            assert!(table.connections(Family::Ipv4).unwrap().iter().all(|left| left.original != found.original));
            // The kernel tracks a connection again that it meets in its middle (nf_conntrack_tcp_loose).
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
            assert_eq!(to_port(&table.connections(Family::Ipv4).unwrap(), 4433).original, found.original);
        });
    });
}

#[test]
fn udp_and_pings_are_deleted_too() {
    in_fresh_namespace(|| {
        tracked(|node, table| {
            for (family, client, server) in [(Family::Ipv4, CLIENT[0], SERVER[0]), (Family::Ipv6, CLIENT[1], SERVER[1])]
            {
                let (from, to) = (udp(&node.client, client, 0), udp(&node.server, server, 5353));
                from.send_to(b"x", (ip(server), 5353)).unwrap();
                to.recv(&mut [0]).unwrap();
                if installed("ping") {
                    kernel::netns::run_in(&node.client, || run("ping", &["-c", "1", "-W", "10", server])).unwrap();
                }
                let of_server = [ip(server)].into();
                let found = table.connections_of(&of_server).unwrap();
                assert!(found.iter().any(|connection| connection.original.protocol == 17), "{found:?}");
                let pings = found.iter().filter(|connection| matches!(connection.original.protocol, 1 | 58));
                assert_eq!(pings.count(), usize::from(installed("ping")), "{found:?}");
                for connection in &found {
                    table.delete_connection(connection).unwrap();
                }
                assert_eq!(table.connections(family).unwrap(), []);
            }
        });
    });
}

#[test]
fn connections_of_an_address_are_found_at_either_end_and_behind_nat() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            let node = Forwarder::new();
            let mut table = ConnectionTable::open().unwrap();
            track(&mut tables);
            let nat = "-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.65.0.6:8080";
            rule(&mut tables, Family::Ipv4, "nat", nat);
            let listener = kernel::netns::run_in(&node.server, || std::net::TcpListener::bind((ip(SERVER[0]), 8080)));
            let _listener = listener.unwrap().unwrap();
            let client = kernel::netns::run_in(&node.client, || std::net::TcpStream::connect((ip("10.96.0.1"), 80)));
            let _client = client.unwrap().unwrap();
            let _other = connect(&node, SERVER[1], 4433);
            for address in ["10.65.0.5", "10.65.0.6", "10.96.0.1"] {
                let found = table.connections_of(&[ip(address)].into()).unwrap();
                assert_eq!(found.len(), 1, "{address}: {found:?}");
                assert_eq!(found[0].original.destination, ip("10.96.0.1"));
                assert_eq!((found[0].reply.source, found[0].reply.source_port), (ip(SERVER[0]), 8080));
            }
            assert_eq!(table.connections_of(&[ip("10.65.0.9")].into()).unwrap(), []);
            let both: BTreeSet<IpAddr> = [ip(CLIENT[0]), ip(CLIENT[1])].into();
            assert_eq!(table.connections_of(&both).unwrap().len(), 2);
            let many: BTreeSet<IpAddr> = (1..=9).map(|last| IpAddr::from([10, 65, 0, last])).collect();
            assert_eq!(table.connections_of(&many).unwrap().len(), 1);
            for connection in table.connections_of(&both).unwrap() {
                table.delete_connection(&connection).unwrap();
            }
            assert_eq!(table.connections_of(&both).unwrap(), []);
            rule(&mut tables, Family::Ipv4, "nat", "-F PREROUTING");
            for family in Family::ALL {
                rule(&mut tables, family, "mangle", "-F FORWARD");
            }
        });
    });
}
