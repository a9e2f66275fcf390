//! One restore at a time, and what others did is told from what we did.

use super::*;
use crate::acl::rule::Rule;

const FAMILY: Family = Family::Ipv4;

/// A mangle table with one chain of ours with this rule; the other tables are empty.
fn wanted(target: &'static str) -> impl Fn(Family, TableName) -> WantedTable {
    move |_, name| match name {
        TableName::Mangle => {
            let rules = [Rule::new("", target)];
            WantedTable { chains: BTreeMap::from([("manx-forward".to_owned(), rules.into())]), hooks: Vec::new() }
        }
        TableName::Raw | TableName::Nat | TableName::Filter => WantedTable::default(),
    }
}

/// What the kernel says that it has of it.
fn saved(target: &str) -> BTreeMap<TableName, SavedTable> {
    let rules = vec![Some(Rule::new("", target).hash)];
    let chain = SavedChain { rules, ..SavedChain::default() };
    let table = SavedTable { chains: BTreeMap::from([("manx-forward".to_owned(), chain)]), ..SavedTable::default() };
    BTreeMap::from([(TableName::Mangle, table)])
}

#[test]
fn there_is_one_restore_at_a_time_and_none_where_nothing_differs() {
    let mut tables = RuleTables::new(BTreeSet::from([FAMILY]));
    let job = tables.next_restore(wanted("-j DROP")).unwrap();
    assert!(job.family == FAMILY && job.text.contains("-A manx-forward"), "{job:?}");
    tables.touch([FAMILY]);
    assert_eq!(tables.next_restore(wanted("-j RETURN")), None, "one is under way");
    assert_eq!(tables.restored(true), Some(FAMILY));
    assert_eq!(tables.next_restore(wanted("-j DROP")), None, "the kernel has it");
    assert!(tables.is_idle() && !tables.has_failed());
}

#[test]
fn after_a_restore_that_failed_the_same_is_to_be_done_still() {
    let mut tables = RuleTables::new(BTreeSet::from([FAMILY]));
    let job = tables.next_restore(wanted("-j DROP"));
    assert_eq!(tables.restored(false), Some(FAMILY));
    assert!(tables.has_failed() && tables.rule_count() == 0);
    assert_eq!(tables.next_restore(wanted("-j DROP")), job);
    assert!(tables.has_failed(), "the next one has not ended");
    tables.restored(true);
    assert!(!tables.has_failed());
    assert_eq!((tables.rule_count(), tables.restored(true)), (1, None));
}

#[test]
fn only_a_difference_from_what_was_known_is_others_doing() {
    let mut tables = RuleTables::new(BTreeSet::from([FAMILY]));
    assert_eq!(tables.read(FAMILY, saved("-j DROP")), Disturbance::default(), "nothing was known");
    assert_eq!(tables.read(FAMILY, saved("-j DROP")), Disturbance::default());
    let disturbance = Disturbance { repairs: true, is_unprotected: true };
    assert_eq!(tables.read(FAMILY, saved("-j RETURN")), disturbance);
    assert_eq!(tables.read(FAMILY, BTreeMap::from([(TableName::Mangle, SavedTable::default())])), disturbance);
}
