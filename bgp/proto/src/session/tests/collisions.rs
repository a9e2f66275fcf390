//! Two connections at once (RFC 4271 section 6.8, RFC 6286 section 2.3).

use super::*;

/// A session that has dialled and accepted, and has sent its OPEN on both connections.
fn both(config: SessionConfig) -> (Bench, ConnId, ConnId) {
    let (mut bench, dialled) = Bench::open_sent(config);
    let (accepted, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN"]);
    (bench, dialled, accepted)
}

#[test]
fn rfc4271_6_8_the_connection_of_the_higher_identifier_stays() {
    let id = |octets: [u8; 4]| RouterId::new(octets.into()).unwrap();
    let (low, high) = (id(LOWER_ID), id(HIGHER_ID));
    assert_eq!(survivor((high, asn(1)), (low, asn(2))), Survivor::Dialled);
    assert_eq!(survivor((low, asn(2)), (high, asn(1))), Survivor::Accepted);
}

#[test]
fn rfc6286_2_3_of_equal_identifiers_the_higher_as_number_decides() {
    let id = RouterId::new(LOCAL_ID.into()).unwrap();
    assert_eq!(survivor((id, asn(2)), (id, asn(1))), Survivor::Dialled);
    assert_eq!(survivor((id, asn(1)), (id, asn(2))), Survivor::Accepted);
}

#[test]
fn rfc4271_6_8_when_the_open_has_come_on_both_the_losing_connection_is_closed() {
    for (peer, dialled_stays) in [(LOWER_ID, true), (HIGHER_ID, false)] {
        for dialled_first in [true, false] {
            let (mut bench, dialled, accepted) = both(config());
            let open = || peer_open_with(peer).encode();
            let (first, second) = if dialled_first { (dialled, accepted) } else { (accepted, dialled) };
            assert_eq!(short(&bench.feed(Input::Received(first, open()))), ["KEEPALIVE"]);
            let outputs = bench.feed(Input::Received(second, open()));
            let (winner, loser) = if dialled_stays { (dialled, accepted) } else { (accepted, dialled) };
            assert!(outputs.contains(&Output::Close(loser)));
            assert!(!outputs.contains(&Output::Close(winner)));
            assert_eq!(short(&outputs)[..2], ["NOTIFICATION 6/7", "close"]);
            bench.feed(Input::Received(winner, keepalive()));
            assert_eq!(bench.session.connection(), Some(winner));
        }
    }
}

#[test]
fn a_connection_that_would_lose_waits_for_the_preferred_one_and_takes_over_if_that_goes() {
    let (mut bench, dialled, accepted) = both(config());
    bench.feed(Input::Received(dialled, peer_open_with(HIGHER_ID).encode()));
    assert_eq!(bench.feed(Input::Received(dialled, keepalive())), [], "the accepted one is preferred");
    assert_eq!(bench.session.state(), SessionState::OpenConfirm);
    assert_eq!(short(&bench.feed(Input::Closed(accepted))), ["established"]);
    assert_eq!(bench.session.connection(), Some(dialled));
}

#[test]
fn rfc4271_6_8_an_update_shows_which_connection_the_peer_has_chosen() {
    let (mut bench, dialled, _) = both(config());
    bench.feed(Input::Received(dialled, peer_open_with(HIGHER_ID).encode()));
    bench.feed(Input::Received(dialled, keepalive()));
    assert_eq!(bench.feed(Input::Received(dialled, keepalive())), [], "another KEEPALIVE shows nothing");
    let outputs = bench.feed(Input::Received(dialled, update()));
    assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close", "established", "update"]);
    assert_eq!(bench.session.connection(), Some(dialled));
}

#[test]
fn rfc4271_6_8_a_preferred_connection_without_an_open_is_waited_for_only_a_short_while() {
    let (mut bench, dialled, _) = both(config());
    bench.feed(Input::Received(dialled, peer_open_with(HIGHER_ID).encode()));
    bench.feed(Input::Received(dialled, keepalive()));
    let outputs = bench.pass(Duration::from_secs(5));
    assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close", "established"]);
    assert_eq!(bench.session.connection(), Some(dialled));
}

#[test]
fn rfc4271_6_8_a_preferred_connection_is_established_at_once_and_the_other_closed() {
    let (mut bench, dialled, accepted) = both(config());
    bench.feed(Input::Received(dialled, peer_open_with(LOWER_ID).encode()));
    let outputs = bench.feed(Input::Received(dialled, keepalive()));
    assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close", "established"]);
    assert!(outputs.contains(&Output::Close(accepted)));
}

#[test]
fn a_connection_that_waits_can_still_be_closed_by_the_peer() {
    let (mut bench, dialled, accepted) = both(config());
    bench.feed(Input::Received(dialled, peer_open_with(HIGHER_ID).encode()));
    bench.feed(Input::Received(dialled, keepalive()));
    let cease = Notification::new(crate::wire::ErrorCode::Cease(crate::wire::Cease::CollisionResolution));
    assert_eq!(bench.feed(Input::Received(dialled, cease.encode())), [Output::Close(dialled)]);
    bench.feed(Input::Received(accepted, peer_open_with(HIGHER_ID).encode()));
    assert_eq!(short(&bench.feed(Input::Received(accepted, keepalive()))), ["established"]);
}

#[test]
fn losing_a_collision_at_the_peer_is_no_failure() {
    let (mut bench, dialled, accepted) = both(config());
    let cease = Notification::new(crate::wire::ErrorCode::Cease(crate::wire::Cease::CollisionResolution));
    let outputs = bench.feed(Input::Received(dialled, cease.encode()));
    assert_eq!(outputs, [Output::Close(dialled)]);
    bench.feed(Input::Received(accepted, peer_open().encode()));
    assert_eq!(short(&bench.feed(Input::Received(accepted, keepalive()))), ["established"]);
    assert_eq!(bench.session.counters().last_down, None);
}

#[test]
fn rfc4271_6_8_without_graceful_restart_the_established_connection_stays() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let (new, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close"]);
    assert!(outputs.contains(&Output::Close(new)));
    assert_eq!(bench.session.connection(), Some(conn));
}

#[test]
fn of_several_connections_that_the_peer_dialled_none_ends_another_and_the_first_confirmed_one_is_the_session() {
    for confirmed_first in [true, false] {
        let (mut bench, dialled) = Bench::started(config());
        let (first, _) = bench.accept();
        let (second, outputs) = bench.accept();
        assert_eq!(short(&outputs), ["OPEN"]);
        let outputs = bench.feed(Input::Received(first, peer_open().encode()));
        assert_eq!(outputs[0], Output::Close(dialled));
        assert_eq!(short(&bench.feed(Input::Received(second, peer_open().encode()))), ["KEEPALIVE"]);
        let (winner, loser) = if confirmed_first { (first, second) } else { (second, first) };
        let outputs = bench.feed(Input::Received(winner, keepalive()));
        assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close", "established"]);
        assert!(outputs.contains(&Output::Close(loser)));
    }
}

#[test]
fn connections_that_bring_no_open_keep_nobody_out_for_long() {
    let (mut bench, _) = Bench::started(config());
    for _ in 0..4 {
        assert_eq!(short(&bench.accept().1), ["OPEN"]);
    }
    let (fifth, outputs) = bench.accept();
    assert_eq!(outputs[1..], [Output::Close(fifth)]);
    assert_eq!(told(&outputs).error, crate::wire::ErrorCode::Cease(crate::wire::Cease::ConnectionRejected));
    bench.now += Duration::from_secs(5);
    let (sixth, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["NOTIFICATION 6/5", "close", "OPEN"], "a silent one makes room");
    bench.feed(Input::Received(sixth, peer_open().encode()));
    bench.feed(Input::Received(sixth, keepalive()));
    assert_eq!(bench.session.connection(), Some(sixth));
    assert_eq!(bench.session.counters().refused_connections, 2);
}

#[test]
fn a_fault_on_one_connection_does_not_disturb_the_other() {
    let (mut bench, dialled, accepted) = both(config());
    let outputs =
        bench.feed(Input::Received(dialled, Open { asn: asn(9), capabilities: vec![], ..peer_open() }.encode()));
    assert_eq!(short(&outputs)[..2], ["NOTIFICATION 2/2", "close"]);
    bench.feed(Input::Received(accepted, peer_open().encode()));
    assert_eq!(short(&bench.feed(Input::Received(accepted, keepalive()))), ["established"]);
}
