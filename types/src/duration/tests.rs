use super::*;

#[test]
fn numbers_with_units_are_read_and_nothing_else_is() {
    for (text, milliseconds) in [
        ("500ms", 500),
        ("0s", 0),
        ("90s", 90_000),
        ("1m30s", 90_000),
        ("30s1m", 90_000),
        ("1s1s", 2_000),
        ("1h1m1s1ms", 3_661_001),
        ("007s", 7_000),
        ("24h", 86_400_000),
        ("4294967295h", 15_461_882_262_000_000),
    ] {
        assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in [
        "",
        "0",
        "90",
        "s",
        "1.5s",
        "-1s",
        "+1s",
        "1d",
        "1w",
        "1us",
        "30 s",
        " 30s",
        "30s ",
        "1H",
        "30sec",
        "1mm",
        "s1",
        "4294967296h",
        "9999999999999999999s",
        "99999999999999999999999s",
        "18446744073709551615s1000ms",
        "18446744073709551614s2000ms",
        "5124095576030431h15s1000ms",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}
