//! A session, with everything that its peer and the network can do to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bgp_proto::ConnId;
use bgp_proto::session::{Input, Output, Outputs, Session, SessionConfig, StopReason};
use bgp_proto::wire::{
    AfiSafi, Capability, Cease, Codec, ErrorCode, Families, GracefulRestart, HoldTime, MessageType, Notification, Open,
    PeerType, RouteRefresh, keepalive,
};
use bytes::Bytes;
use types::{Asn, Family, RouterId, SessionState};

use crate::script::{Script, framed};

/// Drives a session by a script, and checks what it wants done.
pub fn session(octets: &[u8]) {
    let mut script = Script::new(octets);
    let mut bench = Bench::new(&mut script);
    while !script.is_over() {
        bench.step(&mut script);
    }
    bench.finish();
}

/// A session under test, with the sockets that it believes in.
struct Bench {
    session: Session,
    outputs: Outputs,
    now: Instant,
    /// The connections that are there or are dialled.
    sockets: BTreeMap<ConnId, Socket>,
    /// The connection that routes flow over.
    established: Option<ConnId>,
    /// Whether the session was started and not stopped since.
    started: bool,
    /// Whether the peer ever proposed to go without a hold timer.
    untimed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    Dialled,
    Open,
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

impl Bench {
    fn new(script: &mut Script<'_>) -> Self {
        let terms = script.octet();
        let restart = GracefulRestart::new(terms & 8 != 0, Duration::from_secs(120), Families::ALL, Families::ALL);
        let config = SessionConfig {
            router_id: RouterId::new([10, 0, 0, 5].into()).unwrap(),
            local_asn: asn(64_512),
            peer_asn: asn(if terms & 1 == 0 { 64_512 } else { 64_513 }),
            families: if terms & 16 == 0 { Families::ALL } else { Families::only(Family::Ipv4) },
            hold_time: HoldTime::from_secs(90).unwrap(),
            connect_retry: Duration::from_secs(5),
            passive: terms & 2 != 0,
            graceful_restart: (terms & 4 == 0).then_some(restart),
            seed: u64::from(terms),
        };
        Self {
            session: Session::new(config),
            outputs: Outputs::default(),
            now: Instant::now(),
            sockets: BTreeMap::new(),
            established: None,
            started: false,
            untimed: false,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let of = |kind| -> Vec<ConnId> {
            self.sockets.iter().filter(|(_, socket)| **socket == kind).map(|(conn, _)| *conn).collect()
        };
        let (dialled, open) = (of(Socket::Dialled), of(Socket::Open));
        match script.octet() % 16 {
            0 => {
                self.started = true;
                self.input(Input::Start);
            }
            1 => self.stop(script),
            2 => {
                if let Some(conn) = script.choice(&dialled) {
                    self.sockets.insert(conn, Socket::Open);
                    self.input(Input::Connected(conn));
                }
            }
            3 => {
                if let Some(conn) = script.choice(&dialled) {
                    self.sockets.remove(&conn);
                    self.input(Input::ConnectFailed(conn, "connection refused".to_owned()));
                }
            }
            5 => {
                if let Some(conn) = script.choice(&open) {
                    self.input(Input::Acknowledged(conn));
                }
            }
            4 => {
                let conn = self.outputs.conn_id();
                self.sockets.insert(conn, Socket::Open);
                self.input(Input::Accepted(conn));
            }
            6 => {
                if let Some(conn) = script.choice(&open) {
                    self.closed(conn);
                }
            }
            7 => {
                if let Some(at) = self.session.timeout() {
                    self.now = self.now.max(at);
                    self.input(Input::Tick);
                }
            }
            8 => self.pass(Duration::from_millis(u64::from(script.octet()) * 250)),
            9 | 10 => {
                let message = self.open(script);
                self.receive(script, &open, message);
            }
            11 => self.receive(script, &open, keepalive()),
            12 => {
                let message = messages(script);
                self.receive(script, &open, message);
            }
            13 => {
                let kind = script.octet() % 7;
                let length = usize::from(script.octet());
                let message = framed(kind, script.octets(length)).into();
                self.receive(script, &open, message);
            }
            14 => {
                let length = usize::from(script.octet() % 32);
                let message = Bytes::copy_from_slice(script.octets(length));
                self.receive(script, &open, message);
            }
            _ => {
                self.session.sent_updates(1, self.now);
                let possible = self.session.request_refresh(Family::Ipv4, self.now, &mut self.outputs);
                assert!(!possible || self.established.is_some());
                self.take_outputs();
                // What comes from connections that are gone, or never were, changes nothing.
                let ghost = ConnId::new(u64::MAX);
                let before = self.session.state();
                for input in [Input::Closed(ghost), Input::Received(ghost, keepalive())] {
                    self.input(input);
                }
                assert_eq!(self.session.state(), before);
            }
        }
    }

    /// An OPEN that is right, or wrong in one thing.
    fn open(&mut self, script: &mut Script<'_>) -> Bytes {
        let how = script.octet();
        let config = self.session.config();
        let mut capabilities = vec![Capability::RouteRefresh, Capability::FourOctetAs(config.peer_asn)];
        if how & 1 == 0 {
            capabilities.extend(Family::ALL.map(AfiSafi::unicast).map(Capability::Multiprotocol));
        }
        if how & 2 == 0 {
            let terms = GracefulRestart::new(
                how & 4 != 0,
                Duration::from_secs(60),
                Families::ALL,
                Families::only(Family::Ipv4),
            );
            capabilities.push(Capability::GracefulRestart(terms));
        }
        let hold_time = if how & 8 == 0 { 30 } else { 0 };
        self.untimed |= hold_time == 0;
        let id = [[10, 0, 0, 1], [10, 0, 0, 9], [10, 0, 0, 9], [10, 0, 0, 5]][usize::from(how >> 4 & 3)];
        let open = Open {
            asn: if how & 0xc0 == 0xc0 { asn(64_999) } else { config.peer_asn },
            hold_time: HoldTime::from_secs(hold_time).unwrap(),
            router_id: RouterId::new(id.into()).unwrap(),
            capabilities,
        };
        open.encode()
    }

    fn receive(&mut self, script: &mut Script<'_>, open: &[ConnId], message: Bytes) {
        if let Some(conn) = script.choice(open) {
            // An OPEN of the script's own octets may have proposed to go without a hold timer.
            self.untimed |= message.get(18) == Some(&1) && message.get(22..24) == Some(&[0, 0]);
            self.input(Input::Received(conn, message));
        }
    }

    fn closed(&mut self, conn: ConnId) {
        self.sockets.remove(&conn);
        self.input(Input::Closed(conn));
    }

    fn stop(&mut self, script: &mut Script<'_>) {
        self.started = false;
        let reasons = [
            StopReason::PeerDeConfigured,
            StopReason::AdministrativeShutdown("words".repeat(40)),
            StopReason::AdministrativeReset(String::new()),
            StopReason::ConfigurationChange,
            StopReason::MaximumPrefixes { family: Family::Ipv6, limit: 7 },
        ];
        let reason = reasons[usize::from(script.octet()) % reasons.len()].clone();
        self.input(Input::Stop(reason));
        assert_eq!(self.sockets.len(), 0, "a session that is stopped has no connections");
        assert_eq!((self.session.state(), self.session.timeout()), (SessionState::Idle, None));
    }

    /// Lets time pass, and every timer on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks = 0_u32;
        while let Some(at) = self.session.timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "the timers run hot");
        }
        self.now = end;
    }

    fn input(&mut self, input: Input) {
        let tick = input == Input::Tick;
        self.session.handle(input, self.now, &mut self.outputs);
        self.take_outputs();
        self.check();
        // A tick does something that is due; what else is due is for the next ones.
        for _ in 0..MOST_SOCKETS {
            if !tick || self.session.timeout().is_none_or(|at| at > self.now) {
                return;
            }
            self.session.handle(Input::Tick, self.now, &mut self.outputs);
            self.take_outputs();
        }
        assert!(self.session.timeout().is_none_or(|at| at > self.now), "a timer that is due stays due");
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.outputs.pop() {
            match output {
                Output::Connect(conn) => {
                    assert!(!self.session.config().passive, "only the peer dials");
                    assert_eq!(self.sockets.insert(conn, Socket::Dialled), None);
                }
                Output::Close(conn) => {
                    assert!(self.sockets.remove(&conn).is_some(), "{conn:?} is closed a second time");
                }
                Output::Send(conn, message) => {
                    assert_eq!(self.sockets.get(&conn), Some(&Socket::Open), "sent on what is no connection");
                    let codec = Codec::before_open(PeerType::External);
                    let decoded = codec.decode(&message).unwrap();
                    assert_ne!(decoded.kind(), MessageType::Update);
                }
                Output::Established(conn, terms) => {
                    assert_eq!(self.established.replace(conn), None, "established over an established session");
                    assert!(!terms.families.is_empty());
                    assert_eq!(self.sockets.get(&conn), Some(&Socket::Open));
                }
                Output::Down(_) => {
                    assert!(self.established.take().is_some(), "down without having been up");
                }
                Output::Probe(conn) => assert_eq!(self.established, Some(conn)),
                Output::Refused(count) => assert!(count <= MOST_SOCKETS),
                Output::AttemptFailed(_) => {}
                Output::Update(_) | Output::Refresh(_) => {
                    assert!(self.established.is_some(), "routes outside of a session");
                }
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.session.connection(), self.established);
        assert_eq!(self.session.negotiated().is_some(), self.established.is_some());
        assert_eq!(self.session.state() == SessionState::Established, self.established.is_some());
        assert!(self.started || self.sockets.is_empty(), "connections of a session that was not started");
        // What a peer, or whoever has its address, can make us hold.
        assert!(self.sockets.len() <= MOST_SOCKETS, "{} connections with one peer", self.sockets.len());
    }

    /// Nothing is left behind when everybody falls silent.
    fn finish(mut self) {
        if self.untimed {
            return;
        }
        let dialled: Vec<_> =
            self.sockets.iter().filter(|(_, socket)| **socket == Socket::Dialled).map(|(conn, _)| *conn).collect();
        for conn in dialled {
            self.sockets.remove(&conn);
            self.input(Input::ConnectFailed(conn, "no route".to_owned()));
        }
        self.pass(Duration::from_secs(300));
        let open = self.sockets.values().filter(|socket| **socket == Socket::Open).count();
        assert_eq!(open, 0, "connections that outlive the silence of their peer");
        assert_eq!(self.established, None);
    }
}

/// Connections that one peer may have with us at a time.
const MOST_SOCKETS: usize = 6;

/// A message that belongs into an established session.
fn messages(script: &mut Script<'_>) -> Bytes {
    match script.octet() % 6 {
        0 => framed(2, &[0; 4]).into(),
        1 => RouteRefresh::request(AfiSafi::unicast(Family::Ipv6)).encode(),
        2 => Notification::new(ErrorCode::Cease(Cease::CollisionResolution)).encode(),
        3 => Notification::new(ErrorCode::new(script.octet(), script.octet())).encode(),
        // 10.0.0.0/8, announced with ORIGIN, AS_PATH 64513 and NEXT_HOP.
        4 => framed(2, &[0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 1, 0x40, 3, 4, 192, 0, 2, 1, 8, 10])
            .into(),
        // An attribute that is malformed.
        _ => framed(2, &[0, 0, 0, 4, 0x40, 1, 1, 7, 8, 10]).into(),
    }
}
