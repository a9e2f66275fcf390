//! What callers' tests rely on in the fakes.

use std::time::Duration;

use types::Family;

use super::*;
use crate::acl::{ElementChange, MarkedAddress, RuleChange, RuleChangeKind, SetKind, SetOf, Sets, Tables, Tuple};

fn name(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

fn spec(kind: SetKind, max_elements: u32) -> SetSpec {
    SetSpec { kind, family: Family::Ipv4, max_elements, hash_size: 64 }
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn nft(acl: &FakeAcl) -> FakeTables {
    acl.tables(IptablesVariant::Nft)
}

const MAP: &str = "*mangle\n:manx-fw - [0:0]\n-A manx-fw -m set --match-set manx-a src -j DROP\n\
                   -A FORWARD -m comment --comment \"manx: a b\" -j manx-fw\nCOMMIT\n";

#[test]
fn a_restore_is_saved_as_it_was_given_and_holds_the_sets_that_it_names() {
    let acl = FakeAcl::new();
    let (mut sets, mut tables) = (acl.sets(), nft(&acl));
    let error = tables.restore(Family::Ipv4, MAP).unwrap_err();
    assert!(error.to_string().contains("set manx-a does not exist"), "{error}");
    assert_eq!(acl.chains(Family::Ipv4, "mangle"), Vec::<String>::new());

    sets.create_set(&name("manx-a"), &spec(SetKind::Addresses, 10)).unwrap();
    tables.restore(Family::Ipv4, MAP).unwrap();
    let saved = tables.save(Family::Ipv4, "mangle", false).unwrap();
    assert!(saved.contains("\n-A FORWARD -m comment --comment \"manx: a b\" -j manx-fw\n"), "{saved}");
    assert_eq!(sets.sets().unwrap()[0].references, 1);
    assert!(matches!(sets.destroy_set(&name("manx-a")), Err(KernelError::Busy(_))));
    tables.restore(Family::Ipv4, "*mangle\n-F manx-fw\nCOMMIT\n").unwrap();
    sets.destroy_set(&name("manx-a")).unwrap();
    sets.destroy_set(&name("manx-a")).unwrap();
}

#[test]
fn each_table_of_a_restore_is_all_or_nothing_and_earlier_ones_stay() {
    let acl = FakeAcl::new();
    let mut tables = nft(&acl);
    let text = "*mangle\n:manx-a - [0:0]\nCOMMIT\n*filter\n:manx-b - [0:0]\n-A manx-b -j nowhere\nCOMMIT\n";
    let error = tables.restore(Family::Ipv4, text).unwrap_err().to_string();
    assert!(error.contains("line 6"), "{error}");
    assert_eq!(acl.rules(Family::Ipv4, "mangle", "manx-a"), Some(Vec::new()));
    assert_eq!(acl.rules(Family::Ipv4, "filter", "manx-b"), None);
}

#[test]
fn the_commands_of_a_restore_mean_what_iptables_means() {
    let acl = FakeAcl::new();
    let mut tables = nft(&acl);
    let mut mangle = |lines: &str| tables.restore(Family::Ipv6, &format!("*mangle\n{lines}\nCOMMIT\n"));
    mangle(":a - [0:0]\n:b - [0:0]\n[7:8] -A a -j DROP\n-I a -j ACCEPT\n-I a 2 -j b\n-A FORWARD -j a").unwrap();
    assert_eq!(acl.rules(Family::Ipv6, "mangle", "a").unwrap(), ["-j ACCEPT", "-j b", "-j DROP"]);
    for refused in [
        "-X b",           // referred to
        "-F b\n-X a",     // not empty
        "-X FORWARD",     // built in
        "-D a -j RETURN", // no such rule
        "-F c",           // no such chain
        "-N a",           // exists
        "-A b -j b",      // a loop
        "-A b -j a",      // a longer one
        "-R a 9 -j DROP", // no such place
        ":c DROP [0:0]",  // no policy
        "-A FORWARD -m set --match-set none src",
        "-A a\n*filter",
    ] {
        assert!(mangle(refused).is_err(), "{refused}");
    }
    mangle("-D a -j b\n-X b\n-R a 1 -j RETURN\n-D a 2\n-P FORWARD DROP").unwrap();
    assert_eq!(acl.rules(Family::Ipv6, "mangle", "a").unwrap(), ["-j RETURN"]);
    assert_eq!(acl.rules(Family::Ipv6, "mangle", "b"), None);
    mangle(":a - [0:0]\n:FORWARD ACCEPT [0:0]").unwrap();
    assert_eq!(acl.rules(Family::Ipv6, "mangle", "a"), Some(Vec::new()), "a declared chain is emptied");
    assert_eq!(acl.rules(Family::Ipv6, "mangle", "FORWARD").unwrap(), ["-j a"], "one that is built in is not");
    acl.count_packets(Family::Ipv6, "mangle", "FORWARD", 0, 3, 180);
    let saved = nft(&acl).save(Family::Ipv6, "mangle", true).unwrap();
    assert!(saved.contains("\n[3:180] -A FORWARD -j a\n"), "{saved}");
    let filter = "*filter\n-A FORWARD -j SET --map-set x dst --map-mark\nCOMMIT\n";
    assert!(nft(&acl).restore(Family::Ipv6, filter).is_err());
}

#[test]
fn a_full_set_takes_no_more_and_a_mark_is_overwritten_in_place() {
    let acl = FakeAcl::new();
    let mut sets = acl.sets();
    let (small, marks) = (name("manx-small"), name("manx-ep4"));
    sets.create_set(&small, &spec(SetKind::Addresses, 1)).unwrap();
    let changes = [1, 2, 1].map(|last| ElementChange::Put(address(last)));
    let failures = sets.change_elements(&SetOf::new(small.clone()).changes(changes)).unwrap();
    assert!(matches!(failures.as_slice(), [only] if only.index == 1 && matches!(only.error, KernelError::Full(_))));

    sets.create_set(&marks, &spec(SetKind::Marks, 1)).unwrap();
    let mark = |mark| MarkedAddress { address: address(1), mark, mask: 0x00ff_0000 };
    let changes = [ElementChange::Put(mark(1 << 16)), ElementChange::Put(mark(2 << 16))];
    assert_eq!(sets.change_elements(&SetOf::new(marks.clone()).changes(changes)).unwrap(), []);
    assert_eq!(sets.elements(&marks).unwrap(), [SetElement::Mark(mark(2 << 16))]);
    let wrong = [ElementChange::Put(IpAddr::from([0; 16]))];
    let failures = sets.change_elements(&SetOf::new(small.clone()).changes(wrong)).unwrap();
    assert!(matches!(failures[0].error, KernelError::Rejected(_)), "of the other family");
    assert!(matches!(sets.swap_sets(&small, &marks), Err(KernelError::Rejected(_))));
    assert!(matches!(sets.elements(&name("none")), Err(KernelError::Gone(_))));
}

#[test]
fn calls_fail_on_request_and_are_recorded_in_order() {
    let acl = FakeAcl::new();
    acl.fail(AclOperation::Restore, 2, libc::EBUSY);
    let mut tables = nft(&acl);
    tables.restore(Family::Ipv4, "*raw\nCOMMIT\n").unwrap();
    assert!(matches!(tables.restore(Family::Ipv4, "*raw\nCOMMIT\n"), Err(KernelError::Busy(_))));
    acl.sets().sets().unwrap();
    let operations: Vec<_> = acl.take_calls().iter().map(AclCall::operation).collect();
    assert_eq!(operations, [AclOperation::Restore, AclOperation::Restore, AclOperation::Sets]);
    assert_eq!(acl.calls(), []);
}

#[test]
fn what_others_do_to_rules_is_told_and_what_the_caller_does_is_not() {
    let acl = FakeAcl::new();
    let mut events = acl.events().unwrap();
    nft(&acl).restore(Family::Ipv4, "*mangle\n:manx-a - [0:0]\n-A manx-a -j DROP\nCOMMIT\n").unwrap();
    acl.flush_table(Family::Ipv4, "mangle");
    let Wait::Event(RuleEvent::Changed { changes, .. }) = events.next(Some(Duration::ZERO)).unwrap() else {
        panic!("no event");
    };
    let removed =
        |change: &RuleChange| change.chain.as_deref() == Some("manx-a") && change.kind == RuleChangeKind::Removed;
    assert!(changes.iter().any(removed), "{changes:?}");
    acl.lose_events();
    assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Wait::Event(RuleEvent::Lost));
    events.waker().wake();
    assert_eq!(events.next(None).unwrap(), Wait::Woken);
}

#[test]
fn a_deletion_that_names_an_id_spares_a_successor() {
    let acl = FakeAcl::new();
    let source = [10, 0, 0, 1].into();
    let destination = [10, 0, 0, 2].into();
    let original = Tuple { source, destination, protocol: 6, source_port: 1, destination_port: 2 };
    let reply = Tuple { source: destination, destination: source, protocol: 6, source_port: 2, destination_port: 1 };
    let connection = |id| Connection { original, reply, zone: 0, id };
    acl.put_connection(connection(Some(7)));
    let mut connections = acl.connections();
    connections.delete_connection(&connection(Some(6))).unwrap();
    assert_eq!(connections.connections_of(&[source].into()).unwrap().len(), 1);
    assert_eq!(connections.connections(Family::Ipv6).unwrap(), []);
    connections.delete_connection(&connection(Some(7))).unwrap();
    assert_eq!(acl.all_connections(), []);
}
