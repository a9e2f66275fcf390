//! Plans carried out on the fake iptables, from whatever state.

use std::collections::BTreeMap;

use kernel::acl::{IptablesVariant, Tables};
use kernel::fake::acl::FakeAcl;
use proptest::prelude::*;
use types::Family;

use super::*;
use crate::acl::rule::Rules;

const FAMILY: Family = Family::Ipv4;
const NAME: TableName = TableName::Mangle;

fn rule(number: u8) -> Rule {
    Rule::new(&format!("-p tcp -m tcp --dport {number}"), "-j DROP")
}

/// What we may want: chains `manx-a` to `manx-c` of rules that are all different, and a hook to the first.
fn wanted() -> impl Strategy<Value = WantedTable> {
    let rules = prop::collection::btree_set(0_u8..12, 0..8)
        .prop_map(|numbers| numbers.into_iter().map(rule).collect::<Rules>());
    let names = prop::sample::subsequence(vec!["manx-a", "manx-b", "manx-c"], 0..=3);
    (names, prop::collection::vec(rules, 3), 0..3_u8).prop_map(|(names, rules, hook)| {
        let chains: BTreeMap<_, _> = names.iter().map(|name| (*name).to_owned()).zip(rules).collect();
        let place = [Place::First, Place::Last, Place::LastWherePolicyDrops][usize::from(hook)];
        let hooks = chains.keys().next().map(|first| Hook {
            chain: "FORWARD",
            place,
            rule: Rule::new("", &format!("-j {first}")),
        });
        WantedTable { hooks: hooks.into_iter().collect(), chains }
    })
}

/// What others, or an earlier life, or both, may have left.
fn found() -> impl Strategy<Value = Vec<String>> {
    let chain = prop::sample::select(vec!["manx-a", "manx-b", "manx-d", "FORWARD", "FORWARD", "THEIRS"]);
    let line = (chain, any::<bool>(), 0_u8..12, any::<bool>()).prop_map(|(chain, is_ours, number, is_first)| {
        let spec = if is_ours && chain != "THEIRS" {
            rule(number).spec
        } else {
            format!("-p udp -m udp --dport {number} -j ACCEPT")
        };
        if is_first { format!("-I {chain} 1 {spec}") } else { format!("-A {chain} {spec}") }
    });
    prop::collection::vec(line, 0..24)
}

fn saved(acl: &FakeAcl) -> SavedTable {
    let text = acl.tables(IptablesVariant::Nft).save(FAMILY, NAME.as_str(), false).unwrap();
    SavedTable::parse(&text, NAME.as_str())
}

fn foreign(acl: &FakeAcl) -> Vec<Vec<String>> {
    let theirs = |chain| acl.rules(FAMILY, NAME.as_str(), chain).unwrap_or_default();
    ["FORWARD", "THEIRS"].map(|chain| theirs(chain).into_iter().filter(|rule| !rule.contains("manx:")).collect()).into()
}

fn check(acl: &FakeAcl, wanted: &WantedTable) {
    let before = (saved(acl), foreign(acl));
    if let Some(text) = restore_text(NAME, &before.0, wanted) {
        acl.tables(IptablesVariant::Nft).restore(FAMILY, &text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    let now = saved(acl);
    let hashes = |rules: &Rules| rules.iter().map(|rule| Some(rule.hash)).collect::<Vec<_>>();
    let expected: BTreeMap<_, _> = wanted.chains.iter().map(|(name, rules)| (name, hashes(rules))).collect();
    let found: BTreeMap<_, _> = now.chains.iter().map(|(name, chain)| (name, chain.rules.clone())).collect();
    assert_eq!(found, expected);
    assert_eq!(foreign(acl), before.1, "others' rules, in their order");
    let forward = now.foreign.get("FORWARD").cloned().unwrap_or_default();
    match wanted.hooks.first() {
        Some(hook) if hook.place == Place::LastWherePolicyDrops => assert!(forward.ours.is_empty()),
        Some(hook) => {
            assert_eq!(forward.ours.len(), 1);
            assert!(
                forward.ours[0].hash == hook.rule.hash && (hook.place != Place::First || forward.ours[0].index == 0)
            );
        }
        None => assert!(forward.ours.is_empty()),
    }
    assert_eq!(restore_text(NAME, &now, wanted), None, "again plans nothing");
    assert_eq!(restore_text(NAME, &after(&before.0, wanted), wanted), None, "what is expected is what comes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn from_any_state_a_plan_leads_to_what_is_wanted_and_leaves_others_alone(
        lines in found(), first in wanted(), second in wanted(),
    ) {
        let acl = FakeAcl::new();
        let declared = ":manx-a - [0:0]\n:manx-b - [0:0]\n:manx-d - [0:0]\n:THEIRS - [0:0]";
        acl.foreign_restore(FAMILY, &format!("*mangle\n{declared}\n{}\nCOMMIT\n", lines.join("\n"))).unwrap();
        check(&acl, &first);
        check(&acl, &second);
        check(&acl, &WantedTable::default());
    }
}

fn table(rules: &[u8]) -> WantedTable {
    let rules = rules.iter().copied().map(rule).collect();
    WantedTable { chains: BTreeMap::from([("manx-a".to_owned(), rules)]), hooks: Vec::new() }
}

#[test]
fn a_rule_that_is_missing_is_inserted_and_nothing_is_deleted() {
    let saved = after(&SavedTable::default(), &table(&[1, 3]));
    let text = restore_text(NAME, &saved, &table(&[1, 2, 3, 4])).unwrap();
    assert_eq!(
        text,
        format!("*mangle\n-I manx-a 2 {}\n-I manx-a 4 {}\nCOMMIT\n", rule(2).spec, rule(4).spec),
        "deleting costs an RCU wait"
    );
    let text = restore_text(NAME, &saved, &table(&[3, 1])).unwrap();
    assert!(text.starts_with("*mangle\n:manx-a - [0:0]\n-A"), "{text}");
}
