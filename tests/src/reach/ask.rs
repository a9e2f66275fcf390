//! The end of a flow that asks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};
use types::policy::Protocol;

use super::listen::{RawSenders, packets, wait};
use super::packet::{Init, echo_reply, echo_request, ip};
use super::{Question, Verdict};

/// How many source ports are used in turn.
const PORTS: u32 = 50_000;

/// Asks from the network namespace of the calling thread; one verdict for each question, after at most twice `patience`.
pub fn ask_here(questions: &[Question], patience: Duration) -> io::Result<Vec<Verdict>> {
    let mut verdicts = vec![Verdict::Silent; questions.len()];
    for _ in 0..2 {
        let open: Vec<usize> =
            verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == Verdict::Silent).map(|(at, _)| at).collect();
        if !open.is_empty() {
            Round::begin(questions, &open)?.run(patience, &mut verdicts)?;
        }
    }
    Ok(verdicts)
}

/// The questions that wait for their answers.
struct Round {
    /// What each question waits for, in the order of the questions.
    waiting: Vec<(usize, Waiting)>,
    /// The socket where echo replies arrive, per family, once it is needed.
    echoes: [Option<UdpSocket>; 2],
    /// The socket where INIT ACKs arrive, once it is needed.
    packets: Option<File>,
}

/// What one question waits for.
enum Waiting {
    /// The greeting of the listener, on a TCP connection.
    Stream(TcpStream),
    /// The echo of a datagram.
    Datagram(UdpSocket),
    /// The INIT ACK of the flow that has this port of ours.
    Init(Init),
    /// The echo reply with this identifier and sequence number.
    Echo(IpAddr, (u16, u16)),
    /// Nothing, as the question failed at once.
    Nothing(io::Error),
}

impl Round {
    fn begin(questions: &[Question], open: &[usize]) -> io::Result<Self> {
        let mut round = Self { waiting: Vec::new(), echoes: [None, None], packets: None };
        let mut raw = None;
        for at in open {
            let Some(question) = questions.get(*at) else { continue };
            let target = SocketAddr::new(question.address, question.port);
            let begun = match question.protocol {
                Some(Protocol::Tcp) => stream(target).map(Waiting::Stream),
                Some(Protocol::Udp) => datagram(target).map(Waiting::Datagram),
                Some(Protocol::Sctp) => {
                    // The socket that hears the answer is opened before the question is sent.
                    if round.packets.is_none() {
                        round.packets = Some(packets()?);
                    }
                    if raw.is_none() {
                        raw = Some(RawSenders::open()?);
                    }
                    raw.as_ref().map_or_else(|| Err(ErrorKind::NotFound.into()), |raw| init(raw, target))
                }
                None => round.echo(question.address),
            };
            round.waiting.push((*at, begun.unwrap_or_else(Waiting::Nothing)));
        }
        Ok(round)
    }

    fn echo(&mut self, address: IpAddr) -> io::Result<Waiting> {
        let [ipv4, ipv6] = &mut self.echoes;
        let (slot, family, protocol) = match address {
            IpAddr::V4(_) => (ipv4, AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (ipv6, AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        if slot.is_none() {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            *slot = Some(UdpSocket::from(socket(family, SockType::Raw, flags, protocol)?));
        }
        let number = (next_port(SocketAddr::new(address, 0)), 1);
        if let Some(socket) = slot {
            socket.send_to(&echo_request(address, number.0, number.1), SocketAddr::new(address, 0))?;
        }
        Ok(Waiting::Echo(address, number))
    }

    fn run(mut self, patience: Duration, verdicts: &mut [Verdict]) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            self.collect(verdicts);
            let left = deadline.saturating_duration_since(Instant::now());
            if self.waiting.is_empty() || left.is_zero() {
                return Ok(());
            }
            // The time is rounded up to whole milliseconds: the last part of one would be waited for by spinning.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            wait(self.sockets(), timeout)?;
        }
    }

    fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let own = self.waiting.iter().filter_map(|(_, waiting)| match waiting {
            Waiting::Stream(stream) => Some(stream.as_fd()),
            Waiting::Datagram(socket) => Some(socket.as_fd()),
            Waiting::Init(_) | Waiting::Echo(..) | Waiting::Nothing(_) => None,
        });
        let echoes = self.echoes.iter().flatten().map(AsFd::as_fd);
        own.chain(echoes).chain(self.packets.as_ref().map(AsFd::as_fd))
    }

    /// Takes in the answers that have arrived.
    fn collect(&mut self, verdicts: &mut [Verdict]) {
        let mut bytes = [0; 2048];
        let mut heard = Vec::new();
        while let Some(length) = self.packets.as_ref().and_then(|mut packets| packets.read(&mut bytes).ok()) {
            heard.extend(Init::parse(bytes.get(..length).unwrap_or_default()));
        }
        let mut replies = Vec::new();
        for socket in self.echoes.iter().flatten() {
            while let Ok((length, source)) = socket.recv_from(&mut bytes) {
                let packet = bytes.get(..length).unwrap_or_default();
                // Raw sockets show the header of IPv4 and not that of IPv6.
                let icmp = if source.is_ipv4() { ip(packet).map(|(.., icmp)| icmp) } else { Some(packet) };
                let number = icmp.and_then(|icmp| echo_reply(icmp, source.is_ipv4()));
                replies.extend(number.map(|number| (source.ip(), number)));
            }
        }
        self.waiting.retain_mut(|(at, waiting)| {
            let verdict = match waiting {
                Waiting::Stream(stream) => stream_verdict(stream.read(&mut bytes)),
                Waiting::Datagram(socket) => answered(socket.recv(&mut bytes).map(|_| ())),
                Waiting::Init(init) => heard.iter().any(|answer| answers(answer, init)).then_some(Verdict::Passed),
                Waiting::Echo(address, number) => replies.contains(&(*address, *number)).then_some(Verdict::Passed),
                Waiting::Nothing(error) => Some(Verdict::Failed(error.to_string())),
            };
            let Some(verdict) = verdict else { return true };
            if let Some(slot) = verdicts.get_mut(*at) {
                *slot = verdict;
            }
            false
        });
    }
}

fn stream_verdict(read: io::Result<usize>) -> Option<Verdict> {
    match read {
        Ok(0) => Some(Verdict::Failed("closed without a greeting".to_owned())),
        // The socket is still connecting.
        Err(error) if error.kind() == ErrorKind::NotConnected => None,
        read => answered(read.map(|_| ())),
    }
}

fn answered(read: io::Result<()>) -> Option<Verdict> {
    match read {
        Ok(()) => Some(Verdict::Passed),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Verdict::Failed(error.to_string())),
    }
}

fn answers(answer: &Init, init: &Init) -> bool {
    answer.acknowledges
        && (answer.source, answer.source_port) == (init.destination, init.destination_port)
        && (answer.destination, answer.destination_port) == (init.source, init.source_port)
        && answer.verification_tag == init.initiate_tag
}

fn stream(target: SocketAddr) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

fn datagram(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = unspecified(target.ip());
    let fresh = || UdpSocket::bind(SocketAddr::new(any, next_port(target)));
    // A port that another program has is passed over.
    let socket = fresh().or_else(|_| fresh()).or_else(|_| UdpSocket::bind(SocketAddr::new(any, 0)))?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    socket.send(b"?")?;
    Ok(socket)
}

fn init(raw: &RawSenders, target: SocketAddr) -> io::Result<Waiting> {
    // The kernel chooses the source address: a connected socket knows it, without sending anything.
    let guide = UdpSocket::bind(SocketAddr::new(unspecified(target.ip()), 0))?;
    guide.connect(target)?;
    let init = Init {
        source: guide.local_addr()?.ip(),
        destination: target.ip(),
        source_port: next_port(target),
        destination_port: target.port(),
        verification_tag: 0,
        initiate_tag: u32::from(next_port(target)),
        acknowledges: false,
    };
    raw.send(&init)?;
    Ok(Waiting::Init(init))
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A source port that this process has not used for long toward this target: 10,000 to 59,999 in turn, for each target.
/// A single row of ports for all targets would come round while the kernel still tracks flows of the round before.
fn next_port(target: SocketAddr) -> u16 {
    static USED: Mutex<BTreeMap<SocketAddr, u32>> = Mutex::new(BTreeMap::new());
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    // Another process begins elsewhere in the row.
    let number = used.entry(target).or_insert_with(|| std::process::id().wrapping_mul(7_919) % PORTS);
    *number = (*number + 1) % PORTS;
    u16::try_from(10_000 + *number).unwrap_or(10_000)
}
