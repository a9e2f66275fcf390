use super::*;

const GRACE: Duration = Duration::from_secs(24 * 3_600);

fn at(seconds: u64) -> Option<Reading> {
    let since = Duration::from_secs(seconds);
    Some(Reading { boot: since, wall: since })
}

fn new(last: Option<Confirmation>, now: Instant) -> Confirmations {
    Confirmations::new(Some(Fencing { grace: GRACE, clocks: || None }), "boot", last, 1, now)
}

#[test]
fn a_confirmation_counts_from_when_it_was_asked_for_and_is_journalled_once_a_minute() {
    let begun = Instant::now();
    let mut confirmations = new(None, begun);
    confirmations.clocks(at(0));
    assert_eq!(confirmations.refuses(), Some((Unconfirmed::Never, GRACE / 2)));
    let mut journalled = 0;
    for second in (0..600).step_by(10) {
        let now = begun + Duration::from_secs(second);
        confirmations.clocks(at(second));
        if second == 0 || second % 60 == 0 {
            assert!(confirmations.begin(now), "{second}");
            assert!(!confirmations.begin(now) && confirmations.deadline().is_none(), "asked already");
            confirmations.clocks(at(second + 5));
            journalled += usize::from(confirmations.agreed(now).is_some());
            assert_eq!(confirmations.age(), Some(Duration::from_secs(5)));
        } else {
            assert!(!confirmations.begin(now), "{second}");
        }
        assert_eq!(confirmations.refuses(), None);
    }
    assert_eq!(journalled, 10);
    confirmations.clocks(at(540 + 12 * 3_600));
    assert_eq!(confirmations.refuses(), None);
    confirmations.clocks(at(541 + 12 * 3_600));
    let since = Unconfirmed::Since(Duration::from_secs(12 * 3_600 + 1));
    assert_eq!(confirmations.refuses(), Some((since, GRACE / 2)));
}

#[test]
fn what_the_journal_has_goes_on_counting_and_counts_for_nothing_after_a_reboot() {
    let now = Instant::now();
    let last = |boot_id: &str| Confirmation { boot_id: boot_id.to_owned(), at: at(100).unwrap() };
    let mut same = new(Some(last("boot")), now);
    same.clocks(at(200));
    assert_eq!((same.refuses(), same.age()), (None, Some(Duration::from_secs(100))));
    let mut other = new(Some(last("another")), now);
    other.clocks(at(200));
    assert_eq!(other.refuses(), Some((Unconfirmed::Rebooted, GRACE / 2)));
    assert!(other.begin(now) && other.agreed(now).is_some(), "journalled at once: {other:?}");
    assert_eq!(other.refuses(), None);
}

#[test]
fn a_clock_that_jumps_ends_nothing_while_the_store_answers() {
    let now = Instant::now();
    let mut confirmations = new(None, now);
    confirmations.clocks(at(1_000_000_000));
    assert!(confirmations.begin(now) && confirmations.agreed(now).is_some());
    let year = Duration::from_secs(365 * 24 * 3_600);
    let boot = Duration::from_secs(1_000_000_001);
    for wall in [boot + year, boot - year] {
        confirmations.clocks(Some(Reading { boot, wall }));
        assert!(confirmations.refuses().is_some(), "no clock tells how long it was");
        confirmations.hurry(now);
        assert!(confirmations.begin(now) && confirmations.agreed(now).is_some());
        assert_eq!(confirmations.refuses(), None);
    }
}

#[test]
fn without_a_limit_the_store_is_asked_only_where_there_is_reason_to() {
    let now = Instant::now();
    let mut confirmations = Confirmations::new(None, "boot", None, 1, now);
    assert!(!confirmations.begin(now) && confirmations.deadline().is_none());
    assert_eq!(confirmations.refuses(), None);
    confirmations.hurry(now);
    assert!(confirmations.begin(now) && confirmations.agreed(now).is_none());
    assert!(!confirmations.begin(now));
}
