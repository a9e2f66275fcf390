use super::*;

fn door(peers: &[IpAddr]) -> (watch::Sender<HashSet<IpAddr>>, Door, Turned) {
    let (sender, receiver) = watch::channel(peers.iter().copied().collect());
    let turned = Turned::default();
    (sender, Door::new(receiver, turned.clone()), turned)
}

#[test]
fn strangers_are_turned_away_and_counted_and_who_becomes_a_peer_comes_in() {
    let (peer, stranger) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([10, 65, 0, 9]));
    let (peers, mut door, turned) = door(&[peer]);
    let now = Instant::now();
    assert!(door.admits(peer, now));
    assert!(!door.admits(stranger, now) && !door.admits(stranger, now));
    assert_eq!(turned.count(), 2);
    peers.send_replace([stranger].into());
    assert!(door.admits(stranger, now) && !door.admits(peer, now));
    assert_eq!(turned.count(), 3);
}

#[test]
fn connections_from_one_peers_address_are_limited_and_those_of_another_are_not_counted_with_them() {
    let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let (_peers, mut door, turned) = door(&[one, other]);
    let now = Instant::now();
    assert_eq!((0..1_000).filter(|_| door.admits(one, now)).count(), PER_PEER as usize);
    assert_eq!(turned.count(), 1_000 - u64::from(PER_PEER));
    assert!(door.admits(other, now));
    assert!(door.admits(one, now + WINDOW));
}
