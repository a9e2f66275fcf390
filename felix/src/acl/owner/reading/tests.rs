//! When rules are read again, and what counts as others' doing.

use super::*;

const MANGLE: TableOf = (Family::Ipv4, TableName::Mangle);
const NAT: TableOf = (Family::Ipv6, TableName::Nat);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The kernel tells of changes, and all rules are as known.
fn reading() -> (Reading, TimerTable, Instant) {
    let now = Instant::now();
    (Reading::new(IptablesVariant::Nft, now), TimerTable::default(), now)
}

fn request(tables: &[TableOf], since: Instant) -> Option<Request> {
    Some(Request { tables: tables.to_vec(), since: Some(since) })
}

#[test]
fn several_changes_of_one_program_are_read_once_and_the_pause_runs_from_the_first() {
    let (mut reading, mut timers, now) = reading();
    assert_eq!(reading.take_unread(&timers), None, "nothing has changed");
    reading.changed(MANGLE, now, &mut timers);
    reading.changed(NAT, now + millis(15), &mut timers);
    assert_eq!(timers.expiry(Timer::ReadRules), Some(now + EVENTS_PAUSE));
    assert_eq!(reading.take_unread(&timers), None, "more may come");
    assert!(timers.expired(Timer::ReadRules, now + EVENTS_PAUSE));
    // iptables has been at work for a while; what else comes is read with the rest, at once.
    reading.changed(MANGLE, now + millis(500), &mut timers);
    assert!(!timers.is_set(Timer::ReadRules));
    assert_eq!(reading.take_unread(&timers), request(&[MANGLE, NAT], now));
    assert_eq!(reading.take_unread(&timers), None);
}

#[test]
fn events_while_a_read_is_under_way_lead_to_another_read() {
    let (mut reading, mut timers, now) = reading();
    reading.changed(MANGLE, now, &mut timers);
    timers.cancel(Timer::ReadRules);
    assert_eq!(reading.take_unread(&timers), request(&[MANGLE], now));
    // Under way: its answer says nothing of what comes now.
    let later = now + millis(3);
    reading.changed(MANGLE, later, &mut timers);
    let disturbance = Disturbance { repairs: true, is_unprotected: true };
    assert!(reading.compared(Family::Ipv4, disturbance, Some(now), now + millis(5)));
    assert!(timers.expired(Timer::ReadRules, later + EVENTS_PAUSE));
    assert_eq!(reading.take_unread(&timers), request(&[MANGLE], later));
}

#[test]
fn lost_events_make_all_unread_at_once_and_do_not_forget_since_when() {
    let (mut reading, mut timers, now) = reading();
    reading.changed(NAT, now, &mut timers);
    reading.lost(vec![MANGLE], now + millis(1), &mut timers);
    assert_eq!(reading.take_unread(&timers), request(&[MANGLE, NAT], now));
}

#[test]
fn what_could_not_be_read_is_read_after_the_back_off_with_all_that_has_come_since() {
    let (mut reading, mut timers, now) = reading();
    reading.changed(NAT, now, &mut timers);
    timers.cancel(Timer::ReadRules);
    let since = reading.take_unread(&timers).unwrap().since;
    let again_at = now + millis(100);
    reading.failed(vec![MANGLE], since, now + millis(4), again_at, &mut timers);
    reading.changed(NAT, now + millis(5), &mut timers);
    assert_eq!(timers.expiry(Timer::ReadRules), Some(again_at), "an event does not shorten it");
    assert_eq!(reading.take_unread(&timers), None);
    assert!(timers.expired(Timer::ReadRules, again_at));
    assert_eq!(reading.take_unread(&timers), request(&[MANGLE, NAT], now));
}

#[test]
fn what_differs_after_a_failed_restore_is_our_own_doing_once() {
    let (mut reading, mut timers, now) = reading();
    let disturbance = Disturbance { repairs: true, is_unprotected: true };
    reading.changed(MANGLE, now, &mut timers);
    reading.restore_failed(Family::Ipv4, &mut timers);
    let request = reading.take_unread(&timers).unwrap();
    assert_eq!(request.tables, TableName::ALL.map(|name| (Family::Ipv4, name)), "at once, and all of the family");
    assert!(!reading.compared(Family::Ipv4, disturbance, request.since, now));
    assert!(reading.compared(Family::Ipv6, disturbance, request.since, now));
    assert!(reading.compared(Family::Ipv4, disturbance, request.since, now));
}

#[test]
fn pods_are_unprotected_from_the_first_change_that_may_have_done_it_until_all_is_repaired() {
    let (mut reading, _, now) = reading();
    assert_eq!(reading.repaired(now), None);
    let harmless = Disturbance { repairs: true, is_unprotected: false };
    assert!(reading.compared(Family::Ipv4, harmless, Some(now), now));
    assert_eq!(reading.repaired(now), None);
    let harmful = Disturbance { repairs: true, is_unprotected: true };
    assert!(reading.compared(Family::Ipv4, harmful, Some(now), now + millis(30)));
    assert!(reading.compared(Family::Ipv6, harmful, Some(now + millis(10)), now + millis(40)));
    assert_eq!(reading.repaired(now + millis(50)), Some(millis(50)));
    assert_eq!(reading.repaired(now + millis(60)), None, "told once");
}

#[test]
fn tables_in_turn_come_one_by_one_and_a_poll_knows_since_when_nobody_has_looked() {
    let (mut reading, _, now) = reading();
    reading.read_in_turn(vec![MANGLE, NAT]);
    for table in [NAT, MANGLE] {
        assert_eq!(reading.take_in_turn(), Some(Request { tables: vec![table], since: None }));
    }
    assert_eq!(reading.take_in_turn(), None);

    let mut polled = Reading::new(IptablesVariant::Legacy, now);
    assert!(!polled.hears_events());
    for poll in 1..3 {
        polled.poll(vec![MANGLE], now + Duration::from_secs(5) * poll);
        assert_eq!(polled.take_in_turn(), request(&[MANGLE], now + Duration::from_secs(5) * (poll - 1)));
    }
}

#[test]
fn while_nothing_is_heard_restores_have_their_turn_and_then_all_is_read() {
    let (mut reading, mut timers, now) = reading();
    for round in 0..3 {
        let begun = now + millis(100 * round);
        timers.expired(Timer::ReadRules, begun);
        reading.deaf(vec![MANGLE, NAT], begun + millis(1), &mut timers);
        assert_eq!(reading.take_unread(&timers), None, "what is to be restored comes first");
    }
    assert!(timers.expired(Timer::ReadRules, now + millis(300)), "the first round that hears again");
    assert_eq!(reading.take_unread(&timers), request(&[MANGLE, NAT], now + millis(1)));
}
