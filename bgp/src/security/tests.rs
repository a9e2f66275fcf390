use std::cell::RefCell;

use super::*;
use types::{Asn, KnownPassword, PasswordSource};

fn ip(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn source() -> PasswordSource {
    PasswordSource::File("/rack1".into())
}

fn peer(number: u8, password: Option<PasswordSource>, ttl_security: Option<Hops>) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(number), Asn::DEFAULT, Asn::DEFAULT);
    peer.security = types::SessionSecurity { password, ttl_security };
    peer
}

fn known(password: Option<&str>, problem: Option<&str>) -> Passwords {
    let password = password.map(|text| SessionPassword::new(text.as_bytes()).unwrap());
    Passwords::from([(source(), KnownPassword { password, problem: problem.map(str::to_owned) })])
}

/// Adopts, and gives the keys that the listening sockets were told, with what has become of the configuration.
fn adopt(security: &mut Security, peers: Vec<PeerConfig>, passwords: &Passwords) -> (Vec<(IpAddr, String)>, Adopted) {
    let told = RefCell::new(Vec::new());
    let adopted = security.adopt(peers, passwords, |address, key| {
        told.borrow_mut().push((address, String::from_utf8_lossy(key.unwrap_or_default()).into_owned()));
        Ok(())
    });
    (told.into_inner(), adopted)
}

fn withheld(security: &Security) -> Vec<(IpAddr, String)> {
    security.withheld().map(|(peer, why)| (peer.address, why.to_owned())).collect()
}

#[test]
fn a_session_whose_password_is_not_known_is_not_opened_and_says_why_and_others_are_not_disturbed() {
    let mut security = Security::default();
    let peers = || vec![peer(1, Some(source()), None), peer(2, None, None)];
    for (passwords, why) in [
        (Passwords::new(), "no session without its password: file /rack1 is not known yet"),
        (known(None, Some("is not there")), "no session without its password: file /rack1: is not there"),
    ] {
        let (told, adopted) = adopt(&mut security, peers(), &passwords);
        assert_eq!(told, []);
        assert_eq!(adopted.peers.iter().map(|peer| peer.address).collect::<Vec<_>>(), [ip(2)]);
        assert_eq!(withheld(&security), [(ip(1), why.to_owned())]);
    }
    // The last that was known goes on, whatever is wrong with where it was.
    let (told, adopted) = adopt(&mut security, peers(), &known(Some("one"), Some("is not there")));
    assert_eq!((told, adopted.peers.len()), (vec![(ip(1), "one".to_owned())], 2));
    assert_eq!(withheld(&security), []);
    assert_eq!(security.keys().collect::<Vec<_>>(), [(ip(1), &b"one"[..])]);
}

#[test]
fn listeners_are_told_of_keys_that_are_new_changed_or_gone_and_of_no_others() {
    let mut security = Security::default();
    let one = || vec![peer(1, Some(source()), None), peer(2, None, None)];
    let told = |security: &mut Security, peers, password| {
        let (told, adopted) = adopt(security, peers, &known(Some(password), None));
        (told, adopted.changed.into_iter().map(|(address, terms)| (address, terms.key().is_some())).collect::<Vec<_>>())
    };
    let key = |text: &str| vec![(ip(1), text.to_owned())];
    assert_eq!(told(&mut security, one(), "one"), (key("one"), vec![(ip(1), true), (ip(2), false)]));
    assert_eq!(told(&mut security, one(), "one"), (vec![], vec![]));
    assert_eq!(told(&mut security, one(), "two"), (key("two"), vec![(ip(1), true)]));
    assert_eq!(told(&mut security, vec![peer(1, None, None)], "two"), (key(""), vec![(ip(1), false), (ip(2), false)]));
    assert_eq!(told(&mut security, one(), "two").0, key("two"));
    assert_eq!(told(&mut security, vec![], "two").0, key(""), "the key goes with the peer");
}

#[test]
fn a_key_that_the_kernel_does_not_take_withholds_its_session() {
    let mut security = Security::default();
    let full = |_, _: Option<&[u8]>| Err(io::Error::from_raw_os_error(12));
    let adopted = security.adopt(vec![peer(1, Some(source()), None)], &known(Some("one"), None), full);
    assert!(adopted.peers.is_empty());
    let why = withheld(&security).remove(0).1;
    assert!(why.contains("net.core.optmem_max") && !why.contains("\"one\""), "{why}");
}

#[test]
fn rfc5082_3_and_rfc2385_2_a_connection_is_judged_by_its_syn() {
    let syn = |ttl, is_signed| Some(Syn { ttl, is_signed });
    let neighbour = Terms { password: None, ttl_security: Some(Hops::NEIGHBOUR) };
    assert_eq!(neighbour.judge(syn(255, false)), Ok(()));
    let why = neighbour.judge(syn(254, false)).unwrap_err();
    assert!(why.contains("TTL 254") && why.contains("255 or more"), "{why}");
    assert!(neighbour.judge(None).is_err(), "what cannot be told is refused");
    let locked = Terms { password: SessionPassword::new(b"one").ok(), ttl_security: None };
    assert_eq!((locked.judge(syn(64, true)), locked.judge(None)), (Ok(()), Ok(())));
    assert!(locked.judge(syn(64, false)).is_err());
}

#[test]
fn what_the_kernel_has_dropped_says_why_a_peer_does_not_answer() {
    let with = Terms { password: SessionPassword::new(b"one").ok(), ttl_security: None };
    let neighbour = Terms { ttl_security: Some(Hops::NEIGHBOUR), ..Terms::default() };
    let drops = TcpDrops { unsigned: 1, unexpectedly_signed: 1, wrongly_signed: 1, low_ttl: 1 };
    for (terms, drops, part) in [
        (&with, drops, "TCPMD5Failure"),
        (&with, TcpDrops { wrongly_signed: 0, ..drops }, "TCPMD5NotFound"),
        (&with, TcpDrops::default(), "another password or none"),
        (&Terms::default(), drops, "TCPMD5Unexpected"),
        (&Terms::default(), TcpDrops { unexpectedly_signed: 0, ..drops }, "may ask for a password"),
        (&neighbour, TcpDrops { unexpectedly_signed: 0, ..drops }, "TCPMinTTLDrop"),
    ] {
        let obstacle = obstacle(terms, drops);
        assert!(obstacle.contains(part), "{part} in {obstacle}");
    }
}

#[test]
fn an_obstacle_is_news_once_and_is_forgotten_when_the_session_is_up() {
    let mut security = Security::default();
    adopt(&mut security, vec![peer(1, None, None)], &Passwords::new());
    assert!(security.unanswered(ip(1), TcpDrops::default()).is_some());
    assert!(security.unanswered(ip(1), TcpDrops::default()).is_none());
    assert!(security.unanswered(ip(1), TcpDrops { unexpectedly_signed: 1, ..TcpDrops::default() }).is_some());
    security.answered(ip(1));
    assert!(security.unanswered(ip(1), TcpDrops::default()).is_some());
    assert!(security.refused(ip(1), "TTL 9".to_owned()));
    assert!(!security.refused(ip(1), "TTL 8".to_owned()));
    security.established(ip(1), TcpDrops::default());
    assert!(security.refused(ip(1), "TTL 8".to_owned()));
    assert!(security.unanswered(ip(9), TcpDrops::default()).is_none(), "that is no peer");
}

#[test]
fn a_peer_shows_what_protects_it_and_the_newest_that_is_known_of_what_is_in_its_way() {
    let mut security = Security::default();
    let one = || peer(1, Some(source()), Some(Hops::NEIGHBOUR));
    adopt(&mut security, vec![one()], &known(Some("one"), None));
    let shown = |security: &Security, dropped| security.describe(crate::view::withheld(&one(), ""), dropped);
    let quiet = shown(&security, None);
    assert_eq!((quiet.has_password, quiet.least_ttl, quiet.obstacle), (true, Some(255), None));
    let tells = |security: &Security, dropped, part: &str| {
        let obstacle = shown(security, dropped).obstacle.unwrap_or_default();
        assert!(obstacle.contains(part), "{part} in {obstacle}");
    };
    tells(&security, Some(TcpDrops::default()), "another password or none");
    security.unanswered(ip(1), TcpDrops { unsigned: 1, ..TcpDrops::default() });
    tells(&security, Some(TcpDrops::default()), "TCPMD5NotFound");
    tells(&security, Some(TcpDrops { wrongly_signed: 1, ..TcpDrops::default() }), "TCPMD5Failure");
    security.refused(ip(1), "TTL 9".to_owned());
    tells(&security, None, "TTL 9; the peer does not answer");
    let up = || PeerStatus { state: SessionState::Established, ..crate::view::withheld(&one(), "") };
    assert_eq!(security.describe(up(), None).obstacle, None);
    assert_eq!(security.describe(up(), Some(TcpDrops::default())).obstacle, None, "packets are lost in many ways");
    let failed = TcpDrops { wrongly_signed: 1, ..TcpDrops::default() };
    let obstacle = security.describe(up(), Some(failed)).obstacle.unwrap_or_default();
    assert!(obstacle.contains("TCPMD5Failure"), "{obstacle}");
}

#[test]
fn of_a_session_that_is_up_counts_what_was_dropped_since_and_only_where_something_is_asked_of_it() {
    let mut security = Security::default();
    adopt(&mut security, vec![peer(1, Some(source()), None), peer(2, None, None)], &known(Some("one"), None));
    let dropped = |wrongly_signed| TcpDrops { wrongly_signed, ..TcpDrops::default() };
    assert_eq!(security.dropped_since_up(ip(1), dropped(5)), None, "it has not been up");
    [1, 2].into_iter().for_each(|number| security.established(ip(number), dropped(3)));
    assert_eq!(security.dropped_since_up(ip(1), dropped(5)), Some(dropped(2)));
    assert_eq!(security.dropped_since_up(ip(2), dropped(5)), None);
}
