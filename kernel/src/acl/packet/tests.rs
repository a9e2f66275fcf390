use super::*;

fn ipv4(protocol: u8, fragment: u16, options: usize, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45 + u8::try_from(options).unwrap(), 0, 0, 0, 0, 0];
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0, 10, 65, 0, 5, 10, 65, 1, 6]);
    bytes.extend(vec![1; options * 4]);
    bytes.extend(transport);
    bytes
}

fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    bytes.extend("fd00::5".parse::<Ipv6Addr>().unwrap().octets());
    bytes.extend("fd00::6".parse::<Ipv6Addr>().unwrap().octets());
    bytes.extend(rest);
    bytes
}

const PORTS: [u8; 8] = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0];

fn ports(bytes: &[u8]) -> (u8, u16, u16) {
    let tuple = Packet::parse(bytes).unwrap().tuple;
    (tuple.protocol, tuple.source_port, tuple.destination_port)
}

#[test]
fn ports_are_read_behind_options_and_extension_headers() {
    for protocol in [TCP, UDP, SCTP] {
        assert_eq!(ports(&ipv4(protocol, 0x4000, 2, &PORTS)), (protocol, 40_000, 443));
        assert_eq!(ports(&ipv6(protocol, &PORTS)), (protocol, 40_000, 443));
    }
    // Hop-by-hop options of 8 octets, routing of 16, authentication of 12, the first fragment.
    let mut rest = vec![43, 0, 0, 0, 0, 0, 0, 0];
    rest.extend([51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    rest.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    rest.extend([TCP, 0, 0, 1, 0, 0, 0, 9]);
    rest.extend(PORTS);
    assert_eq!(ports(&ipv6(0, &rest)), (TCP, 40_000, 443));
    let tuple = Packet::parse(&ipv6(TCP, &PORTS)).unwrap().tuple;
    assert_eq!(tuple.to_string(), "TCP [fd00::5]:40000 > [fd00::6]:443");
}

#[test]
fn a_later_fragment_has_no_ports() {
    assert_eq!(ports(&ipv4(UDP, 185, 0, &PORTS)), (UDP, 0, 0));
    let mut rest = vec![UDP, 0, 0x05, 0xc8, 0, 0, 0, 9];
    rest.extend(PORTS);
    assert_eq!(ports(&ipv6(FRAGMENT, &rest)), (UDP, 0, 0));
}

#[test]
fn an_icmp_message_has_type_and_code() {
    let icmp = |bytes: &[u8]| Packet::parse(bytes).unwrap().icmp;
    assert_eq!(icmp(&ipv4(ICMP, 0, 0, &[3, 1, 0, 0])), Some(Icmp { kind: 3, code: 1 }));
    assert_eq!(icmp(&ipv6(ICMPV6, &[128, 0, 0, 0])), Some(Icmp { kind: 128, code: 0 }));
}

#[test]
fn a_packet_cut_off_anywhere_never_panics() {
    for whole in [ipv4(TCP, 0, 3, &PORTS), ipv6(0, &[43, 0, 0, 0, 0, 0, 0, 0, TCP, 255, 0, 0, 1, 2, 3, 4])] {
        for length in 0..whole.len() {
            let cut = Packet::parse(&whole[..length]);
            assert_eq!(cut.is_some(), length >= if whole[0] >> 4 == 4 { 20 } else { 40 }, "{length}");
        }
    }
    assert_eq!(Packet::parse(&[0x55; 60]), None);
}
