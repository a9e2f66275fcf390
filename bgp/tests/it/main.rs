//! The speaker over real sockets, on loopback: who may come in, and what a second connection does to a session.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::{Bgp, ByFamily, Families, Identity, ImportPolicy, Outputs, PeerConfig, SpeakerConfig};
use bgp_proto::wire::{
    AfiSafi, Capability, Cease, Codec, ErrorCode, GracefulRestart, HoldTime, Message, Open, PeerType, frame_length,
    keepalive,
};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::api::PeerStatus;
use types::{Asn, Family, Passwords, RouterId, SessionState};

const SPEAKER: Ipv4Addr = Ipv4Addr::new(127, 0, 18, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 18, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 18, 9);

fn asn() -> Asn {
    Asn::new(64_513).unwrap()
}

/// A speaker with one peer, which has to dial, and the port that it listens at.
async fn speaker() -> (Bgp, Outputs, u16) {
    let identity = Identity {
        router_id: RouterId::new(SPEAKER).unwrap(),
        addresses: ByFamily { ipv4: Some(SPEAKER.into()), ipv6: None },
    };
    let config = SpeakerConfig {
        identity,
        restart_time: Duration::from_secs(120),
        preserved: Families::NONE,
        import: ImportPolicy { pools: vec!["10.0.0.0/8".parse().unwrap()], prefixes: Vec::new() },
    };
    let (bgp, outputs) = bgp::start(config, &TaskTracker::new(), CancellationToken::new());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bgp.listen(port).await.unwrap();
    let peer = PeerConfig { passive: true, ..PeerConfig::new(PEER.into(), asn(), Asn::DEFAULT) };
    bgp.configure(identity, vec![peer], None, Passwords::new()).await.unwrap();
    bgp.originate(BTreeSet::new()).await.unwrap();
    (bgp, outputs, port)
}

fn dial(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
    socket.connect(&SocketAddr::new(SPEAKER.into(), port).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

fn open() -> Open {
    let terms = GracefulRestart::new(false, Duration::from_secs(60), Families::only(Family::Ipv4), Families::NONE);
    Open {
        asn: asn(),
        hold_time: HoldTime::clamped(Duration::from_secs(90)),
        router_id: RouterId::new(PEER).unwrap(),
        capabilities: vec![
            Capability::Multiprotocol(AfiSafi::unicast(Family::Ipv4)),
            Capability::FourOctetAs(asn()),
            Capability::GracefulRestart(terms),
        ],
    }
}

/// The next message; nothing when the connection has ended.
async fn receive(stream: &mut TcpStream) -> Option<Message> {
    let mut octets = vec![0; 19];
    stream.read_exact(&mut octets).await.ok()?;
    octets.resize(frame_length(&octets).unwrap().unwrap(), 0);
    stream.read_exact(&mut octets[19..]).await.ok()?;
    let codec = Codec { four_octet_as: true, peer_type: PeerType::External, families: Families::ALL };
    Some(codec.decode(&octets).unwrap())
}

async fn establish(port: u16) -> TcpStream {
    let mut stream = dial(PEER, port);
    stream.write_all(&open().encode()).await.unwrap();
    assert!(matches!(receive(&mut stream).await, Some(Message::Open(_))));
    stream.write_all(&keepalive()).await.unwrap();
    assert_eq!(receive(&mut stream).await, Some(Message::Keepalive));
    stream
}

/// What the speaker says of its peer, once the condition holds.
async fn status(bgp: &Bgp, condition: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = bgp.peers().await.unwrap().remove(0);
        if condition(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An established session that is no half of a collision any more, and its connection.
async fn settled() -> (Bgp, Outputs, u16, TcpStream) {
    let (bgp, outputs, port) = speaker().await;
    let first = establish(port).await;
    status(&bgp, |status| status.state == SessionState::Established && status.since_secs > Some(5)).await;
    (bgp, outputs, port, first)
}

#[tokio::test]
async fn a_second_connection_is_refused_while_the_peers_kernel_acknowledges_what_is_sent_on_the_first() {
    let (bgp, _outputs, port, mut first) = settled().await;
    for refused in 1..=3 {
        let asked = Instant::now();
        let mut second = dial(PEER, port);
        second.write_all(&open().encode()).await.unwrap();
        let Some(Message::Notification(notification)) = receive(&mut second).await else { panic!("not refused") };
        assert_eq!(notification.error, ErrorCode::Cease(Cease::CollisionResolution));
        assert!(asked.elapsed() < Duration::from_millis(900), "answered after {:?}", asked.elapsed());
        status(&bgp, |status| status.refused_connections == refused).await;
    }
    let status = status(&bgp, |_| true).await;
    assert_eq!(status.state, SessionState::Established);
    assert!(status.since_secs > Some(5), "the session did not begin anew");
    // What the peer got are the probes.
    for _ in 0..3 {
        while receive(&mut first).await != Some(Message::Keepalive) {}
    }
}

#[tokio::test]
async fn a_peer_that_ends_its_connection_and_comes_back_has_a_session_at_once() {
    let (bgp, _outputs, port, first) = settled().await;
    drop(first);
    let _second = establish(port).await;
    let status = status(&bgp, |status| status.state == SessionState::Established).await;
    assert_eq!((status.refused_connections, status.last_error.as_deref()), (0, Some("connection lost")));
}

#[tokio::test]
async fn strangers_are_closed_unheard_and_a_flood_from_a_peers_address_is_cut_off() {
    let (bgp, _outputs, port) = speaker().await;
    let mut stranger = dial(STRANGER, port);
    let mut octets = [0; 1];
    assert!(!matches!(stranger.read(&mut octets).await, Ok(1..)), "a stranger is told something");
    assert_eq!(bgp.turned_away(), 1);
    let flood: Vec<TcpStream> = (0..200).map(|_| dial(PEER, port)).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while bgp.turned_away() < 100 {
        assert!(Instant::now() < deadline, "{} turned away", bgp.turned_away());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(flood);
    status(&bgp, |status| status.state != SessionState::Idle).await;
    let _session = establish_within(port).await;
    status(&bgp, |status| status.state == SessionState::Established).await;
}

/// The peer itself dials as peers do: again, where it was closed.
async fn establish_within(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let mut stream = dial(PEER, port);
        let sent = stream.write_all(&open().encode()).await;
        if sent.is_ok() && matches!(receive(&mut stream).await, Some(Message::Open(_))) {
            stream.write_all(&keepalive()).await.unwrap();
            if receive(&mut stream).await == Some(Message::Keepalive) {
                return stream;
            }
        }
        assert!(Instant::now() < deadline, "the peer does not get in");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_table_is_told_piece_by_piece() {
    let (bgp, _outputs, port) = speaker().await;
    let mut stream = establish(port).await;
    let prefixes: Vec<types::Prefix> =
        (0..2_000_u32).map(|number| types::Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 | number).into())).collect();
    let codec = Codec { four_octet_as: true, peer_type: PeerType::External, families: Families::ALL };
    let mut packer = bgp_proto::wire::Packer::new(codec);
    let attributes = bgp_proto::wire::PathAttributes {
        as_path: bgp_proto::wire::AsPath::sequence([asn()]),
        ..bgp_proto::wire::PathAttributes::default()
    };
    packer.reach(IpAddr::from(PEER), None, &attributes, prefixes.iter().copied()).unwrap();
    stream.write_all(&packer.take().octets).await.unwrap();
    status(&bgp, |status| status.received == 2_000).await;
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = bgp.routes(Family::Ipv4, after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.prefix);
        assert!(page.len() < 1_000);
        found.extend(page.into_iter().map(|route| route.prefix));
        pages += 1;
    }
    assert_eq!(found, prefixes);
    assert!(pages > 2);
    assert_eq!(bgp.route(prefixes[7]).await.unwrap().unwrap().paths.len(), 1);
    assert_eq!(bgp.route("10.0.0.0/8".parse().unwrap()).await.unwrap(), None);
}
