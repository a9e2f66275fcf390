//! The way to Established and back to Idle (RFC 4271 section 8.2.2), and what is agreed on.

use super::*;
use crate::wire::PeerType;

#[test]
fn rfc4271_8_2_2_a_dialled_session_goes_through_every_state() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.session.state(), SessionState::Idle);
    assert_eq!(bench.session.timeout(), None);
    let [Output::Connect(conn)] = bench.feed(Input::Start)[..] else { panic!("no dial") };
    assert_eq!(bench.session.state(), SessionState::Connect);
    assert_eq!(short(&bench.feed(Input::Connected(conn))), ["OPEN"]);
    assert_eq!(bench.session.state(), SessionState::OpenSent);
    assert_eq!(short(&bench.feed(Input::Received(conn, peer_open().encode()))), ["KEEPALIVE"]);
    assert_eq!(bench.session.state(), SessionState::OpenConfirm);
    assert_eq!(bench.session.connection(), None);
    assert_eq!(short(&bench.feed(Input::Received(conn, keepalive()))), ["established"]);
    assert_eq!(bench.session.state(), SessionState::Established);
    assert_eq!(bench.session.connection(), Some(conn));
    let counters = bench.session.counters();
    assert_eq!((counters.established, counters.since), (1, Some(bench.now)));
    assert_eq!((counters.received.open, counters.received.keepalive), (1, 1));
    assert_eq!((counters.sent.open, counters.sent.keepalive), (1, 1));
}

#[test]
fn rfc4271_8_2_2_an_accepted_connection_goes_through_the_same_states_and_ends_the_dial() {
    let (mut bench, dialled) = Bench::started(config());
    let (conn, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN"]);
    let outputs = bench.feed(Input::Received(conn, peer_open().encode()));
    assert_eq!(outputs[0], Output::Close(dialled));
    assert_eq!(short(&outputs), ["close", "KEEPALIVE"]);
    assert_eq!(short(&bench.feed(Input::Received(conn, keepalive()))), ["established"]);
}

#[test]
fn rfc4271_8_1_2_a_passive_session_never_dials() {
    let mut bench = Bench::new(SessionConfig { passive: true, ..config() });
    assert_eq!(bench.feed(Input::Start), []);
    assert_eq!((bench.session.state(), bench.session.timeout()), (SessionState::Active, None));
    let (conn, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN"]);
    assert_eq!(short(&bench.feed(Input::Closed(conn))), ["failed: connection lost"]);
    assert_eq!((bench.session.state(), bench.session.timeout()), (SessionState::Active, None));
}

#[test]
fn rfc4271_4_2_and_rfc6793_4_1_and_4_2_1_our_open_says_who_we_are_and_what_we_can() {
    let local_asn = asn(4_200_000_000);
    let terms = restart_terms(true);
    let config = SessionConfig { local_asn, graceful_restart: Some(terms.clone()), ..config() };
    let (mut bench, conn) = Bench::started(config);
    let [Output::Send(_, ref message)] = bench.feed(Input::Connected(conn))[..] else { panic!("no OPEN") };
    assert_eq!(message[20..22], Asn::TRANS.two_octets().to_be_bytes());
    let Ok(Message::Open(open)) = Codec::before_open(PeerType::External).decode(message) else { panic!("no OPEN") };
    assert_eq!((open.asn, open.hold_time.secs()), (local_asn, 90));
    assert_eq!(open.router_id.addr().octets(), LOCAL_ID);
    assert_eq!(open.families(), Families::ALL);
    assert!(open.four_octet_as() && open.route_refresh());
    assert_eq!(open.graceful_restart(), Some(&terms));
}

#[test]
fn rfc4271_4_2_the_smaller_hold_time_and_the_common_families_are_agreed_on() {
    let config = SessionConfig { families: Families::only(Family::Ipv6), ..config() };
    let (bench, _) = Bench::established(config, &peer_open());
    let negotiated = bench.session.negotiated().unwrap();
    assert_eq!(negotiated.hold_time.secs(), 30);
    assert_eq!(negotiated.families, Families::only(Family::Ipv6));
    assert_eq!(negotiated.peer_type, PeerType::External);
    assert_eq!((negotiated.asn, negotiated.router_id.addr().octets()), (asn(64_513), HIGHER_ID));
    assert!(negotiated.four_octet_as && negotiated.route_refresh);
    assert_eq!(negotiated.graceful_restart, None);
}

#[test]
fn rfc4760_8_a_peer_without_capabilities_takes_ipv4_in_two_octets() {
    let open = Open { capabilities: Vec::new(), ..peer_open() };
    let (bench, _) = Bench::established(config(), &open);
    let negotiated = bench.session.negotiated().unwrap();
    assert_eq!(negotiated.families, Families::only(Family::Ipv4));
    assert!(!negotiated.four_octet_as && !negotiated.route_refresh);
}

#[test]
fn rfc4271_8_2_2_updates_are_delivered_and_counted() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let [Output::Update(ref update)] = bench.feed(Input::Received(conn, update()))[..] else { panic!("no update") };
    assert_eq!(update.reach.len(), 1);
    assert_eq!(bench.session.counters().received.update, 1);
    bench.session.sent_updates(3, bench.now);
    assert_eq!(bench.session.counters().sent.update, 3);
}

#[test]
fn rfc4486_4_a_stopped_session_tells_the_peer_why_and_stays_down() {
    for (reason, code) in [
        (StopReason::PeerDeConfigured, "NOTIFICATION 6/3"),
        (StopReason::AdministrativeShutdown("maintenance".to_owned()), "NOTIFICATION 6/2"),
        (StopReason::AdministrativeReset(String::new()), "NOTIFICATION 6/4"),
        (StopReason::ConfigurationChange, "NOTIFICATION 6/6"),
        (StopReason::MaximumPrefixes { family: Family::Ipv6, limit: 5 }, "NOTIFICATION 6/1"),
    ] {
        let (mut bench, _) = Bench::established(config(), &peer_open());
        let outputs = bench.feed(Input::Stop(reason.clone()));
        assert_eq!(short(&outputs), [code, "close", &format!("down: {reason}")]);
        assert!(!DownReason::Stopped(reason).retains_routes());
        assert_eq!((bench.session.state(), bench.session.timeout()), (SessionState::Idle, None));
        let (_, outputs) = bench.accept();
        assert_eq!(short(&outputs), ["NOTIFICATION 6/5", "close"]);
        assert_eq!(short(&bench.feed(Input::Start)), ["connect"]);
    }
}

#[test]
fn rfc9003_2_the_words_of_a_shutdown_reach_the_peer() {
    let (mut bench, _) = Bench::established(config(), &peer_open());
    let outputs = bench.feed(Input::Stop(StopReason::AdministrativeShutdown("draining node a".to_owned())));
    assert_eq!(told(&outputs).words(), Some("draining node a"));
}

#[test]
fn rfc4486_4_the_limit_of_prefixes_reaches_the_peer() {
    let (mut bench, _) = Bench::established(config(), &peer_open());
    let outputs = bench.feed(Input::Stop(StopReason::MaximumPrefixes { family: Family::Ipv6, limit: 5 }));
    assert_eq!(told(&outputs).data, [0, 2, 1, 0, 0, 0, 5]);
}

#[test]
fn rfc4271_8_2_2_a_stop_ends_attempts_in_every_state() {
    let stop = || Input::Stop(StopReason::PeerDeConfigured);
    let (mut bench, _) = Bench::started(config());
    assert_eq!(short(&bench.feed(stop())), ["close"]);
    let (mut bench, _) = Bench::open_sent(config());
    bench.accept();
    assert_eq!(short(&bench.feed(stop())), ["NOTIFICATION 6/3", "close", "NOTIFICATION 6/3", "close"]);
    let (mut bench, _) = Bench::open_confirm(config(), &peer_open());
    assert_eq!(short(&bench.feed(stop())), ["NOTIFICATION 6/3", "close"]);
    assert_eq!(bench.session.state(), SessionState::Idle);
}

#[test]
fn rfc2918_4_a_refresh_of_an_agreed_family_is_delivered_and_any_other_ignored() {
    let config = SessionConfig { families: Families::only(Family::Ipv4), ..config() };
    let (mut bench, conn) = Bench::established(config, &peer_open());
    assert_eq!(short(&bench.feed(Input::Received(conn, raw(5, &[0, 1, 0, 1])))), ["refresh ipv4"]);
    for ignored in [[0, 2, 0, 1], [0, 1, 0, 2], [0, 1, 1, 1]] {
        assert_eq!(bench.feed(Input::Received(conn, raw(5, &ignored))), []);
    }
    assert!(bench.session.request_refresh(Family::Ipv4, bench.now, &mut bench.outputs));
    assert!(!bench.session.request_refresh(Family::Ipv6, bench.now, &mut bench.outputs));
    assert_eq!(short(&[bench.outputs.pop().unwrap()]), ["ROUTE-REFRESH"]);
}

#[test]
fn events_of_connections_that_are_gone_change_nothing() {
    let (mut bench, conn) = Bench::established(config(), &peer_open());
    let gone = bench.outputs.conn_id();
    for input in [
        Input::Received(gone, update()),
        Input::Closed(gone),
        Input::ConnectFailed(gone, "refused".to_owned()),
        Input::Start,
    ] {
        assert_eq!(bench.feed(input), []);
    }
    assert_eq!(bench.feed(Input::Connected(gone)), [Output::Close(gone)]);
    assert_eq!(bench.session.connection(), Some(conn));
}
