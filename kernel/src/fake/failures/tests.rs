use super::super::Operation;
use super::*;

#[test]
fn only_the_nth_call_fails_and_always_means_always() {
    let mut failures = CallFailures::default();
    failures.on_call(Operation::Routes, 2, libc::EBUSY);
    let heard: Vec<_> = (0..3).map(|_| failures.of_call(Operation::Routes)).collect();
    assert_eq!(heard, [None, Some(libc::EBUSY), None]);
    failures.always(Operation::Links, libc::EPERM);
    assert_eq!(failures.of_call(Operation::Links), Some(libc::EPERM));
    assert_eq!(failures.of_call(Operation::Links), Some(libc::EPERM));
    assert_eq!(failures.of_call(Operation::Link), None);
}
