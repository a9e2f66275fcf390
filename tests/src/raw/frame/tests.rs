use super::*;

#[test]
fn headers_and_checksums_are_those_of_known_packets() {
    // RFC 1071 section 3.
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    let (source, destination) = (IpAddr::from([192, 168, 0, 1]), IpAddr::from([192, 168, 0, 199]));
    let packet = Head::new(source, destination, protocol::UDP).packet(&[0; 95]);
    assert_eq!(packet[..12], [0x45, 0, 0, 0x73, 0, 0, 0, 0, 0x40, 17, 0xf8, 0x61]);
    // A message with its own checksum in it adds up to nothing.
    let datagram = udp([source, destination], [1, 2], b"token");
    let mut pseudo = vec![192, 168, 0, 1, 192, 168, 0, 199, 0, 17, 0, 13];
    pseudo.extend(&datagram);
    assert_eq!(checksum(&pseudo), 0);
    let fragment = Head::new(source, destination, protocol::UDP).id(7).fragment(8, true, &datagram);
    assert_eq!(fragment[4..8], [0, 7, 0x20, 1]);
}

#[test]
fn headers_of_ipv6_lead_from_one_to_the_next() {
    let (source, destination) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let inner = udp([source, destination], [1, 2], b"token");
    let head = Head::new(source, destination, protocol::HOP_BY_HOP);
    let packet = head.packet(&padding(protocol::UDP, &inner));
    assert_eq!((packet[6], packet[40], packet.len()), (0, 17, 40 + 8 + inner.len()));
    let fragment = Head::new(source, destination, protocol::UDP).id(9).fragment(16, true, &inner);
    assert_eq!(fragment[6], protocol::FRAGMENT);
    assert_eq!(fragment[40..48], [17, 0, 0, 17, 0, 0, 0, 9]);
}
