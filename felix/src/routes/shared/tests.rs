use super::*;

#[test]
fn equal_values_are_one_and_values_that_nobody_has_are_dropped() {
    let mut shared = Shared::<[u32]>::default();
    let kept = shared.one(vec![7]);
    assert!(Arc::ptr_eq(&kept, &shared.one(vec![7])));
    for value in 0..10_000 {
        shared.one(vec![value, value]);
    }
    assert!(shared.values.len() <= SWEEP);
    assert!(Arc::ptr_eq(&kept, &shared.one(vec![7])));
}
