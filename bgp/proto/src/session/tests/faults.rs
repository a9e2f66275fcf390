//! What a peer can do wrong, and the NOTIFICATION that it gets (RFC 4271 section 6).

use super::*;
use crate::wire::{Cease, ErrorCode};

/// The session is in OpenSent and gets this; returns what it does.
fn after_open_sent(octets: Bytes) -> (Bench, Vec<Output>) {
    let (mut bench, conn) = Bench::open_sent(config());
    let outputs = bench.feed(Input::Received(conn, octets));
    assert_eq!(bench.session.state(), SessionState::Active, "it dials again later");
    (bench, outputs)
}

#[test]
fn rfc4271_6_2_a_wrong_peer_as_is_refused_with_both_numbers_for_people() {
    let mut open = peer_open();
    open.asn = asn(65_000);
    open.capabilities.retain(|capability| !matches!(capability, Capability::FourOctetAs(_)));
    let (bench, outputs) = after_open_sent(open.encode());
    let failed = "failed: peer says that it is AS 65000, configured is AS 64513";
    assert_eq!(short(&outputs), ["NOTIFICATION 2/2", "close", failed]);
    assert_eq!(
        bench.session.counters().last_down,
        Some(DownReason::BadPeerAs { expected: asn(64_513), got: asn(65_000) })
    );
    assert!(bench.session.counters().last_sent.is_some());
}

#[test]
fn rfc6286_2_2_our_own_identifier_is_refused_from_an_internal_peer_only() {
    let open = |number| Open {
        asn: asn(number),
        capabilities: vec![Capability::FourOctetAs(asn(number))],
        ..peer_open_with(LOCAL_ID)
    };
    let (mut bench, conn) = Bench::open_sent(SessionConfig { peer_asn: asn(64_512), ..config() });
    let outputs = bench.feed(Input::Received(conn, open(64_512).encode()));
    assert_eq!(short(&outputs), ["NOTIFICATION 2/3", "close", "failed: peer has our own router id 10.0.0.1"]);
    let (bench, _) = Bench::established(config(), &open(64_513));
    assert_eq!(bench.session.state(), SessionState::Established);
}

#[test]
fn rfc4271_6_2_faults_of_open_are_answered_with_their_subcodes() {
    let open = |version: u8, asn: u16, hold_time: u16, id: [u8; 4], rest: &[u8]| {
        let mut body = vec![version];
        body.extend(asn.to_be_bytes());
        body.extend(hold_time.to_be_bytes());
        body.extend(id);
        body.extend(rest);
        raw(1, &body)
    };
    for (message, code, data) in [
        (open(3, 64_513, 90, HIGHER_ID, &[0]), "NOTIFICATION 2/1", &[0, 4][..]),
        (open(4, 0, 90, HIGHER_ID, &[0]), "NOTIFICATION 2/2", &[]),
        (open(4, 64_513, 90, [0; 4], &[0]), "NOTIFICATION 2/3", &[0; 4]),
        (open(4, 64_513, 90, HIGHER_ID, &[3, 1, 1, 0]), "NOTIFICATION 2/4", &[]),
        (open(4, 64_513, 2, HIGHER_ID, &[0]), "NOTIFICATION 2/6", &[0, 2]),
        (open(4, 64_513, 90, HIGHER_ID, &[9, 2, 0]), "NOTIFICATION 2/0", &[]),
    ] {
        let (_, outputs) = after_open_sent(message);
        assert_eq!(short(&outputs)[..2], [code, "close"]);
        assert_eq!(told(&outputs).data, data, "{code}");
    }
}

#[test]
fn rfc5492_5_a_peer_without_a_common_family_is_told_which_capabilities_are_missing() {
    let mut open = peer_open();
    open.capabilities =
        vec![Capability::Multiprotocol(AfiSafi { afi: 1, safi: 128 }), Capability::FourOctetAs(asn(64_513))];
    let (_, outputs) = after_open_sent(open.encode());
    assert_eq!(short(&outputs)[..2], ["NOTIFICATION 2/7", "close"]);
    assert_eq!(told(&outputs).data, [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]);
}

#[test]
fn rfc6608_4_unexpected_messages_are_answered_with_the_subcode_of_the_state() {
    let unexpected = |bench: &mut Bench, conn, message: Bytes, code: &str| {
        let outputs = bench.feed(Input::Received(conn, message));
        assert_eq!(short(&outputs)[..2], [code, "close"]);
    };
    for message in [keepalive(), update(), raw(5, &[0, 1, 0, 1])] {
        let (mut bench, conn) = Bench::open_sent(config());
        unexpected(&mut bench, conn, message, "NOTIFICATION 5/1");
    }
    for message in [peer_open().encode(), update(), raw(5, &[0, 1, 0, 1])] {
        let (mut bench, conn) = Bench::open_confirm(config(), &peer_open());
        unexpected(&mut bench, conn, message, "NOTIFICATION 5/2");
    }
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    unexpected(&mut bench, conn, peer_open().encode(), "NOTIFICATION 5/3");
}

#[test]
fn rfc4271_6_1_a_broken_header_ends_the_session_in_every_state() {
    let unsynchronized = Bytes::from_static(&[0; 19]);
    let too_long = {
        let mut octets = keepalive().to_vec();
        octets[16..18].copy_from_slice(&5_000_u16.to_be_bytes());
        Bytes::from(octets)
    };
    for (octets, code, data) in [
        (unsynchronized, "NOTIFICATION 1/1", &[][..]),
        (too_long, "NOTIFICATION 1/2", &[0x13, 0x88]),
        (raw(9, &[]), "NOTIFICATION 1/3", &[9]),
        (raw(4, &[0]), "NOTIFICATION 1/2", &[0, 20]),
    ] {
        let benches = [
            Bench::open_sent(config()),
            Bench::open_confirm(config(), &peer_open()),
            Bench::established(config(), &peer_open()),
        ];
        for (mut bench, conn) in benches {
            let outputs = bench.feed(Input::Received(conn, octets.clone()));
            assert_eq!(short(&outputs)[..2], [code, "close"]);
            assert_eq!(told(&outputs).data, data);
        }
    }
}

#[test]
fn rfc4271_6_3_a_malformed_update_ends_the_session_and_holds_the_next_attempt_back() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let outputs = bench.feed(Input::Received(conn, raw(2, &[0, 9, 0, 0])));
    assert_eq!(short(&outputs)[..2], ["NOTIFICATION 3/1", "close"]);
    assert!(matches!(outputs[2], Output::Down(DownReason::Malformed(_))));
    assert_eq!(bench.session.state(), SessionState::Idle);
    let (_, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["NOTIFICATION 6/5", "close"]);
    assert_eq!(short(&bench.tick()), ["connect"]);
}

#[test]
fn rfc7606_2_a_malformed_attribute_withdraws_the_routes_and_the_session_stays() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    // ORIGIN 7, an empty AS_PATH, NEXT_HOP, and 10.1.0.0/16.
    let attributes = [0x40, 1, 1, 7, 0x40, 2, 0, 0x40, 3, 4, 192, 0, 2, 1];
    let mut body = vec![0, 0, 0, 14];
    body.extend(attributes);
    body.extend([16, 10, 1]);
    let [Output::Update(ref update)] = bench.feed(Input::Received(conn, raw(2, &body)))[..] else {
        panic!("no update")
    };
    assert_eq!(update.withdrawn, ["10.1.0.0/16".parse().unwrap()]);
    assert_eq!((&update.reach[..], &update.attributes), (&[][..], &None));
    assert_eq!(bench.session.counters().treated_as_withdraw, 1);
    assert_eq!(bench.session.state(), SessionState::Established);
}

#[test]
fn rfc4271_6_5_silence_ends_the_session_with_hold_timer_expired() {
    let (mut bench, _) = Bench::established(config(), &peer_open());
    let outputs = bench.pass(Duration::from_secs(30));
    let shorts = short(&outputs);
    assert_eq!(
        shorts[shorts.len() - 3..],
        ["NOTIFICATION 4/0", "close", "down: hold timer expired: nothing heard for 30 s"]
    );
    assert_eq!(bench.session.state(), SessionState::Active);
}

#[test]
fn rfc4271_8_2_2_a_notification_ends_the_session_without_an_answer() {
    let notification = Notification::shutdown(Cease::AdministrativeShutdown, "bye");
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let outputs = bench.feed(Input::Received(conn, notification.encode()));
    let down = "peer sent NOTIFICATION: cease: administrative shutdown (\"bye\")";
    assert_eq!(short(&outputs), ["close", &format!("down: {down}")]);
    assert!(matches!(&outputs[1], Output::Down(reason) if !reason.retains_routes()));
    assert_eq!(bench.session.counters().last_received, Some(notification.clone()));
    let (mut bench, conn) = Bench::open_confirm(config(), &peer_open());
    let outputs = bench.feed(Input::Received(conn, notification.encode()));
    assert_eq!(short(&outputs), ["close", &format!("failed: {down}")]);
}

#[test]
fn rfc4271_8_2_2_connection_refused_and_lost_are_told_and_tried_again() {
    let (mut bench, conn) = Bench::started(config());
    let outputs = bench.feed(Input::ConnectFailed(conn, "connection refused".to_owned()));
    assert_eq!(short(&outputs), ["failed: cannot connect: connection refused"]);
    assert_eq!(bench.session.state(), SessionState::Active);
    assert_eq!(short(&bench.tick()), ["connect"]);
    let (mut bench, conn) = Bench::open_confirm(config(), &peer_open());
    assert_eq!(short(&bench.feed(Input::Closed(conn))), ["failed: connection lost"]);
    assert_eq!(short(&bench.tick()), ["connect"]);
}

#[test]
fn rfc4271_8_2_2_a_lost_connection_takes_the_session_down_without_a_notification() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let outputs = bench.feed(Input::Closed(conn));
    assert_eq!(outputs, [Output::Down(DownReason::ConnectionLost)]);
    assert_eq!(bench.session.state(), SessionState::Active);
    assert_eq!(bench.session.counters().last_down, Some(DownReason::ConnectionLost));
}

#[test]
fn a_peer_that_cuts_any_message_short_gets_an_answer_and_nothing_worse() {
    for message in [peer_open().encode(), update()] {
        for length in 0..message.len() {
            let (mut bench, conn) = Bench::established(config(), &peer_open());
            let outputs = bench.feed(Input::Received(conn, message.slice(..length)));
            assert!(matches!(told(&outputs).error, ErrorCode::Header(_)));
        }
    }
}
