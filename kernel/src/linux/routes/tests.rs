use super::*;
use rtnetlink::packet_core::Emitable;

fn bytes(message: &RouteMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn hop(gateway: &str, interface: u32, weight: u8) -> RouteNextHop {
    RouteNextHop { gateway: Some(gateway.parse().unwrap()), interface: Some(interface), onlink: false, weight }
}

#[test]
fn what_is_asked_for_is_what_is_read() {
    let v4: Prefix = "10.0.0.0/26".parse().unwrap();
    let v6: Prefix = "fd00::/122".parse().unwrap();
    let mut ecmp = Route::via(v6, 78, []).with_metric(99);
    ecmp.next_hops = vec![hop("2001:db8::1", 2, 1), hop("2001:db8::2", 3, 7)];
    let mut unnumbered = Route::via(v4, 78, []);
    unnumbered.next_hops = vec![hop("fe80::1", 2, 1), hop("fe80::2", 3, 1)];
    let mut onlink = Route::via(v4, 78, []);
    onlink.next_hops = vec![RouteNextHop { onlink: true, ..hop("192.0.2.1", 2, 1) }];
    let mut far_table = Route::on_link(v4, 77, 4).with_preferred_source(Some("192.0.2.9".parse().unwrap()));
    far_table.table = 1_000_000;
    for route in [ecmp, unnumbered, onlink, far_table, Route::unreachable(v6, 77), Route::unreachable(v4, 77)] {
        assert_eq!(parse_route(&bytes(&full(&route))).unwrap(), Some(route));
    }
}

#[test]
fn a_default_route_has_no_destination_attribute() {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.attributes = vec![RouteAttribute::NhId(7), RouteAttribute::Oif(2)];
    let route = parse_route(&bytes(&message)).unwrap().unwrap();
    assert_eq!(route.prefix, "::/0".parse().unwrap());
}

#[test]
fn clones_and_other_families_are_no_routes() {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.flags = RouteFlags::Cloned;
    assert_eq!(parse_route(&bytes(&message)).unwrap(), None);
    message.header.flags = RouteFlags::empty();
    message.header.address_family = AddressFamily::Mpls;
    assert_eq!(parse_route(&bytes(&message)).unwrap(), None);
}

#[test]
fn next_hops_that_are_cut_off_are_an_error_and_never_a_panic() {
    let mut route = Route::via("10.0.0.0/26".parse().unwrap(), 78, []);
    route.next_hops = vec![hop("192.0.2.1", 2, 1), hop("192.0.2.2", 3, 1)];
    let bytes = bytes(&full(&route));
    let mut readable = 0;
    for length in 0..bytes.len() {
        readable += usize::from(parse_route(&bytes[..length]).is_ok());
    }
    // These are the places where an attribute ends: a message that is cut there is still well-formed.
    assert_eq!(readable, 3);
    assert!(parse_next_hops(&[4, 0, 0, 0, 0, 0, 0, 0]).is_err());
}
