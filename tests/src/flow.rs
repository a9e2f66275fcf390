//! Connections between two pods that go on until they are cut.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{CONVERGENCE, Place, Pod, TestResult, run_in, wait_until};

/// Which end of a connection sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talker {
    /// The end that opened the connection sends.
    Client,
    /// The end that was connected to sends.
    Server,
    /// Neither end sends: the connection is idle.
    Nobody,
}

/// A flow between two pods, and how much of it has arrived.
#[derive(Debug)]
pub struct Flow {
    /// The end that sends.
    talker: Talker,
    /// Set when the threads are to end.
    stop: Arc<AtomicBool>,
    /// How many bytes have arrived so far.
    arrived: Arc<AtomicU64>,
    /// Both ends of an idle connection.
    idle: Option<[TcpStream; 2]>,
    /// The thread that sends and the thread that reads.
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    /// Opens a TCP connection from one pod to another.
    pub fn tcp(client: &Pod, server: &Pod, address: IpAddr, talker: Talker) -> Result<Self, Box<dyn Error>> {
        let listener = run_in(&server.netns()?, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        Self::tcp_to(client, target, &listener, talker)
    }

    /// Opens a TCP connection to an address that leads to this listener.
    pub fn tcp_to(
        client: &Pod,
        target: SocketAddr,
        listener: &TcpListener,
        talker: Talker,
    ) -> Result<Self, Box<dyn Error>> {
        let client = run_in(&client.netns()?, || TcpStream::connect_timeout(&target, Duration::from_secs(5)))?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_millis(50)))?;
            end.set_write_timeout(Some(Duration::from_millis(50)))?;
            end.set_nodelay(true)?;
        }
        let mut flow = Self::new(talker);
        let (from, to) = match talker {
            Talker::Client => (client, server),
            Talker::Server => (server, client),
            Talker::Nobody => {
                flow.idle = Some([client, server]);
                return Ok(flow);
            }
        };
        flow.spawn(move || {
            let _ = (&from).write(&[1; 100]);
        });
        flow.count(move |bytes| (&to).read(bytes));
        Ok(flow)
    }

    /// Sends datagrams from one pod to another. The first is answered, so that the flow is established; no more are,
    /// since an answer on its way while the flow is cut would open it again from the other end, which is allowed to
    /// send.
    pub fn udp(client: &Pod, server: &Pod, address: IpAddr) -> Result<Self, Box<dyn Error>> {
        let server = run_in(&server.netns()?, || UdpSocket::bind(SocketAddr::new(address, 0)))?;
        let target = server.local_addr()?;
        Self::udp_to(client, target, server)
    }

    /// [`Flow::udp`], to an address that leads to this socket.
    pub fn udp_to(client: &Pod, target: SocketAddr, server: UdpSocket) -> Result<Self, Box<dyn Error>> {
        let socket = run_in(&client.netns()?, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        for end in [&server, &socket] {
            end.set_read_timeout(Some(Duration::from_millis(50)))?;
        }
        let mut flow = Self::new(Talker::Client);
        flow.spawn(move || {
            let _ = socket.send_to(&[1; 100], target);
        });
        let answered = AtomicBool::new(false);
        flow.count(move |bytes| {
            let (length, source) = server.recv_from(bytes)?;
            if !answered.swap(true, Ordering::Relaxed) {
                let _ = server.send_to(&[1], source);
            }
            Ok(length)
        });
        Ok(flow)
    }

    fn new(talker: Talker) -> Self {
        Self { talker, stop: Arc::default(), arrived: Arc::default(), idle: None, threads: Vec::new() }
    }

    /// Does something every 5 ms.
    fn spawn(&mut self, each: impl Fn() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                each();
                thread::sleep(Duration::from_millis(5));
            }
        }));
    }

    /// Counts the bytes that arrive.
    fn count(&mut self, read: impl Fn(&mut [u8]) -> std::io::Result<usize> + Send + 'static) {
        let (stop, arrived) = (Arc::clone(&self.stop), Arc::clone(&self.arrived));
        self.threads.push(thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                if let Ok(length) = read(&mut bytes) {
                    arrived.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
        }));
    }

    /// Whether one end of the flow sends by itself.
    pub fn talks(&self) -> bool {
        self.talker != Talker::Nobody
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Waits until more bytes arrive.
    pub fn lives(&self, what: &str) -> TestResult {
        let before = self.arrived();
        wait_until(&format!("{what} going on"), CONVERGENCE, || self.arrived() > before)?;
        Ok(())
    }

    /// Waits until nothing has arrived for longer than any retransmission of a living connection takes, from either end
    /// of one that was idle.
    pub fn is_dead(&self, what: &str) -> TestResult {
        if let Some([client, server]) = &self.idle {
            for (mut from, mut to) in [(client, server), (server, client)] {
                let _ = from.write(b"still there?");
                let until = Instant::now() + Duration::from_secs(1);
                while Instant::now() < until {
                    match to.read(&mut [0; 100]) {
                        Ok(0) => break,
                        Ok(_) => return Err(format!("{what}: an idle connection lived on").into()),
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(_) => break,
                    }
                }
            }
            return Ok(());
        }
        let (mut last, mut since) = (self.arrived(), Instant::now());
        wait_until(&format!("{what} being dead"), CONVERGENCE, || {
            if self.arrived() != last {
                (last, since) = (self.arrived(), Instant::now());
            }
            since.elapsed() > Duration::from_secs(1)
        })?;
        Ok(())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
