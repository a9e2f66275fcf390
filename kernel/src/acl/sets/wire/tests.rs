use rtnetlink::packet_core::NetlinkSerializable;

use super::*;

fn element(kind: SetKind, element: SetElement) {
    let mut request = Request::new(0, 2, 0, 0);
    put_data(&mut request, &element);
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    assert_eq!(parse_element(kind, &bytes[4..]), Some(element));
}

#[test]
fn members_are_read_as_they_are_written() {
    for address in ["10.65.0.5", "fd00::5"] {
        let address: IpAddr = address.parse().unwrap();
        element(SetKind::Addresses, SetElement::Address(address));
        element(SetKind::Nets, SetElement::Net(Prefix::new(address, 24).unwrap()));
        for protocol in Protocol::ALL {
            element(SetKind::Ports, SetElement::Port(AddressPort { address, protocol, port: 8443 }));
        }
        element(SetKind::Marks, SetElement::Mark(MarkedAddress { address, mark: 0x0005_0000, mask: 0x00ff_0000 }));
    }
}

#[test]
fn ipsets_own_errors_are_sorted_and_have_words() {
    let sorted = |errno| worded(KernelError::refused("cannot add 10.0.0.1 to set a", errno, None));
    assert!(matches!(sorted(ERR_HASH_FULL), KernelError::Full(_)));
    assert!(matches!(sorted(ERR_BUSY), KernelError::Busy(_)));
    assert!(matches!(sorted(libc::ENOENT), KernelError::Gone(_)));
    let text = sorted(ERR_HASH_FULL).to_string();
    let words = "no space left on device: the set has all the members that it may have";
    assert_eq!(text, format!("cannot add 10.0.0.1 to set a: {words}"));
}
