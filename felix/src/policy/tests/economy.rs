//! How little the compiler writes to the kernel, and how it reuses the numbers of classes and the sets.

use std::sync::Arc;

use types::Update;
use types::policy::{Policy, PortMatch, PortRange, Protocol};

use super::node::*;
use crate::policy::program::{Change, ClassId, ClassKey, PortClause, SetId};
use crate::policy::{CompileError, CompilerConfig, PolicyUpdate};

#[test]
fn another_port_and_another_policy_alike_are_one_look_up_and_a_port_change_is_set_members() {
    let mut node = shop();
    let rule = |number| Some(vec![allow(Some(vec![pods(&[("app", "db")])]), Some(vec![port(Protocol::Tcp, number)]))]);
    for number in 1..50 {
        node.policy(&format!("p{number}"), policy(rule(number), None));
    }
    assert_eq!(node.compiler.stats().rules, 1);
    let changes = node.policy("p7", policy(rule(443), None));
    assert!(matches!(changes.as_slice(), [Change::Add(..), Change::Add(..), Change::Remove(..), Change::Remove(..)]));
    assert!(node.lets_in(WEB, DB, TCP, 443) && !node.lets_in(WEB, DB, TCP, 7));
}

#[test]
fn a_peer_of_many_is_a_set_that_classes_share_and_one_rule_for_all_its_ports() {
    let mut node = Node::with(CompilerConfig { narrow_limit: 4, ..CompilerConfig::default() });
    for number in 1..10 {
        node.remote(number, pod("shop", &[("app", "db")], &[&format!("10.0.1.{number}")]));
    }
    node.local(1, pod("shop", &[("app", "web"), ("x", "1")], &["10.0.0.1"]));
    node.local(2, pod("shop", &[("app", "web")], &["10.0.0.2"]));
    let rule = |number| Some(vec![allow(Some(vec![pods(&[("app", "db")])]), Some(vec![port(Protocol::Tcp, number)]))]);
    node.policy("a", policy(rule(80), None));
    node.policy("b", policy(rule(81), None));
    node.policy("c", Policy { subject: in_shop(&[("x", "1")]), ..policy(rule(9000), None) });
    let stats = node.compiler.stats();
    assert_eq!((stats.classes, stats.sets, stats.elements, stats.rules), (2, 1, 9, 2), "{stats:?}");
    let clauses: Vec<_> =
        node.kernel.classes.values().flat_map(|class| class.ingress.as_slice()).map(|rule| &rule.port).collect();
    let both = PortRange::new(80, 81).unwrap();
    let ranges = |ranges: &[PortRange]| PortClause::Ranges(Protocol::Tcp, ranges.to_vec());
    assert!(clauses.contains(&&ranges(&[both])) && clauses.contains(&&ranges(&[both, PortRange::single(9000)])));
}

#[test]
fn a_number_of_members_that_hovers_about_the_limit_does_not_change_the_rules_each_time() {
    let mut node = Node::with(CompilerConfig { narrow_limit: 4, ..CompilerConfig::default() });
    node.local(1, pod("shop", &[], &[WEB]));
    let rule = Some(vec![allow(Some(vec![pods(&[("app", "db")])]), Some(vec![port(Protocol::Tcp, 80)]))]);
    node.policy("p", policy(rule, None));
    let mut put = Vec::new();
    for (step, count) in [4_u8, 5, 4, 5, 3, 5, 2].into_iter().enumerate() {
        for number in 1..=5 {
            let labels: &[_] = if number <= count { &[("app", "db")] } else { &[] };
            let changes = node.remote(number, pod("shop", labels, &[&format!("10.0.1.{number}")]));
            put.extend(changes.iter().any(|change| matches!(change, Change::PutClass(..))).then_some(step));
        }
    }
    assert_eq!(put, [1, 6], "to broad above the limit, and back at half of it");
}

#[test]
fn a_class_whose_members_all_get_another_policy_keeps_its_number_and_one_that_splits_loses_those_who_leave() {
    let mut node = Node::new();
    node.local(1, pod("shop", &[("app", "a")], &["10.0.0.1"]));
    node.local(2, pod("shop", &[("app", "b")], &["10.0.0.2"]));
    node.policy("deny", policy(Some(vec![]), None));
    let class = node.kernel.joins[&address("10.0.0.1")];
    let changes = node.policy("more", policy(Some(vec![allow(None, None)]), None));
    assert!(matches!(changes.as_slice(), [Change::PutClass(id, _)] if *id == class), "{changes:?}");
    let changes = node.policy("b", Policy { subject: in_shop(&[("app", "b")]), ..policy(Some(vec![]), None) });
    assert!(matches!(changes.as_slice(), [Change::PutClass(..), Change::Join(..)]), "{changes:?}");
    assert_eq!(node.kernel.joins[&address("10.0.0.1")], class);
    assert_ne!(node.kernel.joins[&address("10.0.0.2")], class);
}

#[test]
fn who_is_no_longer_governed_by_a_policy_never_lives_by_what_it_becomes() {
    let mut node = shop();
    node.local(1, pod("shop", &[("app", "a")], &["10.0.0.1"]));
    node.local(2, pod("shop", &[("app", "b")], &["10.0.0.2"]));
    node.policy("deny", policy(Some(vec![]), None));
    node.policy("p", policy(Some(vec![]), None));
    let rule = allow(Some(vec![pods(&[("app", "db")])]), Some(vec![port(Protocol::Tcp, 80)]));
    let narrower = Policy { subject: in_shop(&[("app", "a")]), ..policy(Some(vec![rule]), None) };
    let update = PolicyUpdate::Policy(Update::Set(id("p"), Arc::new(narrower)));
    node.apply_asking(update, |node| assert!(!node.lets_in("10.0.0.2", DB, TCP, 80)));
    assert!(node.lets_in("10.0.0.1", DB, TCP, 80));
}

#[test]
fn a_restarted_agent_finds_the_numbers_of_its_classes_again() {
    let build = |adopted: Vec<(ClassId, ClassKey)>| {
        let mut node = Node::new();
        node.compiler.adopt(adopted);
        for number in [2_u8, 1, 3] {
            let (name, own) = (format!("p{number}"), [("app", ["x", "y", "z", "w"][usize::from(number)])]);
            node.policy(&name, Policy { subject: in_shop(&own), ..policy(Some(vec![]), None) });
            node.local(number, pod("shop", &own, &[&format!("10.0.0.{number}")]));
        }
        node
    };
    let swapped = |id: ClassId| ClassId::new(if id == ClassId::OPEN { 1 } else { 9 - id.number() }).unwrap();
    let keys: Vec<_> = build(vec![]).kernel.classes.iter().map(|(id, class)| (swapped(*id), class.key)).collect();
    let mut strangers = keys.clone();
    strangers.push((ClassId::new(2).unwrap(), ClassKey(7)));
    let again = build(strangers);
    assert_eq!(again.kernel.classes.iter().map(|(id, class)| (*id, class.key)).collect::<Vec<_>>(), {
        let mut keys = keys;
        keys.sort_unstable();
        keys
    });
}

#[test]
fn without_a_number_an_endpoint_is_shut_off_until_there_is_one() {
    let mut node = Node::with(CompilerConfig { classes: 3, ..CompilerConfig::default() });
    for number in 1..=3_u8 {
        let own = [("app", ["x", "y", "z", "w"][usize::from(number)])];
        node.policy(&format!("p{number}"), Policy { subject: in_shop(&own), ..policy(None, Some(vec![])) });
        let result = node.compiler.set_local(local(number), pod("shop", &own, &[&format!("10.0.0.{number}")]));
        node.settle();
        match number {
            3 => assert_eq!(result, Err(CompileError::NoClass { id: local(3), classes: 3 })),
            _ => assert!(result.is_ok()),
        }
    }
    assert!(!node.lets_in("10.0.0.3", OUTSIDE, TCP, 80));
    assert_eq!(node.compiler.stats().unplaced_endpoints, 1);
    node.compiler.remove_local(&local(1));
    node.settle();
    assert!(node.lets_in("10.0.0.3", OUTSIDE, TCP, 80), "a number was freed");
    assert_eq!(node.compiler.stats().unplaced_endpoints, 0);
}

#[test]
fn a_class_that_its_last_pod_has_left_stays_for_the_next_one_until_one_of_its_policies_changes_or_others_need_the_number()
 {
    let classes_of = |node: &Node| node.kernel.classes.keys().filter(|id| **id != ClassId::OPEN).count();
    let mut node = Node::with(CompilerConfig { classes: 3, idle_classes: 1, ..CompilerConfig::default() });
    let admits = |port| policy(None, Some(vec![allow(None, Some(vec![PortMatch::All(port)]))]));
    for app in ["x", "y", "z"] {
        node.policy(app, Policy { subject: in_shop(&[("app", app)]), ..admits(Protocol::Tcp) });
    }
    let comes = |node: &mut Node, app: &str| node.local(1, pod("shop", &[("app", app)], &["10.0.0.1"]));
    let goes = |node: &mut Node| {
        node.compiler.remove_local(&local(1));
        node.settle()
    };
    comes(&mut node, "x");
    let changes = goes(&mut node);
    assert!(matches!(changes.as_slice(), [Change::Leave(_)]), "{changes:?}");
    let changes = comes(&mut node, "x");
    assert!(matches!(changes.as_slice(), [Change::Join(..)]), "{changes:?}");
    goes(&mut node);

    // One stays: the one that was left last.
    comes(&mut node, "y");
    assert_eq!(classes_of(&node), 2);
    goes(&mut node);
    assert_eq!(classes_of(&node), 1);
    let changes = comes(&mut node, "y");
    assert!(matches!(changes.as_slice(), [Change::Join(..)]), "{changes:?}");
    goes(&mut node);

    // What a deleted policy leaves is no class for a policy that takes its place, nor is one with other rules.
    node.policy("y", Policy { subject: in_shop(&[("app", "y")]), ..admits(Protocol::Udp) });
    assert_eq!(classes_of(&node), 0);
    comes(&mut node, "y");
    goes(&mut node);
    node.apply(PolicyUpdate::Policy(Update::Delete(id("y"))));
    assert_eq!(classes_of(&node), 0);

    // Two numbers, one of them idle, and two pods that need them.
    comes(&mut node, "x");
    goes(&mut node);
    node.policy("y", Policy { subject: in_shop(&[("app", "y")]), ..admits(Protocol::Tcp) });
    for (number, app) in [(2, "y"), (3, "z")] {
        let own = pod("shop", &[("app", app)], &[&format!("10.0.0.{number}")]);
        node.compiler.set_local(local(number), own).unwrap();
        node.settle();
    }
    assert_eq!((classes_of(&node), node.compiler.stats().unplaced_endpoints), (2, 0));
}

#[test]
fn a_set_that_two_policies_use_stays_until_the_last_has_gone() {
    let mut node = shop();
    let rule = |kind: PortMatch| Some(vec![allow(Some(vec![pods(&[("app", "db")])]), Some(vec![kind]))]);
    node.policy("a", policy(rule(PortMatch::All(Protocol::Tcp)), None));
    node.policy("b", policy(None, rule(PortMatch::All(Protocol::Udp))));
    let is_there = |node: &Node| node.kernel.sets.keys().any(|set| matches!(set, SetId::Selector(_)));
    assert_eq!(node.kernel.sets.len(), 1);
    node.apply(PolicyUpdate::Policy(Update::Delete(id("a"))));
    assert!(is_there(&node));
    node.apply(PolicyUpdate::Policy(Update::Delete(id("b"))));
    assert!(!is_there(&node));
}
