use super::*;

const TEXT: &str = "*mangle\n:manx-a - [0:0]\n-A manx-a -j nowhere\nCOMMIT\n";

fn failed(code: Option<i32>, said: &str) -> KernelError {
    let program = Program { name: "iptables-nft-restore", arguments: &[], input: TEXT, path: None };
    let ended = Ended { code, output: Vec::new(), errors: said.as_bytes().to_vec() };
    judge(&ended, &program, &|| "cannot change ipv4 rules".to_owned()).unwrap_err()
}

#[test]
fn an_error_quotes_the_line_that_the_program_complains_of() {
    let nft = "iptables-nft-restore v1.8.9 (nf_tables): Set nosuch doesn't exist.\n\nError occurred at line: 3\n\
                   Try `iptables-nft-restore -h' or 'iptables-nft-restore --help' for more information.\n";
    let legacy = "iptables-legacy-restore: line 3 failed\n";
    for said in [nft, legacy] {
        let error = failed(Some(2), said);
        assert!(matches!(error, KernelError::Rejected(_)));
        let error = error.to_string();
        assert!(error.ends_with(r#"(line 3 is "-A manx-a -j nowhere")"#), "{error}");
        assert!(!error.contains("Try"), "{error}");
    }
}

#[test]
fn a_lock_held_and_a_program_that_hangs_are_worth_another_try() {
    let lock = "Another app is currently holding the xtables lock; still 0s 0us time ahead to have a chance...";
    assert!(matches!(failed(Some(4), lock), KernelError::Busy(_)));
    assert!(matches!(failed(None, ""), KernelError::Busy(_)));
    let denied = "Could not fetch rule set generation id: Permission denied (you must be root)";
    assert!(matches!(failed(Some(4), denied), KernelError::Denied(_)));
    let wrong = "line 3: RULE_APPEND failed (Invalid argument): rule in chain manx-a";
    assert!(matches!(failed(Some(4), wrong), KernelError::Rejected(_)));
}

#[test]
fn no_line_is_quoted_that_was_not_named() {
    assert_eq!(line_blamed("no such table", TEXT), None);
    assert_eq!(line_blamed("line 40 failed", TEXT), None);
    assert_eq!(line_blamed("line 0 failed", TEXT), None);
    assert_eq!(line_blamed("Chain 'nowhere' does not exist\nError occurred at line: 4", TEXT), None);
}
