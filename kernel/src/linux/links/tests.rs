use super::*;
use rtnetlink::packet_core::Emitable;

fn bytes(message: &LinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

#[test]
fn a_link_is_read_from_the_attributes_that_matter() {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.flags = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
    message.attributes = vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::Qdisc("noqueue".to_owned()),
        LinkAttribute::Address(vec![0xee; 6]),
        LinkAttribute::Mtu(1450),
        LinkAttribute::Group(77),
        LinkAttribute::Link(9),
        LinkAttribute::LinkNetNsId(3),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];
    let link = parse_link(&bytes(&message)).unwrap();
    let expected = Link {
        index: 7,
        name: "eth0".to_owned(),
        mac: Some([0xee; 6]),
        mtu: 1450,
        up: true,
        running: true,
        group: 77,
        kind: Some("veth".to_owned()),
        peer_index: Some(9),
        peer_netns: Some(3),
    };
    assert_eq!(link, expected);
}

#[test]
fn an_address_that_is_not_ethernet_is_none() {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::Address(vec![10, 0, 0, 1])];
    assert_eq!(parse_link(&bytes(&message)).unwrap().mac, None);
}

#[test]
fn a_message_that_is_cut_off_is_an_error_and_never_a_panic() {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::Mtu(1500)];
    let bytes = bytes(&message);
    for length in 0..bytes.len() {
        assert!(length == HEADER_BYTES || parse_link(&bytes[..length]).is_err(), "{length}");
    }
}
