//! Datagrams without answers: a [`Flood`] sends from before there is a way to after it is closed, a [`Sink`] counts what
//! arrives. What must never pass is proved by a count of nothing while much was sent.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::LabError;
use crate::namespace::run_in;
use crate::place::Place;

/// How long a program may take from its start until it has closed what it inherited.
const STARTING: Duration = Duration::from_secs(5);

/// A flood under way.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flood {
    /// Starts to send a datagram to every target `per_second` times a second. A target that cannot be reached yet is tried
    /// again like any other.
    pub fn start(from: &dyn Place, targets: &[SocketAddr], per_second: u32) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("a flood from {}", from.name()));
        let netns = from.netns().map_err(failed())?;
        let sockets = run_in(&netns, || {
            let ipv4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            ipv4.set_nonblocking(true)?;
            ipv6.set_nonblocking(true)?;
            Ok((ipv4, ipv6))
        });
        let (ipv4, ipv6) = sockets.map_err(failed())?;
        let stop = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_secs(1) / per_second.max(1);
        let thread = thread::spawn({
            let (stop, targets) = (Arc::clone(&stop), targets.to_vec());
            move || {
                let (mut sent, mut next) = (0, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    for target in &targets {
                        let socket = if target.is_ipv4() { &ipv4 } else { &ipv6 };
                        sent += u64::from(socket.send_to(b"flood", target).is_ok());
                    }
                    // The next datagram is due by the plan and not by now, so that a late wake-up is made up for.
                    next += interval;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                sent
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the flood; returns how many datagrams the kernel took.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_else(|| panic!("the flood's thread panicked"))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Counts the datagrams that arrive at a port of a place.
#[derive(Debug)]
pub struct Sink {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

impl Sink {
    /// Listens at every address that the place has and will have, in both families.
    pub fn start(place: &dyn Place, port: u16) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("a sink in {}", place.name()));
        let netns = place.netns().map_err(failed())?;
        let bind = || run_in(&netns, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)));
        // A program that is being started elsewhere holds whatever this process had open, until it runs.
        let deadline = Instant::now() + STARTING;
        let socket = loop {
            match bind() {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                bound => break bound.map_err(failed())?,
            }
        };
        let port = socket.local_addr().map_err(failed())?.port();
        socket.set_read_timeout(Some(Duration::from_millis(50))).map_err(failed())?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let thread = thread::spawn({
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            move || count(&socket, &stop, &counts)
        });
        Ok(Self { stop, counts, thread: Some(thread), port })
    }

    /// The port that the sink listens on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many datagrams have come from each address.
    pub fn by_source(&self) -> BTreeMap<IpAddr, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many datagrams have come in all.
    pub fn count(&self) -> u64 {
        self.by_source().values().sum()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn count(socket: &UdpSocket, stop: &AtomicBool, counts: &Mutex<BTreeMap<IpAddr, u64>>) {
    let mut bytes = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        // An error is the read's timeout, there to look at `stop`.
        let received: io::Result<_> = socket.recv_from(&mut bytes);
        if let Ok((_, source)) = received {
            let source = source.ip().to_canonical();
            *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(source).or_default() += 1;
        }
    }
}

/// Lets the sleeps of the calling thread end when they are due: by default Linux lets them run 50 us over
/// (`PR_SET_TIMERSLACK`).
pub fn fine_timers() -> io::Result<()> {
    Ok(nix::sys::prctl::set_timerslack(1)?)
}
