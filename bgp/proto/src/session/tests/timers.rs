//! The timers of RFC 4271 sections 8.1.3 and 10.

use super::*;

#[test]
fn rfc4271_10_keepalives_come_at_a_third_of_the_hold_time_with_jitter() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let mut gaps = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let before = bench.now;
        assert_eq!(short(&bench.tick()), ["KEEPALIVE"]);
        let gap = bench.now - before;
        assert!(gap >= Duration::from_millis(7_500) && gap <= Duration::from_secs(10), "{gap:?}");
        gaps.insert(gap);
        bench.feed(Input::Received(conn, keepalive()));
    }
    assert!(gaps.len() > 10, "jitter varies");
}

#[test]
fn rfc4271_8_2_2_updates_that_were_sent_put_the_keepalive_off() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    for _ in 0..100 {
        bench.now += Duration::from_secs(5);
        bench.feed(Input::Received(conn, keepalive()));
        bench.session.sent_updates(1, bench.now);
        assert_eq!(bench.feed(Input::Tick), []);
    }
}

#[test]
fn rfc4271_8_2_2_keepalives_and_updates_from_the_peer_keep_the_session_up() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    for message in [keepalive(), update()].into_iter().cycle().take(20) {
        let outputs = bench.pass(Duration::from_secs(25));
        assert!(outputs.iter().all(|output| matches!(output, Output::Send(..))), "{outputs:?}");
        bench.feed(Input::Received(conn, message));
    }
    assert_eq!(bench.session.state(), SessionState::Established);
}

#[test]
fn rfc4271_4_4_and_8_2_2_a_hold_time_of_zero_means_no_timers() {
    let (bench, _) = Bench::established(config(), &Open { hold_time: HoldTime::NONE, ..peer_open() });
    assert_eq!(bench.session.timeout(), None);
}

#[test]
fn rfc4271_8_2_2_a_peer_that_never_sends_its_open_is_given_four_minutes() {
    let (mut bench, _) = Bench::open_sent(config());
    let start = bench.now;
    let outputs = bench.tick();
    assert_eq!(bench.now - start, Duration::from_secs(240));
    assert_eq!(short(&outputs)[..2], ["NOTIFICATION 4/0", "close"]);
    assert_eq!(bench.session.state(), SessionState::Active);
}

#[test]
fn rfc4271_8_2_2_a_peer_that_falls_silent_in_open_confirm_is_given_the_agreed_hold_time() {
    let (mut bench, _) = Bench::open_confirm(config(), &peer_open());
    let outputs = bench.pass(Duration::from_secs(30));
    assert!(short(&outputs).contains(&"NOTIFICATION 4/0".to_owned()));
}

#[test]
fn rfc4271_8_2_2_and_10_connect_retry_doubles_to_a_minute_with_jitter_and_begins_again_after_success() {
    let (mut bench, mut conn) = Bench::started(config());
    for whole in [5, 10, 20, 40, 60, 60] {
        let (start, whole) = (bench.now, Duration::from_secs(whole));
        bench.feed(Input::ConnectFailed(conn, "no route to host".to_owned()));
        let [Output::Connect(next)] = bench.tick()[..] else { panic!("no dial") };
        let gap = bench.now - start;
        assert!(gap <= whole && gap >= whole * 3 / 4, "{gap:?} of {whole:?}");
        conn = next;
    }
    bench.feed(Input::Connected(conn));
    bench.feed(Input::Received(conn, peer_open().encode()));
    bench.feed(Input::Received(conn, keepalive()));
    bench.feed(Input::Closed(conn));
    assert!(bench.session.timeout().unwrap() - bench.now <= Duration::from_secs(5));
}

#[test]
fn rfc4271_8_2_2_a_dial_that_does_not_end_is_given_up_and_begun_anew() {
    let (mut bench, conn) = Bench::started(config());
    let outputs = bench.tick();
    assert_eq!(outputs[0], Output::Close(conn));
    assert_eq!(short(&outputs), ["close", "connect"]);
    assert_eq!(bench.feed(Input::Connected(conn)), [Output::Close(conn)], "it came too late");
}

#[test]
fn rfc4271_8_1_1_oscillation_is_damped_longer_each_time_until_the_session_was_stable() {
    let (mut bench, mut conn) = Bench::established(config(), &peer_open());
    let mut held = Vec::new();
    for stable in [0, 0, 0, 61] {
        bench.now += Duration::from_secs(stable);
        bench.feed(Input::Received(conn, raw(9, &[])));
        held.push((bench.session.timeout().unwrap() - bench.now).as_secs_f64());
        let [Output::Connect(next)] = bench.tick()[..] else { panic!("no dial") };
        conn = next;
        bench.feed(Input::Connected(conn));
        bench.feed(Input::Received(conn, peer_open().encode()));
        bench.feed(Input::Received(conn, keepalive()));
    }
    assert!(held[0] <= 5.0 && held[1] > 5.0 && held[2] > 10.0 && held[3] <= 5.0, "{held:?}");
}
