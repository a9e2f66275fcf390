use super::*;
use rtnetlink::packet_core::Emitable;

#[test]
fn what_is_asked_for_is_what_is_read() {
    let plain = InterfaceAddress::new(3, "10.0.0.1".parse().unwrap(), 32).with_scope(Scope::Link);
    let peered = plain.clone().with_peer("169.254.1.1".parse().unwrap());
    let v6 = InterfaceAddress::new(4, "fd00::1".parse().unwrap(), 128)
        .with_flags(AddressFlags::NO_DAD | AddressFlags::NO_PREFIX_ROUTE);
    for address in [plain, peered, v6] {
        let message = message_of(&address);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        assert_eq!(parse_address(&bytes).unwrap(), Some(address));
    }
}

#[test]
fn a_message_that_is_cut_off_is_an_error_and_never_a_panic() {
    assert!(parse_address(&[2, 32, 0]).is_err());
    assert_eq!(parse_address(&[2, 32, 0, 0, 1, 0, 0, 0]).unwrap(), None);
    assert!(parse_address(&[2, 32, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 1]).is_err());
}
