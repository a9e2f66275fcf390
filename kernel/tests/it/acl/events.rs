//! Tests of events about iptables rules.

use std::time::Duration;

use kernel::acl::{Iptables, IptablesVariant, NftEvents, RuleChange, RuleChangeKind, RuleEvent, RuleEvents, Tables};
use kernel::events::Wait;
use types::Family;

use super::{installed, run};
use crate::in_fresh_namespace;

/// Long enough for any machine; only a failing test waits for it.
const TEST_TIME_LIMIT: Duration = Duration::from_secs(20);

const OURS: &str = "*mangle\n:manx-fw - [0:0]\n-A manx-fw -j DROP\n-A FORWARD -j manx-fw\nCOMMIT\n";

/// Runs a test in a namespace with iptables-nft; says so and skips it if the program is missing.
fn with_nft(test: impl FnOnce(Iptables) + Send) {
    in_fresh_namespace(|| {
        if installed("iptables-nft-restore") && installed("nft") {
            test(Iptables::new(IptablesVariant::Nft));
        }
    });
}

fn await_change(events: &mut NftEvents, wanted: &RuleChange) -> (u32, String) {
    loop {
        match events.next(Some(TEST_TIME_LIMIT)).unwrap() {
            Wait::Event(RuleEvent::Changed { process, program, changes }) if changes.contains(wanted) => {
                return (process, program);
            }
            Wait::Event(_) => {}
            other => panic!("no such event: {other:?}"),
        }
    }
}

fn removed(family: Family, chain: Option<&str>) -> RuleChange {
    let (table, chain) = ("mangle".to_owned(), chain.map(str::to_owned));
    RuleChange { family, table, chain, kind: RuleChangeKind::Removed }
}

#[test]
fn a_flush_by_another_program_is_told_with_what_it_took() {
    with_nft(|mut tables| {
        let mut events = NftEvents::subscribe().unwrap().except(tables.own_restores());
        for family in Family::ALL {
            tables.restore(family, OURS).unwrap();
        }
        assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Wait::TimedOut, "own restores are not told");
        run("iptables-nft", &["-t", "mangle", "-F"]);
        let (_, program) = await_change(&mut events, &removed(Family::Ipv4, Some("manx-fw")));
        // The kernel keeps 15 octets of a program's name.
        assert!(program.starts_with("iptables"), "{program}");
        run("nft", &["flush", "ruleset"]);
        let (process, program) = await_change(&mut events, &removed(Family::Ipv6, Some("FORWARD")));
        assert_eq!(program, "nft");
        assert_ne!(process, 0);
    });
}

#[test]
fn a_table_that_is_deleted_and_a_rule_that_is_inserted_are_told() {
    with_nft(|mut tables| {
        tables.restore(Family::Ipv4, OURS).unwrap();
        let mut events = NftEvents::subscribe().unwrap().except(tables.own_restores());
        let mut other = Iptables::new(IptablesVariant::Nft);
        other.restore(Family::Ipv4, "*mangle\n-I FORWARD -j ACCEPT\nCOMMIT\n").unwrap();
        let kind = RuleChangeKind::Added;
        await_change(&mut events, &RuleChange { kind, ..removed(Family::Ipv4, Some("FORWARD")) });
        run("nft", &["delete", "table", "ip", "mangle"]);
        await_change(&mut events, &removed(Family::Ipv4, None));
    });
}

#[test]
fn tables_that_are_not_of_iptables_are_told_without_details() {
    with_nft(|_| {
        let mut events = NftEvents::subscribe().unwrap();
        run("nft", &["add", "table", "inet", "theirs"]);
        match events.next(Some(TEST_TIME_LIMIT)).unwrap() {
            Wait::Event(RuleEvent::Changed { changes, .. }) => assert!(changes.is_empty(), "{changes:?}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn events_are_of_one_namespace_and_a_wait_ends_when_it_is_woken() {
    with_nft(|_| {
        let other = kernel::Netns::create().unwrap();
        let mut events = NftEvents::subscribe_in(&other).unwrap();
        run("nft", &["add", "table", "ip", "mangle"]);
        assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Wait::TimedOut);
        let waker = events.waker();
        std::thread::scope(|scope| {
            scope.spawn(move || waker.wake());
            assert_eq!(events.next(Some(TEST_TIME_LIMIT)).unwrap(), Wait::Woken);
        });
    });
}

#[test]
fn a_large_foreign_transaction_is_one_event() {
    with_nft(|_| {
        let mut events = NftEvents::subscribe().unwrap();
        let rules = (0..5_000).map(|n| format!("-A KUBE-SERVICES -d 10.96.{}.{}/32 -j ACCEPT\n", n / 250, n % 250));
        let text = format!("*mangle\n:KUBE-SERVICES - [0:0]\n{}COMMIT\n", rules.collect::<String>());
        let mut other = Iptables::new(IptablesVariant::Nft);
        other.restore(Family::Ipv4, &text).unwrap();
        let chain = Some("KUBE-SERVICES");
        let kind = RuleChangeKind::Added;
        await_change(&mut events, &RuleChange { kind, ..removed(Family::Ipv4, chain) });
        other.restore(Family::Ipv4, "*mangle\n-F KUBE-SERVICES\nCOMMIT\n").unwrap();
        await_change(&mut events, &removed(Family::Ipv4, chain));
        assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Wait::TimedOut, "nothing was lost");
    });
}
