use super::*;

#[test]
fn the_clocks_are_read() {
    assert_eq!(since_boot("49800.03 91234.55\n"), Some(Duration::from_millis(49_800_030)));
    assert_eq!(since_boot("soon"), None);
    let (one, other) = (clocks().unwrap(), clocks().unwrap());
    assert!(one.boot <= other.boot && !one.boot.is_zero());
}

#[test]
fn lives_of_one_journal_are_told_from_those_of_another() {
    assert!(is_of_journal("j1/boot1/7", "j1/boot2/7"));
    assert!(!is_of_journal("j1/boot1/7", "j2/boot1/7") && !is_of_journal("nonsense", "nonsense"));
}
