use super::*;

#[test]
fn ages_have_two_units_at_most() {
    let printed: Vec<_> = [0, 59, 60, 3_599, 3_600, 86_399, 90_000].into_iter().map(age).collect();
    assert_eq!(printed, ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d1h"]);
}

#[test]
fn times_are_written_as_other_logs_write_them() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (1_078_099_199, "2004-02-29T23:59:59.000Z"),
        (1_795_258_020, "2026-11-21T10:47:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(rfc3339(seconds * 1_000), text);
    }
    assert_eq!(rfc3339(1_795_258_020_007), "2026-11-21T10:47:00.007Z");
    assert!(rfc3339(u64::MAX).starts_with("9999-12-30T"));
}
