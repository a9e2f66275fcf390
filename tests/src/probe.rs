//! A steady stream of datagrams from one place to another, counted: does traffic survive what the test does meanwhile?
//!
//! Both ends are sockets of the lab's own process, made in the two namespaces: no packet is lost to the start or the end
//! of a tool.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::LabError;
use crate::namespace::run_in;
use crate::place::Place;

/// How long to wait for answers that are still on their way when sending has ended.
const LINGER: Duration = Duration::from_secs(5);

/// How many bytes of datagrams may wait at either end, each with some 760 of the kernel's own: an end that gets no
/// processor for a second sends and receives in bursts, and datagrams without room would be counted as lost by the
/// network.
const ROOM: usize = 4 << 20;

/// A probe under way.
#[derive(Debug)]
pub struct Probe {
    /// Set when no more is to be sent.
    stop: Arc<AtomicBool>,
    /// Set when no more is to be answered.
    done: Arc<AtomicBool>,
    /// The thread that sends and counts.
    sender: Option<JoinHandle<ProbeReport>>,
    /// The thread that answers.
    echo: Option<JoinHandle<()>>,
}

/// What became of the datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// How many were sent, or could not even be sent.
    pub sent: u64,
    /// How many of them were not answered.
    pub lost: u64,
    /// The longest time between two answers.
    pub longest_silence: Duration,
    /// The kinds of error that sending met, with their number.
    pub errors: BTreeMap<String, u64>,
}

impl Probe {
    /// Starts to send `per_second` datagrams a second from `from` to `address`, which is one of `to`'s, where an echo
    /// answers each.
    pub fn start(from: &dyn Place, to: &dyn Place, address: IpAddr, per_second: u32) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("a probe from {} to {} ({address})", from.name(), to.name()));
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let netns = to.netns().map_err(failed())?;
        let echo = run_in(&netns, || UdpSocket::bind(SocketAddr::new(address, 0))).map_err(failed())?;
        let netns = from.netns().map_err(failed())?;
        let sender = run_in(&netns, || UdpSocket::bind(SocketAddr::new(any, 0))).map_err(failed())?;
        let target = echo.local_addr().map_err(failed())?;
        for socket in [&echo, &sender] {
            // The system allows everybody less than this (net.core.rmem_max), but the lab runs as root.
            setsockopt(socket, sockopt::RcvBufForce, &ROOM).map_err(|error| failed()(error.into()))?;
        }
        echo.set_read_timeout(Some(Duration::from_millis(100))).map_err(failed())?;
        sender.set_nonblocking(true).map_err(failed())?;

        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let interval = Duration::from_secs(1) / per_second.max(1);
        let echo = thread::spawn({
            let done = Arc::clone(&done);
            move || answer(&echo, &done)
        });
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || send(&sender, target, interval, &stop)
        });
        Ok(Self { stop, done, sender: Some(sender), echo: Some(echo) })
    }

    /// Ends the sending, waits for answers under way, and reports.
    pub fn finish(mut self) -> ProbeReport {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.sender.take().and_then(|sender| sender.join().ok());
        report.unwrap_or_else(|| panic!("the probe's thread panicked"))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.done.store(true, Ordering::Relaxed);
        if let Some(echo) = self.echo.take() {
            let _ = echo.join();
        }
    }
}

fn answer(socket: &UdpSocket, done: &AtomicBool) {
    let mut bytes = [0; 64];
    while !done.load(Ordering::Relaxed) {
        // An error is the timeout of the read, which is there so that `done` is looked at.
        if let Ok((length, source)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(bytes.get(..length).unwrap_or_default(), source);
        }
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, interval: Duration, stop: &AtomicBool) -> ProbeReport {
    let begun = Instant::now();
    let mut tally = Tally::new(begun);
    let mut next = begun;
    while !stop.load(Ordering::Relaxed) {
        tally.send(socket, target);
        // The next datagram is due by the plan and not by now, so that a late wake-up is made up for.
        next += interval;
        tally.receive(socket, next);
    }
    let until = Instant::now() + LINGER;
    while tally.open() > 0 && Instant::now() < until {
        tally.receive(socket, Instant::now() + interval);
    }
    tally.report()
}

/// The counts, as the sender keeps them.
struct Tally {
    answered: Vec<bool>,
    last_answer: Instant,
    longest_silence: Duration,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self { answered: Vec::new(), last_answer: now, longest_silence: Duration::ZERO, errors: BTreeMap::new() }
    }

    fn send(&mut self, socket: &UdpSocket, target: SocketAddr) {
        let number = self.answered.len() as u64;
        self.answered.push(false);
        if let Err(error) = socket.send_to(&number.to_be_bytes(), target) {
            self.fault(&error);
        }
    }

    /// Takes answers until the given time.
    fn receive(&mut self, socket: &UdpSocket, until: Instant) {
        let mut bytes = [0; 64];
        loop {
            match socket.recv_from(&mut bytes) {
                Ok((8, _)) => {
                    let number = bytes.first_chunk().map(|number| u64::from_be_bytes(*number)).unwrap_or(u64::MAX);
                    let slot = usize::try_from(number).ok().and_then(|number| self.answered.get_mut(number));
                    if let Some(slot) = slot {
                        *slot = true;
                    }
                    let now = Instant::now();
                    self.longest_silence = self.longest_silence.max(now - self.last_answer);
                    self.last_answer = now;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    thread::sleep(left.min(Duration::from_millis(1)));
                }
                Err(error) => self.fault(&error),
            }
        }
    }

    fn fault(&mut self, error: &io::Error) {
        *self.errors.entry(error.to_string()).or_default() += 1;
    }

    fn open(&self) -> u64 {
        self.answered.iter().filter(|answered| !**answered).count() as u64
    }

    fn report(self) -> ProbeReport {
        let (sent, lost) = (self.answered.len() as u64, self.open());
        ProbeReport { sent, lost, longest_silence: self.longest_silence, errors: self.errors }
    }
}
