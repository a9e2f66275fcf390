//! When connections are listed, judged and cut, and when those of former addresses are deleted.

use kernel::acl::Tuple;

use super::*;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 65, 0, last])
}

/// A connection that is known by its port.
fn connection(port: u16) -> Connection {
    let tuple = |source, source_port, destination, destination_port| Tuple {
        source,
        destination,
        protocol: 6,
        source_port,
        destination_port,
    };
    Connection {
        original: tuple(ip(1), 4_000, ip(2), port),
        reply: tuple(ip(2), port, ip(1), 4_000),
        zone: 0,
        id: None,
    }
}

/// Cutting with its timers and a clock. What goes to ports below 100 is allowed.
struct Desk {
    cutting: Cutting,
    timers: TimerTable,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        let now = Instant::now();
        Self { cutting: Cutting::new(now), timers: TimerTable::default(), now }
    }

    fn after(&mut self, time: Duration) -> Option<ConnectionsTask> {
        self.now += time;
        let allows = |connection: &Connection| connection.original.destination_port < 100;
        self.cutting.next_task(self.now, &mut self.timers, allows, || BTreeSet::from([ip(2)]))
    }

    fn next(&mut self) -> Option<ConnectionsTask> {
        self.after(Duration::ZERO)
    }

    fn tightened(&mut self, how_far: Tightened) {
        self.cutting.tightened(how_far, self.now, &mut self.timers);
    }

    fn listed(&mut self, ports: impl IntoIterator<Item = u16>, took: Duration) {
        self.cutting.listed(ports.into_iter().map(connection).collect(), took, self.now, &mut self.timers);
    }

    fn give_up(&mut self, address: IpAddr) {
        self.cutting.give_up([address], self.now, &mut self.timers);
    }
}

fn is_listing(task: Option<ConnectionsTask>) -> bool {
    matches!(task, Some(ConnectionsTask::Look(local)) if local == BTreeSet::from([ip(2)]))
}

fn cut_ports(task: Option<ConnectionsTask>) -> Vec<u16> {
    let Some(ConnectionsTask::Cut(connections)) = task else { return Vec::new() };
    connections.iter().map(|connection| connection.original.destination_port).collect()
}

#[test]
fn connections_are_not_listed_before_the_pause_which_is_longer_as_long_as_not_all_is_in_force() {
    let mut desk = Desk::new();
    assert!(desk.after(Duration::from_secs(60)).is_none(), "nothing was tightened");
    desk.tightened(Tightened::InPart);
    assert!(desk.after(CUT_DELAY).is_none());
    desk.tightened(Tightened::Whole);
    assert!(desk.after(CUT_DELAY - Duration::from_millis(1)).is_none());
    assert!(is_listing(desk.after(Duration::from_millis(1))), "the shorter pause counts");
    assert!(desk.cutting.is_busy() && desk.after(Duration::from_secs(60)).is_none());
}

#[test]
fn after_a_listing_there_is_none_for_nine_times_as_long_whatever_is_tightened() {
    let mut desk = Desk::new();
    desk.tightened(Tightened::Whole);
    assert!(is_listing(desk.after(CUT_DELAY)));
    desk.tightened(Tightened::Whole);
    desk.listed([], Duration::from_secs(1));
    assert!(desk.next().is_none() && !desk.cutting.is_busy());
    desk.tightened(Tightened::Whole);
    assert!(desk.after(Duration::from_millis(8_999)).is_none());
    assert!(is_listing(desk.after(Duration::from_millis(1))));
}

#[test]
fn connections_are_judged_some_at_a_time_and_cut_together() {
    let mut desk = Desk::new();
    desk.tightened(Tightened::Whole);
    assert!(is_listing(desk.after(CUT_DELAY)));
    let count = u16::try_from(CONNECTIONS_JUDGED_PER_ROUND).unwrap() + 200;
    desk.listed(0..count, Duration::ZERO);
    assert!(desk.cutting.has_suspects() && desk.next().is_none(), "a round's worth is judged");
    desk.tightened(Tightened::Whole);
    let cut: BTreeSet<_> = cut_ports(desk.after(CUT_DELAY)).into_iter().collect();
    assert_eq!(cut, (100..count).collect());
    assert!(desk.cutting.is_busy() && desk.next().is_none());
    desk.cutting.cut();
    assert!(is_listing(desk.next()), "what was tightened since then");
}

#[test]
fn what_fails_is_tried_again_later() {
    let mut desk = Desk::new();
    desk.tightened(Tightened::Whole);
    assert!(is_listing(desk.after(CUT_DELAY)));
    desk.cutting.failed(desk.now, &mut desk.timers);
    assert!(desk.after(CONNECTIONS_RETRY_DELAY - Duration::from_millis(1)).is_none());
    assert!(is_listing(desk.after(Duration::from_millis(1))));
    desk.listed([443], Duration::ZERO);
    assert_eq!(cut_ports(desk.next()), [443]);
    desk.cutting.failed(desk.now, &mut desk.timers);
    assert!(is_listing(desk.after(CONNECTIONS_RETRY_DELAY)));
}

#[test]
fn former_addresses_are_collected_and_deleted_before_anything_else_of_that_thread() {
    let mut desk = Desk::new();
    desk.give_up(ip(7));
    desk.tightened(Tightened::Whole);
    assert!(is_listing(desk.after(CUT_DELAY)));
    desk.listed([443], Duration::ZERO);
    desk.now += FORMER_ADDRESSES_DELAY - CUT_DELAY;
    desk.give_up(ip(8));
    assert!(desk.cutting.is_former(&ip(7)) && desk.cutting.is_former(&ip(8)));
    let Some(ConnectionsTask::Forget(addresses)) = desk.next() else { panic!("the first is due") };
    assert_eq!(addresses, BTreeSet::from([ip(7), ip(8)]));
    assert!(desk.cutting.is_former(&ip(7)) && desk.cutting.has_suspects() && desk.next().is_none());
    desk.cutting.former_deleted(true, desk.now, &mut desk.timers);
    assert!(!desk.cutting.is_former(&ip(7)));
    assert_eq!(cut_ports(desk.next()), [443]);
}

#[test]
fn who_waits_for_a_former_address_hastens_it_and_a_failure_is_tried_again() {
    let mut desk = Desk::new();
    desk.give_up(ip(7));
    desk.timers.hasten(Timer::DeleteFormer, desk.now);
    assert!(matches!(desk.next(), Some(ConnectionsTask::Forget(_))));
    desk.cutting.former_deleted(false, desk.now, &mut desk.timers);
    assert!(desk.cutting.is_former(&ip(7)) && !desk.cutting.is_busy());
    assert!(desk.after(FORMER_ADDRESSES_DELAY).is_none());
    assert!(matches!(desk.after(CONNECTIONS_RETRY_DELAY), Some(ConnectionsTask::Forget(_))));
}
