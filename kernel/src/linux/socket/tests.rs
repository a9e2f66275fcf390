use super::*;

/// The kernel's answer ENETUNREACH to request 7, with the words "no", as it lies in memory.
fn refused() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(44_u32.to_ne_bytes());
    bytes.extend(NLMSG_ERROR.to_ne_bytes());
    bytes.extend(NLM_F_ACK_TLVS.to_ne_bytes());
    bytes.extend(7_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend((-libc::ENETUNREACH).to_ne_bytes());
    bytes.extend([0; HEADER_BYTES]);
    bytes.extend(7_u16.to_ne_bytes());
    bytes.extend(ERROR_ATTRIBUTE_MESSAGE.to_ne_bytes());
    bytes.extend(*b"no\0\0");
    bytes
}

#[test]
fn an_error_gives_its_number_and_the_kernels_words() {
    let bytes = refused();
    let replies: Vec<_> = replies(&bytes).collect::<Result<_, _>>().unwrap();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].sequence, 7);
    assert_eq!(error_of(&replies[0]), Some((libc::ENETUNREACH, Some("no".to_owned()))));
}

#[test]
fn a_datagram_that_is_cut_off_anywhere_is_an_error_and_never_a_panic() {
    let bytes = refused();
    for length in 1..bytes.len() {
        let cut: Vec<_> = replies(&bytes[..length]).collect();
        assert!(cut.len() == 1 && cut[0].is_err(), "{length}");
    }
    let mut short = bytes;
    short[..4].copy_from_slice(&18_u32.to_ne_bytes());
    let reply = replies(&short).next().unwrap().unwrap();
    assert_eq!(error_of(&reply), None);
}
