//! A peer that restarts (RFC 4724).

use super::*;

/// Established with a peer that can restart, and for so long that a new connection is no collision.
fn settled() -> (Bench, ConnId) {
    let (mut bench, conn) = Bench::established(restartable(), &restartable_open());
    bench.pass(Duration::from_secs(6));
    (bench, conn)
}

fn restartable() -> SessionConfig {
    SessionConfig { graceful_restart: Some(restart_terms(false)), ..config() }
}

#[test]
fn rfc4724_3_the_terms_are_those_of_the_agreed_families() {
    let config = SessionConfig { families: Families::only(Family::Ipv4), ..restartable() };
    let mut open = peer_open();
    let mut terms = restart_terms(true);
    terms.families[0].forwarding = false;
    open.capabilities.push(Capability::GracefulRestart(terms));
    let (bench, _) = Bench::established(config, &open);
    let terms = bench.session.negotiated().unwrap().graceful_restart.clone().unwrap();
    assert_eq!((terms.restarting, terms.time), (true, Duration::from_secs(120)));
    assert_eq!((terms.families, terms.forwarding), (Families::only(Family::Ipv4), Families::NONE));
}

#[test]
fn without_our_own_terms_the_peers_do_not_count() {
    let (bench, _) = Bench::established(config(), &restartable_open());
    assert_eq!(bench.session.negotiated().unwrap().graceful_restart, None);
}

#[test]
fn rfc4724_4_and_4_2_routes_stay_when_the_connection_just_ends_and_go_after_a_notification() {
    let (mut bench, conn) = Bench::established(restartable(), &restartable_open());
    let [Output::Down(ref reason)] = bench.feed(Input::Closed(conn))[..] else { panic!("not down") };
    assert!(reason.retains_routes());
    let (mut bench, conn) = Bench::established(restartable(), &restartable_open());
    let cease = Notification::shutdown(crate::wire::Cease::AdministrativeReset, "");
    let [_, Output::Down(ref reason)] = bench.feed(Input::Received(conn, cease.encode()))[..] else {
        panic!("not down")
    };
    assert!(!reason.retains_routes());
    let (mut bench, _) = Bench::established(restartable(), &restartable_open());
    let outputs = bench.pass(Duration::from_secs(30));
    let Some(Output::Down(reason)) = outputs.last() else { panic!("not down") };
    assert!(!reason.retains_routes(), "a hold timer that expires sends a NOTIFICATION");
}

#[test]
fn rfc4724_4_2_a_new_connection_takes_the_place_of_the_old_one_without_losing_routes() {
    let (mut bench, old) = settled();
    let (new, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN"]);
    assert_eq!(short(&bench.feed(Input::Received(new, restartable_open().encode()))), ["KEEPALIVE"]);
    assert_eq!(bench.session.connection(), Some(old), "the peer may yet turn out to be someone who only dials");
    let outputs = bench.feed(Input::Received(new, keepalive()));
    assert_eq!(outputs[..2], [Output::Close(old), Output::Down(DownReason::PeerRestarted)]);
    assert!(DownReason::PeerRestarted.retains_routes());
    assert!(matches!(outputs[2], Output::Established(conn, _) if conn == new));
    assert_eq!(bench.session.connection(), Some(new));
    assert_eq!(bench.session.counters().established, 2);
}

#[test]
fn a_new_connection_that_comes_to_nothing_leaves_the_session_alone() {
    let (mut bench, old) = settled();
    let (new, _) = bench.accept();
    assert_eq!(bench.feed(Input::Closed(new)), []);
    let (new, _) = bench.accept();
    let outputs = bench.feed(Input::Received(new, Open { asn: asn(9), capabilities: vec![], ..peer_open() }.encode()));
    assert_eq!(short(&outputs)[..2], ["NOTIFICATION 2/2", "close"]);
    let (_, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN"]);
    let (_, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN", "NOTIFICATION 6/7", "close"], "the peer's last attempt counts");
    assert_eq!(bench.session.connection(), Some(old));
    assert!(matches!(bench.feed(Input::Received(old, update()))[..], [Output::Update(_)]));
}

#[test]
fn rfc4724_4_2_a_restarted_peer_goes_on_when_the_old_connection_ends_first() {
    let (mut bench, old) = settled();
    let (new, _) = bench.accept();
    assert_eq!(bench.feed(Input::Closed(old)), [Output::Down(DownReason::ConnectionLost)]);
    assert_eq!(bench.session.state(), SessionState::OpenSent);
    bench.feed(Input::Received(new, restartable_open().encode()));
    assert_eq!(short(&bench.feed(Input::Received(new, keepalive()))), ["established"]);
}

#[test]
fn rfc4724_4_2_the_terms_of_the_next_open_can_be_changed_while_the_session_is_up() {
    let (mut bench, conn) = Bench::established(
        SessionConfig { graceful_restart: Some(restart_terms(true)), ..config() },
        &restartable_open(),
    );
    bench.session.set_graceful_restart(Some(restart_terms(false)));
    bench.feed(Input::Closed(conn));
    let [Output::Connect(conn)] = bench.tick()[..] else { panic!("no dial") };
    let [Output::Send(_, ref message)] = bench.feed(Input::Connected(conn))[..] else { panic!("no OPEN") };
    let Ok(Message::Open(open)) = Codec::before_open(crate::wire::PeerType::External).decode(message) else {
        panic!("no OPEN")
    };
    assert!(!open.graceful_restart().unwrap().restarting);
}

#[test]
fn rfc4271_6_8_a_new_connection_right_after_the_session_came_up_is_a_collision_and_no_restart() {
    let (mut bench, conn) = Bench::established(restartable(), &restartable_open());
    let (_, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close"]);
    assert_eq!(bench.session.connection(), Some(conn));
}
