use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: Duration = Duration::from_secs(60);

const BOTH: Families = Families::ALL;
const IPV4: Families = Families::only(Family::Ipv4);
const IPV6: Families = Families::only(Family::Ipv6);

fn offer(restarting: bool) -> PeerRestart {
    PeerRestart { restarting, time: MINUTE, families: BOTH, forwarding: BOTH }
}

fn restart_with(peers: &[IpAddr], now: Instant) -> Restart {
    let mut restart = Restart::new(BOTH);
    for peer in peers {
        restart.expect(*peer, IPV4, now + MINUTE);
    }
    assert!(restart.poll(now).is_empty(), "nothing is in sync before the configuration is known");
    restart.configured();
    restart
}

#[test]
fn rfc4724_4_1_a_family_is_in_sync_once_every_peer_has_sent_its_end_of_rib() {
    let now = Instant::now();
    let mut restart = restart_with(&[A, B], now);
    assert_eq!(restart.poll(now), [Family::Ipv6], "no peer speaks it");
    assert!(restart.defers_deletions(Family::Ipv4) && restart.is_under_way());
    for peer in [A, B] {
        restart.established(peer, IPV4, Some(&offer(false)), MINUTE, now);
        assert!(restart.poll(now).is_empty());
        restart.end_of_rib(peer, Family::Ipv4);
    }
    assert_eq!(restart.poll(now), [Family::Ipv4]);
    assert!(!restart.defers_deletions(Family::Ipv4) && !restart.is_under_way());
    assert!(restart.poll(now).is_empty(), "said once");
}

#[test]
fn rfc4724_4_1_a_peer_that_never_comes_up_is_waited_for_until_its_deadline_only() {
    let now = Instant::now();
    let mut restart = restart_with(&[A], now);
    restart.poll(now);
    assert_eq!(restart.timeout(), Some(now + MINUTE));
    assert!(restart.poll(now + MINUTE - Duration::from_millis(1)).is_empty());
    assert_eq!(restart.poll(now + MINUTE), [Family::Ipv4]);
    assert_eq!(restart.timeout(), None);
}

#[test]
fn a_peer_without_graceful_restart_is_given_a_few_seconds() {
    let now = Instant::now();
    let mut restart = restart_with(&[A], now);
    restart.poll(now);
    restart.established(A, IPV4, None, MINUTE, now);
    assert_eq!(restart.poll(now + UNMARKED_RIB_TIME), [Family::Ipv4]);
}

#[test]
fn a_peer_that_is_lost_again_has_what_is_left_of_its_time() {
    let now = Instant::now();
    let mut restart = restart_with(&[A], now);
    restart.poll(now);
    let later = now + Duration::from_secs(50);
    restart.established(A, IPV4, Some(&offer(false)), MINUTE, later);
    restart.poll(later);
    assert_eq!(restart.timeout(), Some(later + MINUTE));
    restart.closed(A);
    restart.poll(later);
    assert_eq!(restart.timeout(), Some(now + MINUTE));
    restart.forget(A);
    assert_eq!(restart.poll(later), [Family::Ipv4]);
}

#[test]
fn rfc4724_4_1_a_reflector_does_not_wait_for_a_peer_that_waits_for_it() {
    let now = Instant::now();
    let mut restart = restart_with(&[A], now);
    assert!(!restart.has_chosen(Family::Ipv4));
    restart.established(A, IPV4, Some(&offer(true)), MINUTE, now);
    assert_eq!(restart.poll(now), [Family::Ipv6]);
    assert!(restart.has_chosen(Family::Ipv4), "peers may be told");
    assert!(restart.defers_deletions(Family::Ipv4), "but nothing is deleted yet");
}

#[test]
fn rfc4724_4_2_routes_stay_for_the_restart_time_after_a_loss_without_notification() {
    let now = Instant::now();
    let mut retention = Retention::default();
    assert_eq!(retention.lost(Some(&offer(false)), true, now), BOTH);
    assert!(retention.expired(now).is_empty());
    assert_eq!(retention.expired(now + MINUTE), BOTH);
    assert_eq!(retention.timeout(), None);
}

#[test]
fn rfc4724_4_a_notification_ends_graceful_restart() {
    let now = Instant::now();
    assert!(Retention::default().lost(Some(&offer(false)), false, now).is_empty());
    assert!(Retention::default().lost(None, true, now).is_empty(), "as does a peer without the capability");
}

#[test]
fn rfc4724_4_2_a_family_without_the_f_bit_in_the_new_open_goes_at_once() {
    let now = Instant::now();
    let without_bit = PeerRestart { forwarding: IPV4, ..offer(true) };
    let without_family = PeerRestart { families: IPV4, forwarding: IPV4, ..offer(true) };
    for new in [without_bit, without_family] {
        let mut retention = Retention::default();
        retention.lost(Some(&offer(false)), true, now);
        assert_eq!(retention.established(Some(&new), MINUTE, now), IPV6);
        assert!(retention.holds(Family::Ipv4) && !retention.holds(Family::Ipv6));
        assert!(retention.end_of_rib(Family::Ipv4) && !retention.end_of_rib(Family::Ipv4));
    }
    let mut retention = Retention::default();
    retention.lost(Some(&offer(false)), true, now);
    assert_eq!(retention.established(None, MINUTE, now), BOTH);
}
