use super::*;

#[test]
fn words_in_quotes_are_one_and_a_comment_is_no_option() {
    let spec = r#"-m comment --comment "say \"--jump manx-a\"" -j ACCEPT"#;
    assert_eq!(value_of("--comment", spec).as_deref(), Some(r#"say "--jump manx-a""#));
    assert_eq!(value_of("-j", spec).as_deref(), Some("ACCEPT"));
    assert_eq!(value_of("-g", spec), None);
    assert_eq!(counters("[7:420] -A a -j b"), (Some(7), "-A a -j b"));
    assert_eq!(counters("-A a -j b"), (None, "-A a -j b"));
}
