use super::*;
use kernel::InterfaceAddress;
use kernel::fake::FakeKernel;

const OTHERWISE: [u8; 4] = [1, 1, 1, 1];

fn methods(ipv4: &str) -> AddressDetection {
    AddressDetection { ipv4: ipv4.parse().unwrap(), ipv6: "none".parse().unwrap() }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_identifier_is_the_ipv4_address_or_one_of_the_instance_s_own() {
    let otherwise = RouterId::new(OTHERWISE.into()).unwrap();
    let both = ips(&["2001:db8::1", "192.0.2.1"]);
    let known = identity(&both, otherwise);
    assert_eq!(known.router_id.addr(), Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(known.addresses.ipv6, Some(both[0]));
    assert_eq!(identity(&both[..1], otherwise).router_id, otherwise);
    assert_ne!(drawn_router_id("a").unwrap(), drawn_router_id("b").unwrap());
}

#[test]
fn an_address_is_kept_while_it_fits_or_nothing_else_does() {
    let mut kernel = FakeKernel::new();
    let index = kernel.add_link("eth1", true);
    let on_wire = |address: &str| InterfaceAddress::new(index, address.parse().unwrap(), 24);
    let [other, current] = ["192.0.2.1", "192.0.2.9"].map(on_wire);
    kernel.add_address(&other).unwrap();
    kernel.add_address(&current).unwrap();
    let methods = methods("interface=eth1");
    let now = |kernel: &mut FakeKernel| find_again(&methods, kernel, &[], &[current.address]).unwrap();
    assert_eq!(now(&mut kernel), [current.address], "another one before it");
    kernel.delete_address(&current).unwrap();
    assert_eq!(now(&mut kernel), [other.address]);
    kernel.delete_address(&other).unwrap();
    assert_eq!(now(&mut kernel), [current.address], "nothing in its place");
}

#[test]
fn what_kubernetes_says_is_followed() {
    let methods = methods("kubernetes-internal-ip");
    let now =
        |internal: &[&str]| find_again(&methods, &mut FakeKernel::new(), &ips(internal), &ips(&["192.0.2.1"])).unwrap();
    assert_eq!(now(&["192.0.2.9", "192.0.2.1"]), ips(&["192.0.2.1"]));
    assert_eq!(now(&["192.0.2.9"]), ips(&["192.0.2.9"]));
    assert_eq!(now(&[]), ips(&["192.0.2.1"]));
}

#[test]
fn the_subnets_of_own_addresses_are_those_that_others_are_reached_on_without_a_router() {
    let on = |address: &str, len| InterfaceAddress::new(1, address.parse().unwrap(), len);
    let interfaces = [
        on("192.0.2.7", 24),
        on("198.51.100.1", 24),
        on("203.0.113.1", 32).with_peer("203.0.113.2".parse().unwrap()),
        on("2001:db8::7", 64),
        on("fd00::1", 128),
    ];
    let subnets =
        |own: &[&str]| -> Vec<_> { subnets_among(&ips(own), &interfaces).iter().map(ToString::to_string).collect() };
    assert_eq!(subnets(&["192.0.2.7", "2001:db8::7"]), ["192.0.2.0/24", "2001:db8::/64"]);
    assert!(subnets(&["203.0.113.1", "fd00::1", "192.0.2.8"]).is_empty());
}
