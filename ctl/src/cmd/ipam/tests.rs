use super::*;

#[test]
fn counts_of_ipv6_are_readable() {
    assert_eq!(short(65_536), "65536");
    assert_eq!(short(1 << 64), "1.8446e+19");
    assert_eq!(short(u128::MAX), "3.4028e+38");
}
