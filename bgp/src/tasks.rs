//! Every task of this crate, and what they say to each other.
//!
//! ```text
//!   listener (1 per family) ──Accepted──┐
//!   dialler (1 per attempt) ──Dialled───┤                     ┌──► FibUpdate batches    (agent, felix)
//!   reader (1 per connection) ─Received─┼──► owner (1) ───────┼──► NextHopWatch batches (agent, felix)
//!                            ─Writable──┤      ▲              └──► writes to sockets, many messages at once
//!                            ─Closed────┘      │
//!                                       Command (handle `Bgp`)
//! ```

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::{ConnId, SpeakerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Connection, Received};
use crate::door::{Door, Turned};
use crate::handle::{Bgp, Outputs};
use crate::run::Owner;
use crate::security::{Security, Terms};
use crate::socket;

/// What sockets report to the owner.
#[derive(Debug)]
pub(crate) enum SocketEvent {
    /// A peer has dialled.
    Accepted(TcpStream),
    /// A dial has ended.
    Dialled(ConnId, io::Result<TcpStream>),
    /// A whole message has come.
    Received(ConnId, Received),
    /// A full socket has room again.
    Writable(ConnId),
    /// The connection is over, with the error that ended it unless the peer closed it.
    Closed(ConnId, Option<io::Error>),
}

/// Events of sockets that may wait for the owner. A reader that has one more waits, so that TCP's window closes and the peer
/// slows down.
const SOCKET_EVENTS_QUEUED: usize = 4_096;

/// Commands that may wait for the owner.
const COMMANDS_QUEUED: usize = 64;

/// Batches that may wait for felix; the owner gathers further changes meanwhile.
const BATCHES_QUEUED: usize = 16;

/// No dial waits longer than this. The ConnectRetryTimer (RFC 4271 section 8.1.3) gives a dial up earlier.
const DIAL_LIMIT: Duration = Duration::from_secs(120);

/// How long a listener waits after it could not accept a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Starts a speaker that has no sessions and listens nowhere: [`Bgp::configure`] and [`Bgp::listen`] change that.
pub fn start(config: SpeakerConfig, tracker: &TaskTracker, cancel: CancellationToken) -> (Bgp, Outputs) {
    let (events, inbox) = mpsc::channel(SOCKET_EVENTS_QUEUED);
    let (commands, requests) = mpsc::channel(COMMANDS_QUEUED);
    let (fib, fib_updates) = mpsc::channel(BATCHES_QUEUED);
    let (watches, next_hop_watches) = mpsc::channel(BATCHES_QUEUED);
    let (peers, known) = watch::channel(HashSet::new());
    let turned = Turned::default();
    let spawner = Spawner { tracker: tracker.clone(), events, door: Door::new(known, turned.clone()) };
    let owner = Owner::new(config, spawner, inbox, requests, peers, (fib, watches));
    tracker.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = owner.run() => {}
        }
    });
    (Bgp::new(commands, turned), Outputs { fib: fib_updates, watches: next_hop_watches })
}

/// A listening socket, shared by the task that accepts its connections and the owner, which puts keys on it.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket.
    pub(crate) socket: Arc<TcpListener>,
    /// The task; aborting it ends the listening once the socket is dropped here as well.
    pub(crate) task: AbortHandle,
}

/// Starts the owner's listeners, dials and readers.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// Knows all tasks of the agent, which waits for them when it ends.
    tracker: TaskTracker,
    /// To the owner; each task that is started gets a clone.
    events: mpsc::Sender<SocketEvent>,
    /// Who may come in; each listener gets a clone.
    door: Door,
}

impl Spawner {
    /// Listeners on all addresses at a port.
    pub(crate) fn listen(&self, port: u16, security: &Security) -> io::Result<Vec<Listener>> {
        let start = |socket| {
            let socket = Arc::new(socket);
            let task = self.spawn(accept(Arc::clone(&socket), self.door.clone(), self.events.clone()));
            Listener { socket, task }
        };
        Ok(socket::listeners(port, security)?.into_iter().map(start).collect())
    }

    /// Dials `remote` from `local`, or from an address that the kernel chooses, on these terms.
    pub(crate) fn dial(&self, id: ConnId, remote: SocketAddr, local: Option<IpAddr>, terms: Terms) -> AbortHandle {
        let events = self.events.clone();
        self.spawn(async move {
            let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
            let dialled = tokio::time::timeout(DIAL_LIMIT, socket::dial(remote, local, &terms)).await;
            let dialled = dialled.unwrap_or_else(|_| Err(timed_out()));
            // The owner is gone only when the agent is ending.
            let _ = events.send(SocketEvent::Dialled(id, dialled)).await;
        })
    }

    /// Reads from a connection, and makes it writable for the owner.
    pub(crate) fn read(&self, id: ConnId, stream: TcpStream) -> Connection {
        let (stream, want_write) = (Arc::new(stream), Arc::new(Notify::new()));
        let read = connection::read(id, Arc::clone(&stream), Arc::clone(&want_write), self.events.clone());
        Connection::new(stream, want_write, self.spawn(read))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tracker.spawn(task).abort_handle()
    }
}

/// The listener task: hands the connections of peers to the owner, until the owner is gone.
async fn accept(listener: Arc<TcpListener>, mut door: Door, events: mpsc::Sender<SocketEvent>) {
    loop {
        let event = match listener.accept().await {
            Ok((_, remote)) if !door.admits(remote.ip(), Instant::now()) => continue,
            Ok((stream, _)) => SocketEvent::Accepted(stream),
            Err(error) => {
                // The agent is out of file descriptors, or the connection ended before it was accepted. Neither is a reason
                // to stop listening.
                tracing::warn!(%error, "cannot accept a BGP connection; listening goes on");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
