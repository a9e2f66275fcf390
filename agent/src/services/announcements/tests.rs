//! What is announced, state by state.

use super::*;

const WEB: &str = "web";

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ranges() -> ServiceRanges {
    ServiceRanges {
        cluster: prefixes(&["10.96.0.0/16", "fd00:96::/112"]),
        external: prefixes(&["198.51.100.0/25", "198.51.100.200/32"]),
        load_balancer: prefixes(&["203.0.113.0/24", "192.0.2.9/32"]),
        load_balancer_apart: false,
    }
}

const WHOLE: [&str; 4] = ["10.96.0.0/16", "fd00:96::/112", "198.51.100.0/25", "203.0.113.0/24"];

fn service(is_local: bool, external: &[&str], ingress: &[&str]) -> Service {
    Service {
        is_local,
        cluster_ips: addresses(&["10.96.0.7", "fd00:96::7"]),
        external_ips: addresses(external),
        ingress: addresses(ingress),
        ..Service::default()
    }
}

fn slice(service: &str, family: Family, nodes: &[&str]) -> EndpointSlice {
    EndpointSlice {
        service: Some(name(service)),
        family: Some(family),
        ready_nodes: nodes.iter().map(ToString::to_string).collect(),
    }
}

/// With this node known to take traffic, and no Services and EndpointSlices.
fn announcements() -> Announcements {
    let mut it = Announcements::new("own".parse().unwrap());
    it.set_ranges(ranges());
    it.set_excluded(false);
    for _ in 0..2 {
        it.service(Update::Restart);
        it.service(Update::InSync);
        it.slice(Update::Restart);
        it.slice(Update::InSync);
    }
    it
}

fn announces(it: &Announcements, single: &[&str]) {
    let wanted: BTreeSet<Prefix> = prefixes(&WHOLE).into_iter().chain(prefixes(single)).collect();
    assert_eq!(it.announced(), wanted);
}

#[test]
fn ranges_are_announced_whole_and_single_entries_while_a_service_has_them() {
    let mut it = announcements();
    announces(&it, &[]);
    it.service(Update::Set(name(WEB), service(false, &["198.51.100.200", "198.51.100.1", "8.8.8.8"], &["192.0.2.9"])));
    assert!(!it.needs_slices());
    announces(&it, &["198.51.100.200/32", "192.0.2.9/32"]);
    it.service(Update::Delete(name(WEB)));
    announces(&it, &[]);
}

#[test]
fn addresses_of_a_local_service_are_announced_while_an_endpoint_here_is_ready_by_family() {
    let mut it = announcements();
    it.service(Update::Set(name(WEB), service(true, &["198.51.100.1", "8.8.8.8"], &["203.0.113.7", "9.9.9.9"])));
    assert!(it.needs_slices());
    announces(&it, &[]);
    it.slice(Update::Set(name("web-1"), slice(WEB, Family::Ipv4, &["other"])));
    announces(&it, &[]);
    it.slice(Update::Set(name("web-1"), slice(WEB, Family::Ipv4, &["other", "own"])));
    let ipv4 = ["10.96.0.7/32", "198.51.100.1/32", "203.0.113.7/32"];
    announces(&it, &ipv4);
    // Another slice of the same Service, the last of which counts.
    it.slice(Update::Set(name("web-2"), slice(WEB, Family::Ipv4, &["own"])));
    it.slice(Update::Set(name("web-1"), slice(WEB, Family::Ipv4, &[])));
    announces(&it, &ipv4);
    it.slice(Update::Set(name("web-6"), slice(WEB, Family::Ipv6, &["own"])));
    announces(&it, &[ipv4[0], ipv4[1], ipv4[2], "fd00:96::7/128"]);
    it.slice(Update::Delete(name("web-2")));
    announces(&it, &["fd00:96::7/128"]);
    it.service(Update::Set(name(WEB), service(false, &["198.51.100.1"], &[])));
    announces(&it, &[]);
    assert!(!it.needs_slices());
}

#[test]
fn an_excluded_node_announces_nothing_until_it_is_not() {
    let mut it = announcements();
    it.service(Update::Set(name(WEB), service(true, &[], &["203.0.113.7"])));
    it.slice(Update::Set(name("web-1"), slice(WEB, Family::Ipv4, &["own"])));
    it.set_excluded(true);
    assert!(it.announced().is_empty());
    assert!(it.are_known());
    it.set_excluded(false);
    announces(&it, &["10.96.0.7/32", "203.0.113.7/32"]);
}

#[test]
fn an_address_that_several_services_have_is_announced_until_the_last_has_gone() {
    let mut it = announcements();
    for other in [WEB, "other"] {
        it.service(Update::Set(name(other), service(false, &["198.51.100.200"], &[])));
    }
    it.service(Update::Delete(name(WEB)));
    announces(&it, &["198.51.100.200/32"]);
    it.service(Update::Delete(name("other")));
    announces(&it, &[]);
}

#[test]
fn without_aggregation_each_address_of_a_load_balancer_is_announced() {
    let mut it = announcements();
    it.set_ranges(ServiceRanges { load_balancer_apart: true, ..ranges() });
    it.service(Update::Set(name(WEB), service(false, &[], &["203.0.113.7"])));
    let announced = it.announced();
    assert!(announced.contains(&prefixes(&["203.0.113.7/32"])[0]));
    assert!(!announced.contains(&prefixes(&["203.0.113.0/24"])[0]));
    it.set_ranges(ranges());
    announces(&it, &[]);
}

#[test]
fn headless_services_and_plain_ones_are_not_kept() {
    let mut it = announcements();
    let headless = Service { cluster_ips: Vec::new(), ..service(true, &["198.51.100.200"], &[]) };
    it.service(Update::Set(name(WEB), headless));
    it.service(Update::Set(name("plain"), service(false, &[], &[])));
    assert!(it.services.is_empty() && it.in_need.is_empty());
}

#[test]
fn nothing_is_known_before_node_services_and_where_needed_slices_are() {
    let mut it = Announcements::new("own".parse().unwrap());
    assert!(it.are_known(), "nothing is to be announced");
    it.set_ranges(ranges());
    it.service(Update::Restart);
    it.service(Update::Set(name(WEB), service(true, &[], &[])));
    it.service(Update::InSync);
    assert!(!it.are_known());
    it.set_excluded(false);
    assert!(!it.are_known(), "endpoints are needed");
    it.slice(Update::Restart);
    it.slice(Update::InSync);
    assert!(it.are_known());
    it.forget_slices();
    assert!(!it.are_known());
}

#[test]
fn what_is_announced_is_a_function_of_the_last_state() {
    let states: [(Service, EndpointSlice); 4] = [
        (service(true, &[], &["203.0.113.7"]), slice(WEB, Family::Ipv4, &["own"])),
        (service(false, &["198.51.100.200"], &["192.0.2.9"]), slice(WEB, Family::Ipv4, &[])),
        (service(true, &["198.51.100.1"], &[]), slice("other", Family::Ipv4, &["own"])),
        (service(true, &["198.51.100.1"], &[]), slice(WEB, Family::Ipv6, &["own"])),
    ];
    let fresh = |(service, slice): &(Service, EndpointSlice)| {
        let mut it = announcements();
        it.service(Update::Set(name(WEB), service.clone()));
        it.slice(Update::Set(name("web-1"), slice.clone()));
        it.announced()
    };
    let reversed: Vec<_> = states.iter().rev().cloned().collect();
    for sequence in [states.to_vec(), reversed] {
        let mut it = announcements();
        let mut other_order = announcements();
        let mut relisted = announcements();
        for state in &sequence {
            it.service(Update::Set(name(WEB), state.0.clone()));
            it.slice(Update::Set(name("web-1"), state.1.clone()));
            other_order.slice(Update::Set(name("web-1"), state.1.clone()));
            other_order.service(Update::Set(name(WEB), state.0.clone()));
            relisted.slice(Update::Restart);
            relisted.slice(Update::Set(name("web-1"), state.1.clone()));
            relisted.slice(Update::InSync);
            relisted.service(Update::Restart);
            relisted.service(Update::Set(name(WEB), state.0.clone()));
            relisted.service(Update::InSync);
            let wanted = fresh(state);
            assert_eq!(
                (it.announced(), other_order.announced(), relisted.announced()),
                (wanted.clone(), wanted.clone(), wanted)
            );
        }
        relisted.service(Update::Restart);
        relisted.service(Update::InSync);
        announces(&relisted, &[]);
        it.slice(Update::Restart);
        assert_eq!(it.announced(), other_order.announced(), "nothing goes before the source is in sync");
        it.forget_services();
        announces(&it, &[]);
    }
}

#[test]
fn what_was_announced_before_a_restart_counts_within_the_ranges_of_now() {
    let before: BTreeSet<Prefix> =
        prefixes(&["10.96.0.0/16", "203.0.113.7/32", "8.8.8.8/32", "172.16.0.0/12"]).into_iter().collect();
    let wanted: BTreeSet<Prefix> = prefixes(&["10.96.0.0/16", "203.0.113.7/32"]).into_iter().collect();
    assert_eq!(remembered(&ranges(), Some(&before)), wanted);
    assert_eq!(remembered(&ranges(), None), prefixes(&WHOLE).into_iter().collect());
    assert!(remembered(&ServiceRanges::default(), Some(&before)).is_empty());
}
