use super::*;

#[test]
fn a_prefix_costs_no_more_than_it_is_said_to() {
    assert_eq!((size_of::<Slot<Ipv4Network>>(), size_of::<Slot<Ipv6Network>>()), (32, 48));
}
