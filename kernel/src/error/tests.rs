use super::*;

#[test]
fn an_error_says_operation_object_errno_and_the_kernels_words() {
    let error = KernelError::refused("cannot add route 10.0.0.0/26 via 192.0.2.1", libc::ENETUNREACH, None);
    assert_eq!(error.to_string(), "cannot add route 10.0.0.0/26 via 192.0.2.1: network is unreachable");
    assert!(matches!(error, KernelError::Unreachable(_)));
    let words = Some("Nexthop has invalid gateway".to_owned());
    let error = KernelError::refused("cannot add route 10.0.0.0/26", libc::EINVAL, words);
    assert_eq!(error.to_string(), "cannot add route 10.0.0.0/26: invalid argument: nexthop has invalid gateway");
    assert_eq!(error.errno(), Some(libc::EINVAL));
}

#[test]
fn a_missing_capability_is_named() {
    let error = KernelError::refused("cannot create veth mx0", libc::EPERM, None).to_string();
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
}
