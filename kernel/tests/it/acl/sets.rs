//! Tests of IP sets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::KernelError;
use kernel::acl::{
    AddressHome, AddressPort, CountedAddress, Element, ElementChange, LinkName, LinuxSets, MarkedAddress, SetElement,
    SetKind, SetName, SetOf, SetSpec, Sets,
};
use types::policy::Protocol;
use types::{Family, Prefix};

use super::{Forwarder, SERVER, each_variant, installed, rule, run, set_name, spec, udp};
use crate::{in_fresh_namespace, ip, prefix};

/// The address with this number.
fn address(family: Family, number: u32) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(0x0a41_0000 + number).into(),
        Family::Ipv6 => Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number)).into(),
    }
}

/// The set of this name as one of addresses.
fn addresses(name: &SetName) -> SetOf<IpAddr> {
    SetOf::new(name.clone())
}

fn sorted(mut elements: Vec<SetElement>) -> Vec<SetElement> {
    elements.sort();
    elements
}

fn header(sets: &mut LinuxSets, name: &SetName) -> kernel::acl::SetHeader {
    sets.sets().unwrap().into_iter().find(|header| header.name == *name).expect("the set is listed")
}

/// Goes through the life of a set of each family with these members, by a number.
#[expect(clippy::indexing_slicing, reason = "the indices are below the 2,000 members that are made here")]
fn is_held<E: Element>(sets: &mut LinuxSets, member: impl Fn(IpAddr, u32) -> E) {
    for family in Family::ALL {
        let name = set_name(&format!("manx-{:?}-{family}", E::KIND));
        let set = SetOf::<E>::new(name.clone());
        let spec = spec(E::KIND, family, 5000);
        sets.create_set(&name, &spec).unwrap();
        assert!(matches!(sets.create_set(&name, &spec), Err(KernelError::Exists(_))));
        // The runs are long enough to be packed, short ones, and both kinds mixed.
        let all: Vec<_> = (0..2000).map(|number| member(address(family, number), number)).collect();
        let mut changes: Vec<_> = all.iter().copied().map(ElementChange::Put).collect();
        for pair in all.chunks(2).take(50) {
            changes.extend([ElementChange::Delete(pair[0]), ElementChange::Put(pair[1])]);
        }
        changes.extend(all[100..1000].iter().copied().map(ElementChange::Delete));
        assert_eq!(sets.change_elements(&set.changes(changes)).unwrap(), [], "{name}");
        let left = all[..100].iter().skip(1).step_by(2).chain(&all[1000..]).map(|member| (*member).into()).collect();
        assert_eq!(sorted(sets.elements(&name).unwrap()), sorted(left), "{name}");
        let header = header(sets, &name);
        assert_eq!((header.elements, header.references), (1050, 0));
        let found = header.spec.unwrap();
        assert_eq!((found.kind, found.family, found.max_elements), (E::KIND, family, 5000));
        let absent = set.changes([ElementChange::Delete(all[500])]);
        assert_eq!(sets.change_elements(&absent).unwrap(), [], "an absent member is success");
    }
}

#[test]
fn sets_of_every_kind_and_family_hold_what_was_put_and_lose_what_was_deleted() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        assert_eq!(sets.sets().unwrap(), []);
        is_held(&mut sets, |address, _| address);
        is_held(&mut sets, |address, _| Prefix::host(address));
        is_held(&mut sets, |address, number| {
            let protocol = Protocol::ALL.into_iter().cycle().nth((number % 3) as usize).unwrap();
            AddressPort { address, protocol, port: 1000 }
        });
        is_held(&mut sets, |address, number| MarkedAddress { address, mark: (number & 0xff) << 16, mask: 0x00ff_0000 });
        is_held(&mut sets, |address, _| CountedAddress(address));
        is_held(&mut sets, |address, number| AddressHome {
            address,
            interface: LinkName::new(format!("mx{number}").as_bytes()).unwrap(),
        });
        assert_eq!(sets.sets().unwrap().len(), 2 * 6);
        for header in sets.sets().unwrap() {
            sets.destroy_set(&header.name).unwrap();
            sets.destroy_set(&header.name).expect("an absent set is success");
        }
        assert_eq!(sets.sets().unwrap(), []);
    });
}

#[test]
fn a_full_set_says_so_for_each_member_that_it_does_not_take_and_goes_on() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        let name = set_name("manx-small");
        let spec = SetSpec { kind: SetKind::Addresses, family: Family::Ipv4, max_elements: 64, hash_size: 64 };
        sets.create_set(&name, &spec).unwrap();
        let of = |numbers: std::ops::Range<u32>| numbers.map(|n| address(Family::Ipv4, n));
        let mut changes: Vec<_> = of(0..1000).map(ElementChange::Put).collect();
        changes.push(ElementChange::Delete(of(0..1).next().unwrap()));
        changes.push(ElementChange::Put(of(5000..5001).next().unwrap()));
        let failures = sets.change_elements(&addresses(&name).changes(changes)).unwrap();
        assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), (64..1000).collect::<Vec<_>>());
        for failure in &failures {
            assert!(matches!(failure.error, KernelError::Full(_)), "{}", failure.error);
        }
        let text = failures[0].error.to_string();
        assert!(text.starts_with("cannot add 10.65.0.64 to set manx-small: "), "{text}");
        let expected = sorted(of(1..64).chain(of(5000..5001)).map(SetElement::Address).collect());
        assert_eq!(sorted(sets.elements(&name).unwrap()), expected, "what was behind the failures was carried out");
    });
}

#[test]
fn a_member_that_the_kernel_refuses_does_not_keep_its_neighbours_out() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        let name = set_name("manx-a");
        sets.create_set(&name, &spec(SetKind::Addresses, Family::Ipv4, 1000)).unwrap();
        let mut changes: Vec<_> = (0..600).map(|n| ElementChange::Put(address(Family::Ipv4, n))).collect();
        for place in [0, 3, 511, 599] {
            changes[place] = ElementChange::Put(ip("fd00::1"));
        }
        let failures = sets.change_elements(&addresses(&name).changes(changes)).unwrap();
        assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [0, 3, 511, 599]);
        assert!(failures.iter().all(|failure| matches!(failure.error, KernelError::Rejected(_))), "{failures:?}");
        assert_eq!(sets.elements(&name).unwrap().len(), 596);
    });
}

#[test]
fn a_prefix_of_length_0_is_refused_and_its_halves_are_not() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        for (family, all, halves) in
            [(Family::Ipv4, "0.0.0.0/0", ["0.0.0.0/1", "128.0.0.0/1"]), (Family::Ipv6, "::/0", ["::/1", "8000::/1"])]
        {
            let name = set_name(&format!("manx-net-{family}"));
            sets.create_set(&name, &spec(SetKind::Nets, family, 100)).unwrap();
            let nets = [halves[0], all, halves[1]].map(|net| ElementChange::Put(prefix(net)));
            let failures = sets.change_elements(&SetOf::new(name.clone()).changes(nets)).unwrap();
            assert!(matches!(failures.as_slice(), [only] if only.index == 1), "{failures:?}");
            assert!(failures[0].error.to_string().contains("halves"), "{}", failures[0].error);
            let expected = halves.map(|net| SetElement::Net(prefix(net))).to_vec();
            assert_eq!(sorted(sets.elements(&name).unwrap()), sorted(expected));
        }
    });
}

#[test]
fn what_is_absent_is_gone_and_sets_of_different_types_are_not_swapped() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        let none = set_name("manx-none");
        let put = |n| ElementChange::Put(address(Family::Ipv4, n));
        assert!(matches!(sets.elements(&none), Err(KernelError::Gone(_))));
        assert!(matches!(sets.change_elements(&addresses(&none).changes([put(1)])), Err(KernelError::Gone(_))));
        let many = addresses(&none).changes((0..100).map(put));
        assert!(matches!(sets.change_elements(&many), Err(KernelError::Gone(_))));
        let [small, large, nets] = ["manx-small", "manx-large", "manx-nets"].map(set_name);
        sets.create_set(&small, &spec(SetKind::Addresses, Family::Ipv4, 2)).unwrap();
        sets.create_set(&large, &spec(SetKind::Addresses, Family::Ipv4, 200_000)).unwrap();
        sets.create_set(&nets, &spec(SetKind::Nets, Family::Ipv4, 10)).unwrap();
        assert!(matches!(sets.swap_sets(&small, &none), Err(KernelError::Gone(_))));
        assert!(matches!(sets.swap_sets(&none, &small), Err(KernelError::Gone(_))));
        assert!(matches!(sets.swap_sets(&small, &nets), Err(KernelError::Rejected(_))));
        sets.change_elements(&addresses(&large).changes([1, 2, 3].map(put))).unwrap();
        sets.swap_sets(&small, &large).unwrap();
        assert_eq!(sets.elements(&small).unwrap().len(), 3);
        assert_eq!(header(&mut sets, &small).spec.unwrap().max_elements, 200_000);
    });
}

#[test]
fn ipset_sees_what_was_put_and_what_ipset_puts_is_seen() {
    in_fresh_namespace(|| {
        if !installed("ipset") {
            return;
        }
        let mut sets = LinuxSets::open().unwrap();
        let marks = set_name("manx-ep4");
        let large = SetSpec { kind: SetKind::Marks, family: Family::Ipv4, max_elements: 500_000, hash_size: 4096 };
        sets.create_set(&marks, &large).unwrap();
        let mark = MarkedAddress { address: ip("10.65.0.5"), mark: 0x0005_0000, mask: 0x00ff_0000 };
        sets.change_elements(&SetOf::new(marks).changes([ElementChange::Put(mark)])).unwrap();
        let listed = run("ipset", &["save", "manx-ep4"]);
        assert!(listed.contains("hash:ip family inet hashsize 4096 maxelem 500000 skbinfo"), "{listed}");
        assert!(listed.contains(&format!("add manx-ep4 {}", SetElement::Mark(mark))), "{listed}");

        run("ipset", &["create", "theirs", "hash:ip,port", "family", "inet6"]);
        run("ipset", &["add", "theirs", "fd00::7,sctp:9999"]);
        let expected = SetElement::Port(AddressPort { address: ip("fd00::7"), protocol: Protocol::Sctp, port: 9999 });
        assert_eq!(sets.elements(&set_name("theirs")).unwrap(), [expected]);
        run("ipset", &["create", "list", "list:set"]);
        assert_eq!(header(&mut sets, &set_name("list")).spec, None, "a type that Manx does not make");
        run("ipset", &["create", "masked", "hash:ip", "netmask", "24"]);
        assert_eq!(header(&mut sets, &set_name("masked")).spec, None, "a form that Manx does not make");
        run("ipset", &["add", "list", "theirs"]);
        assert!(matches!(sets.destroy_set(&set_name("theirs")), Err(KernelError::Busy(_))), "a set refers to it");
    });
}

#[test]
fn a_set_that_a_rule_names_is_busy_and_counts_its_references() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        let name = set_name("manx-a");
        sets.create_set(&name, &spec(SetKind::Addresses, Family::Ipv4, 10)).unwrap();
        each_variant(|mut tables| {
            rule(&mut tables, Family::Ipv4, "mangle", "-A FORWARD -m set --match-set manx-a src -j DROP");
            assert_eq!(header(&mut LinuxSets::open().unwrap(), &name).references, 1);
            assert!(matches!(LinuxSets::open().unwrap().destroy_set(&name), Err(KernelError::Busy(_))));
            rule(&mut tables, Family::Ipv4, "mangle", "-F FORWARD");
        });
        sets.destroy_set(&name).unwrap();
    });
}

#[test]
fn a_mark_is_overwritten_in_place_under_the_packets_that_use_it() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            let node = Forwarder::new();
            let mut sets = LinuxSets::open().unwrap();
            let name = set_name("manx-ep4");
            sets.create_set(&name, &spec(SetKind::Marks, Family::Ipv4, 100)).unwrap();
            let mark = |class: u32| {
                let mark = MarkedAddress { address: ip(SERVER[0]), mark: class << 16, mask: 0x00ff_0000 };
                SetOf::new(name.clone()).changes([ElementChange::Put(mark)])
            };
            sets.change_elements(&mark(1)).unwrap();
            let rules = "-A FORWARD -j SET --map-set manx-ep4 dst --map-mark\n\
                         -A FORWARD -m mark --mark 0x10000/0xff0000 -j ACCEPT\n\
                         -A FORWARD -m mark --mark 0x20000/0xff0000 -j ACCEPT\n-A FORWARD -p udp -j DROP";
            rule(&mut tables, Family::Ipv4, "mangle", rules);
            let (client, server) = (udp(&node.client, "10.65.0.5", 0), udp(&node.server, SERVER[0], 7777));
            let stop = std::sync::atomic::AtomicBool::new(false);
            let received = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut sets = LinuxSets::open().unwrap();
                    let mut class = 1;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        class = 3 - class;
                        assert_eq!(sets.change_elements(&mark(class)).unwrap(), []);
                    }
                });
                let mut received = 0;
                for number in 0_u32..5_000 {
                    client.send_to(&number.to_ne_bytes(), (ip(SERVER[0]), 7777)).unwrap();
                    // A member that was in no class would be missing from the result.
                    let mut octets = [0; 4];
                    if server.recv(&mut octets).is_ok() && u32::from_ne_bytes(octets) == number {
                        received += 1;
                    } else {
                        break;
                    }
                }
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                received
            });
            assert_eq!(received, 5_000);
            rule(&mut tables, Family::Ipv4, "mangle", "-F FORWARD");
            sets.destroy_set(&name).unwrap();
        });
    });
}

#[test]
fn a_handle_works_in_the_namespace_in_which_it_was_opened() {
    in_fresh_namespace(|| {
        let other = kernel::Netns::create().unwrap();
        let mut there = LinuxSets::open_in(&other).unwrap();
        there.create_set(&set_name("manx-a"), &spec(SetKind::Addresses, Family::Ipv4, 10)).unwrap();
        assert_eq!(LinuxSets::open().unwrap().sets().unwrap(), []);
    });
}
