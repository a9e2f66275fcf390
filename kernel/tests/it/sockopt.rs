//! Options of TCP sockets, against the kernel's own TCP.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use kernel::netstat::TcpDrops;
use kernel::{Kernel as _, Linux, sockopt};
use socket2::{Domain, Socket, Type};
use types::Family;

use crate::{in_fresh_namespace, ip, set_up};

/// Long enough for a handshake on the loopback, short enough to wait for one that does not happen.
const ANSWER: Duration = Duration::from_millis(600);

const LOOPBACKS: [&str; 2] = ["127.0.0.1", "::1"];

/// Runs a test in a namespace whose loopback works, for an address of each family.
fn on_loopback(test: impl Fn(IpAddr) + Send) {
    in_fresh_namespace(|| {
        let mut kernel = Linux::open().unwrap();
        set_up(&mut kernel, 1, true);
        assert!(!kernel.addresses().unwrap().is_empty());
        LOOPBACKS.map(ip).into_iter().for_each(test);
    });
}

fn listener(address: IpAddr, key: Option<&[u8]>) -> TcpListener {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None).unwrap();
    sockopt::set_md5_key(&socket, address, key).unwrap();
    sockopt::save_syns(&socket).unwrap();
    socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

/// A socket that has not dialled yet.
fn dialler(address: IpAddr, key: Option<&[u8]>) -> Socket {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None).unwrap();
    sockopt::set_md5_key(&socket, address, key).unwrap();
    socket
}

fn dial(socket: Socket, listener: &TcpListener) -> io::Result<TcpStream> {
    socket.connect_timeout(&listener.local_addr().unwrap().into(), ANSWER).map(|()| {
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    })
}

fn pair(address: IpAddr, key: Option<&[u8]>) -> (TcpStream, TcpStream, TcpListener) {
    let listener = listener(address, key);
    let dialled = dial(dialler(address, key), &listener).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (dialled, accepted, listener)
}

/// Whether what one end writes arrives at the other.
fn passes(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"x").unwrap();
    let mut octet = [0];
    to.read_exact(&mut octet).unwrap();
    assert_eq!(&octet, b"x");
}

fn dropped(what: impl FnOnce()) -> TcpDrops {
    let before = TcpDrops::now().unwrap();
    what();
    TcpDrops::now().unwrap().since(before)
}

#[test]
fn rfc2385_2_a_connection_comes_about_with_the_same_key_at_both_ends_and_what_else_comes_is_counted() {
    on_loopback(|address| {
        let (dialled, accepted, locked) = pair(address, Some(b"one"));
        passes(&dialled, &accepted);
        passes(&accepted, &dialled);
        let unanswered = |key: Option<&[u8]>, listener: &TcpListener| {
            dropped(|| {
                let error = dial(dialler(address, key), listener).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
            })
        };
        assert!(unanswered(Some(b"two"), &locked).wrongly_signed > 0);
        assert!(unanswered(None, &locked).unsigned > 0);
        assert!(unanswered(Some(b"one"), &listener(address, None)).unexpectedly_signed > 0);
    });
}

#[test]
fn rfc2385_2_a_connection_keeps_its_key_when_the_listener_forgets_it_and_another_peers_key_is_not_its_own() {
    on_loopback(|address| {
        let (dialled, accepted, listener) = pair(address, Some(b"one"));
        sockopt::set_md5_key(&listener, address, None).unwrap();
        passes(&dialled, &accepted);
        passes(&accepted, &dialled);
        sockopt::set_md5_key(&listener, address, None).expect("taking away what is not there is success");
        let other = if address.is_ipv4() { "127.0.0.2" } else { "2001:db8::2" };
        sockopt::set_md5_key(&listener, ip(other), Some(b"two")).unwrap();
        assert!(dial(dialler(address, None), &listener).is_ok());
    });
}

#[test]
fn a_key_is_changed_given_and_taken_away_on_a_connection_that_is_up_and_what_was_lost_meanwhile_is_sent_again() {
    on_loopback(|address| {
        for (before, after) in [(Some(&b"one"[..]), Some(&b"two"[..])), (None, Some(b"two")), (Some(b"one"), None)] {
            let (dialled, accepted, _listener) = pair(address, before);
            passes(&dialled, &accepted);
            for end in [&dialled, &accepted] {
                // Else what is lost is sent again after as long a time as it has been lost for.
                match sockopt::set_longest_retransmission_timeout(end, Duration::from_secs(1)) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOPROTOOPT) => panic!("{error}"),
                    _ => {}
                }
            }
            sockopt::set_md5_key(&dialled, address, after).unwrap();
            let mut lost = &dialled;
            lost.write_all(b"x").unwrap();
            let nothing = wait_for_octet(&accepted, Duration::from_secs(2));
            assert!(sockopt::is_resending(&dialled).unwrap() && !sockopt::is_resending(&accepted).unwrap());
            assert!(nothing.is_none(), "{before:?} to {after:?}: taken with another key");
            let begun = Instant::now();
            sockopt::set_md5_key(&accepted, address, after).unwrap();
            let taken = wait_for_octet(&accepted, Duration::from_secs(10));
            assert_eq!(taken, Some(b'x'), "{before:?} to {after:?} after {:?}", begun.elapsed());
            passes(&accepted, &dialled);
            assert!(!sockopt::is_resending(&dialled).unwrap(), "what was sent is acknowledged");
        }
    });
}

fn wait_for_octet(mut stream: &TcpStream, within: Duration) -> Option<u8> {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut octet = [0];
    stream.read_exact(&mut octet).ok().map(|()| octet[0])
}

#[test]
fn rfc2385_4_5_a_key_of_no_or_too_many_octets_is_refused_before_the_kernel_is_asked() {
    on_loopback(|address| {
        let socket = dialler(address, None);
        for bad in [&b""[..], &[b'x'; 81]] {
            let error = sockopt::set_md5_key(&socket, address, Some(bad)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        sockopt::set_md5_key(&socket, address, Some(&[b'x'; 80])).unwrap();
    });
}

#[test]
fn rfc5082_3_what_comes_with_too_low_a_ttl_is_dropped_and_a_saved_syn_says_with_what_it_came() {
    on_loopback(|address| {
        let family = Family::of(address);
        let listener = listener(address, None);
        let far = dialler(address, None);
        sockopt::set_ttl(&far, family, 64, 0).unwrap();
        let far = dial(far, &listener).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let syn = sockopt::saved_syn(&accepted).unwrap().unwrap();
        assert_eq!((syn.ttl, syn.is_signed), (64, false));
        assert_eq!(sockopt::saved_syn(accepted.as_fd()).unwrap(), None, "it is told once");
        sockopt::set_ttl(&accepted, family, 255, 255).unwrap();
        let drops = dropped(|| {
            (&far).write_all(b"x").unwrap();
            assert_eq!(wait_for_octet(&accepted, ANSWER), None);
        });
        assert!(drops.low_ttl > 0, "{drops:?}");
        // What is sent again has the TTL of now.
        sockopt::set_ttl(&far, family, 255, 0).unwrap();
        assert_eq!(wait_for_octet(&accepted, Duration::from_secs(5)), Some(b'x'));

        // A listener that sends with 255 answers whoever asks for that.
        sockopt::set_ttl(&listener, family, 255, 0).unwrap();
        let near = dialler(address, None);
        sockopt::set_ttl(&near, family, 255, 255).unwrap();
        let near = dial(near, &listener).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(sockopt::saved_syn(&accepted).unwrap().unwrap().ttl, 255);
        passes(&accepted, &near);
    });
}
