//! The table against a plain list of all that was set.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ALL: [Timer; 8] = [
    Timer::ReadRules,
    Timer::RetryRestore,
    Timer::RetrySets,
    Timer::ClearUnused,
    Timer::CutConnections,
    Timer::DeleteFormer,
    Timer::PollRules,
    Timer::Resync,
];

/// One call; times are in milliseconds from the start.
#[derive(Debug, Clone, Copy)]
enum Call {
    Set(usize, u64),
    SetAtLatest(usize, u64),
    Hasten(usize, u64),
    Cancel(usize),
    Expired(usize, u64),
}

fn call() -> impl Strategy<Value = Call> {
    let (timer, at) = (0..ALL.len(), 0..50_u64);
    prop_oneof![
        (timer.clone(), at.clone()).prop_map(|(timer, at)| Call::Set(timer, at)),
        (timer.clone(), at.clone()).prop_map(|(timer, at)| Call::SetAtLatest(timer, at)),
        (timer.clone(), at.clone()).prop_map(|(timer, at)| Call::Hasten(timer, at)),
        timer.clone().prop_map(Call::Cancel),
        (timer, at).prop_map(|(timer, now)| Call::Expired(timer, now)),
    ]
}

proptest! {
    #[test]
    fn it_keeps_what_a_list_keeps(calls in vec(call(), 0..60)) {
        let start = Instant::now();
        let time = |at: u64| start + Duration::from_millis(at);
        let mut table = TimerTable::default();
        let mut list: Vec<(usize, u64)> = Vec::new();
        for call in calls {
            match call {
                Call::Set(timer, at) => {
                    list.retain(|(of, _)| *of != timer);
                    list.push((timer, at));
                    table.set(ALL[timer], time(at));
                }
                Call::SetAtLatest(timer, at) => {
                    // All stay in the list; the soonest counts.
                    list.push((timer, at));
                    table.set_at_latest(ALL[timer], time(at));
                }
                Call::Hasten(timer, at) => {
                    if list.iter().any(|(of, _)| *of == timer) {
                        list.push((timer, at));
                    }
                    table.hasten(ALL[timer], time(at));
                }
                Call::Cancel(timer) => {
                    list.retain(|(of, _)| *of != timer);
                    table.cancel(ALL[timer]);
                }
                Call::Expired(timer, now) => {
                    let is_due = list.iter().any(|(of, at)| *of == timer && *at <= now);
                    if is_due {
                        list.retain(|(of, _)| *of != timer);
                    }
                    prop_assert_eq!(table.expired(ALL[timer], time(now)), is_due);
                }
            }
            let soonest = |counts: &dyn Fn(usize) -> bool| {
                list.iter().filter(|(of, _)| counts(*of)).map(|(_, at)| time(*at)).min()
            };
            for (number, timer) in ALL.into_iter().enumerate() {
                prop_assert_eq!(table.expiry(timer), soonest(&|of| of == number));
                prop_assert_eq!(table.is_set(timer), table.expiry(timer).is_some());
                prop_assert_eq!(table.next(|of| of != timer), soonest(&|of| of != number));
            }
            prop_assert_eq!(table.next(|_| true), soonest(&|_| true));
        }
    }
}

#[test]
fn a_timer_expires_at_its_instant_and_once() {
    let (mut table, now) = (TimerTable::default(), Instant::now());
    let at = now + Duration::from_secs(1);
    table.set(Timer::Resync, at);
    assert!(!table.expired(Timer::Resync, now) && table.is_set(Timer::Resync));
    assert!(table.expired(Timer::Resync, at));
    assert!(!table.expired(Timer::Resync, at) && !table.is_set(Timer::Resync) && table.next(|_| true).is_none());
}
