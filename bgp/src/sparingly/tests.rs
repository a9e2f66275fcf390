use super::*;

#[test]
fn a_peer_that_errs_a_thousand_times_is_named_once_a_second_with_a_count() {
    let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let (mut sparingly, now) = (Sparingly::default(), Instant::now());
    let event = || PeerEvent::SecondRefused(1);
    assert_eq!(sparingly.says(one, event(), now), Some(event()));
    for _ in 0..999 {
        assert_eq!(sparingly.says(one, event(), now), None);
    }
    assert_eq!(sparingly.says(other, event(), now), Some(event()), "peers are told apart");
    assert_eq!(sparingly.says(one, PeerEvent::TooManyPeers, now), Some(PeerEvent::TooManyPeers));
    assert_eq!(sparingly.due(now), []);
    assert_eq!(sparingly.timeout(), Some(now + PAUSE));
    assert_eq!(sparingly.due(now + PAUSE), [(one, event(), 999)]);
    assert_eq!(sparingly.says(one, event(), now + PAUSE), None);
    assert_eq!(sparingly.due(now + 2 * PAUSE), [(one, event(), 1)]);
    assert_eq!(sparingly.due(now + 3 * PAUSE), []);
    assert_eq!(sparingly.timeout(), None, "nothing is kept of who is quiet");
}
