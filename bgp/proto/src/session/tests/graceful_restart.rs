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
fn a_second_connection_is_closed_when_the_peers_tcp_acknowledges_a_probe_on_the_first() {
    let (mut bench, first) = settled();
    let (second, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["KEEPALIVE", "probe"]);
    assert!(matches!(outputs[..], [Output::Send(to, _), Output::Probe(probed)] if to == first && probed == first));
    assert_eq!(bench.feed(Input::Received(second, restartable_open().encode())), [], "nobody is told anything yet");
    let (third, outputs) = bench.accept();
    assert_eq!(outputs, [], "one probe says it for all");
    let outputs = bench.feed(Input::Acknowledged(first));
    assert_eq!(short(&outputs), ["NOTIFICATION 6/7", "close", "NOTIFICATION 6/7", "close", "refused 2"]);
    assert!(outputs.contains(&Output::Close(second)) && outputs.contains(&Output::Close(third)));
    assert_eq!(bench.session.connection(), Some(first));
    assert_eq!(bench.session.counters().refused_connections, 2);
    assert_eq!(bench.session.counters().established, 1);
    assert!(matches!(bench.feed(Input::Received(first, update()))[..], [Output::Update(_)]));
}

#[test]
fn those_who_wait_for_a_probe_are_few_and_say_one_thing() {
    let (mut bench, first) = settled();
    let waiting: Vec<_> = (0..4).map(|_| bench.accept().0).collect();
    let (fifth, outputs) = bench.accept();
    assert_eq!(outputs[1..], [Output::Close(fifth)]);
    bench.feed(Input::Received(waiting[0], restartable_open().encode()));
    assert_eq!(short(&bench.feed(Input::Received(waiting[0], keepalive()))), ["NOTIFICATION 6/5", "close"]);
    assert_eq!(bench.feed(Input::Closed(waiting[1])), []);
    assert_eq!(short(&bench.feed(Input::Acknowledged(first))).last().unwrap(), "refused 2");
    assert_eq!(bench.feed(Input::Acknowledged(first)), [], "nobody waits any more");
}

#[test]
fn rfc4724_4_2_without_an_answer_within_a_second_a_new_connection_takes_the_place_of_the_old_one() {
    let (mut bench, old) = settled();
    let (new, _) = bench.accept();
    assert_eq!(bench.feed(Input::Received(new, restartable_open().encode())), []);
    assert_eq!(short(&bench.pass(Duration::from_millis(999))), Vec::<String>::new());
    assert_eq!(short(&bench.pass(Duration::from_millis(1))), ["OPEN", "KEEPALIVE"], "its OPEN was kept");
    assert_eq!(bench.session.connection(), Some(old), "the peer may yet turn out to be someone who only dials");
    assert_eq!(bench.feed(Input::Acknowledged(old)), [], "too late");
    let (other, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["OPEN"], "no second probe");
    let outputs = bench.feed(Input::Received(new, keepalive()));
    assert_eq!(short(&outputs[..2]), ["NOTIFICATION 6/7", "close"]);
    assert_eq!(outputs[1..4], [Output::Close(other), Output::Close(old), Output::Down(DownReason::PeerRestarted)]);
    assert!(DownReason::PeerRestarted.retains_routes());
    assert!(matches!(outputs[4], Output::Established(conn, _) if conn == new));
    assert_eq!(bench.session.connection(), Some(new));
    assert_eq!(bench.session.counters().established, 2);
}

#[test]
fn rfc4724_4_2_a_peer_whose_kernel_answers_but_whose_speaker_has_left_out_a_keepalive_is_given_up() {
    let (mut bench, first) = settled();
    bench.feed(Input::Received(first, keepalive()));
    // The agreed hold time is 30 s.
    bench.pass(Duration::from_secs(15));
    bench.accept();
    assert_eq!(short(&bench.feed(Input::Acknowledged(first))), ["NOTIFICATION 6/7", "close", "refused 1"]);
    bench.pass(Duration::from_millis(1));
    let (new, _) = bench.accept();
    assert_eq!(short(&bench.feed(Input::Acknowledged(first))), ["OPEN"]);
    bench.feed(Input::Received(new, restartable_open().encode()));
    bench.feed(Input::Received(new, keepalive()));
    assert_eq!(bench.session.connection(), Some(new));
}

#[test]
fn a_new_connection_that_comes_to_nothing_leaves_the_session_alone() {
    let (mut bench, old) = settled();
    let (new, _) = bench.accept();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.feed(Input::Closed(new)), []);
    let (new, _) = bench.accept();
    bench.pass(Duration::from_secs(1));
    let outputs = bench.feed(Input::Received(new, Open { asn: asn(9), capabilities: vec![], ..peer_open() }.encode()));
    assert_eq!(short(&outputs)[..2], ["NOTIFICATION 2/2", "close"]);
    let (_, outputs) = bench.accept();
    assert_eq!(short(&outputs), ["KEEPALIVE", "probe"], "the next one is a new question");
    assert_eq!(bench.session.connection(), Some(old));
    assert!(matches!(bench.feed(Input::Received(old, update()))[..], [Output::Update(_)]));
}

#[test]
fn rfc4724_4_2_a_restarted_peer_goes_on_when_its_kernel_resets_the_old_connection() {
    let (mut bench, old) = settled();
    let (new, _) = bench.accept();
    bench.feed(Input::Received(new, restartable_open().encode()));
    let outputs = bench.feed(Input::Closed(old));
    assert_eq!(outputs[0], Output::Down(DownReason::ConnectionLost));
    assert_eq!(short(&outputs[1..]), ["OPEN", "KEEPALIVE"]);
    assert!(DownReason::ConnectionLost.retains_routes());
    assert_eq!(bench.session.state(), SessionState::OpenConfirm);
    assert_eq!(short(&bench.feed(Input::Received(new, keepalive()))), ["established"]);
    assert_eq!(bench.session.connection(), Some(new));
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
