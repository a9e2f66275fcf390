//! What a session does with everything that its peer and the network can do to it.

mod collisions;
mod establishing;
mod faults;
mod graceful_restart;
mod simulated;
mod timers;

use std::time::{Duration, Instant};

use bytes::Bytes;
use types::{Asn, Family, RouterId, SessionState};

use super::*;
use crate::wire::{
    AfiSafi, Capability, Codec, Families, GracefulRestart, HoldTime, Message, Notification, Open, Packer,
    PathAttributes, keepalive,
};

const LOCAL_ID: [u8; 4] = [10, 0, 0, 1];
const HIGHER_ID: [u8; 4] = [10, 0, 0, 2];
const LOWER_ID: [u8; 4] = [9, 0, 0, 9];

/// A session under test, its clock, and what it wants done.
struct Bench {
    session: Session,
    outputs: Outputs,
    now: Instant,
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn config() -> SessionConfig {
    SessionConfig {
        router_id: RouterId::new(LOCAL_ID.into()).unwrap(),
        local_asn: asn(64_512),
        peer_asn: asn(64_513),
        families: Families::ALL,
        hold_time: HoldTime::from_secs(90).unwrap(),
        connect_retry: Duration::from_secs(5),
        passive: false,
        graceful_restart: None,
        seed: 7,
    }
}

fn restart_terms(restarting: bool) -> GracefulRestart {
    GracefulRestart::new(restarting, Duration::from_secs(120), Families::ALL, Families::ALL)
}

/// The peer's OPEN.
fn peer_open() -> Open {
    Open {
        asn: asn(64_513),
        hold_time: HoldTime::from_secs(30).unwrap(),
        router_id: RouterId::new(HIGHER_ID.into()).unwrap(),
        capabilities: vec![
            Capability::Multiprotocol(AfiSafi::unicast(Family::Ipv4)),
            Capability::Multiprotocol(AfiSafi::unicast(Family::Ipv6)),
            Capability::RouteRefresh,
            Capability::FourOctetAs(asn(64_513)),
        ],
    }
}

fn peer_open_with(id: [u8; 4]) -> Open {
    Open { router_id: RouterId::new(id.into()).unwrap(), ..peer_open() }
}

fn restartable_open() -> Open {
    let mut open = peer_open();
    open.capabilities.push(Capability::GracefulRestart(restart_terms(false)));
    open
}

fn update() -> Bytes {
    let codec = Codec { four_octet_as: true, peer_type: crate::wire::PeerType::External, families: Families::ALL };
    let mut packer = Packer::new(codec);
    let attributes = PathAttributes::default();
    packer.reach("192.0.2.1".parse().unwrap(), None, &attributes, ["10.1.0.0/26".parse().unwrap()]).unwrap();
    packer.take().octets
}

/// A message with any type and body.
fn raw(kind: u8, body: &[u8]) -> Bytes {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message.into()
}

/// What was sent, in short: the message types, and codes of NOTIFICATIONs.
fn short(outputs: &[Output]) -> Vec<String> {
    outputs
        .iter()
        .map(|output| match output {
            Output::Connect(_) => "connect".to_owned(),
            Output::Close(_) => "close".to_owned(),
            Output::Send(_, message) => match notification(message) {
                Some(notification) => {
                    let (code, subcode) = notification.error.numbers();
                    format!("NOTIFICATION {code}/{subcode}")
                }
                None => match message[18] {
                    1 => "OPEN".to_owned(),
                    4 => "KEEPALIVE".to_owned(),
                    5 => "ROUTE-REFRESH".to_owned(),
                    other => format!("message {other}"),
                },
            },
            Output::Established(..) => "established".to_owned(),
            Output::Down(reason) => format!("down: {reason}"),
            Output::AttemptFailed(reason) => format!("failed: {reason}"),
            Output::Probe(_) => "probe".to_owned(),
            Output::Refused(count) => format!("refused {count}"),
            Output::Update(_) => "update".to_owned(),
            Output::Refresh(family) => format!("refresh {family}"),
        })
        .collect()
}

fn notification(message: &Bytes) -> Option<Notification> {
    let codec = Codec::before_open(crate::wire::PeerType::External);
    match codec.decode(message) {
        Ok(Message::Notification(notification)) => Some(notification),
        _ => None,
    }
}

/// The NOTIFICATION among the outputs.
fn told(outputs: &[Output]) -> Notification {
    let sent = outputs.iter().find_map(|output| match output {
        Output::Send(_, message) => notification(message),
        _ => None,
    });
    sent.expect("a NOTIFICATION")
}

impl Bench {
    fn new(config: SessionConfig) -> Self {
        Self { session: Session::new(config), outputs: Outputs::default(), now: Instant::now() }
    }

    fn started(config: SessionConfig) -> (Self, ConnId) {
        let mut bench = Self::new(config);
        match bench.feed(Input::Start)[..] {
            [Output::Connect(conn)] => (bench, conn),
            ref other => panic!("{other:?}"),
        }
    }

    /// Started, dialled, and our OPEN sent.
    fn open_sent(config: SessionConfig) -> (Self, ConnId) {
        let (mut bench, conn) = Self::started(config);
        assert_eq!(short(&bench.feed(Input::Connected(conn))), ["OPEN"]);
        (bench, conn)
    }

    fn open_confirm(config: SessionConfig, open: &Open) -> (Self, ConnId) {
        let (mut bench, conn) = Self::open_sent(config);
        assert_eq!(short(&bench.feed(Input::Received(conn, open.encode()))), ["KEEPALIVE"]);
        (bench, conn)
    }

    fn established(config: SessionConfig, open: &Open) -> (Self, ConnId) {
        let (mut bench, conn) = Self::open_confirm(config, open);
        assert_eq!(short(&bench.feed(Input::Received(conn, keepalive()))), ["established"]);
        (bench, conn)
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        self.session.handle(input, self.now, &mut self.outputs);
        std::iter::from_fn(|| self.outputs.pop()).collect()
    }

    fn accept(&mut self) -> (ConnId, Vec<Output>) {
        let conn = self.outputs.conn_id();
        (conn, self.feed(Input::Accepted(conn)))
    }

    /// Lets time pass until the next timer, and handles it.
    fn tick(&mut self) -> Vec<Output> {
        self.now = self.session.timeout().expect("a timer");
        self.feed(Input::Tick)
    }

    /// Lets time pass, handling every timer on the way.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = Vec::new();
        while self.session.timeout().is_some_and(|at| at <= end) {
            outputs.extend(self.tick());
        }
        self.now = end;
        outputs
    }
}
