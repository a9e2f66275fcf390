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

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::{ConnId, SpeakerConfig};
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Connection};
use crate::run::{Bgp, Outputs, Owner};
use crate::socket;

/// What sockets report to the owner.
#[derive(Debug)]
pub(crate) enum SocketEvent {
    /// A peer has dialled.
    Accepted(TcpStream),
    /// A dial has ended.
    Dialled(ConnId, io::Result<TcpStream>),
    /// A whole message has come.
    Received(ConnId, Bytes),
    /// A full socket has room again.
    Writable(ConnId),
    /// The connection is over, with the error that ended it unless the peer closed it.
    Closed(ConnId, Option<io::Error>),
}

/// Messages that wait for the owner; a reader with more to say waits, and with it TCP's window closes.
const INBOX: usize = 4_096;

/// Commands that wait for the owner.
const COMMANDS: usize = 64;

/// Batches that wait for felix; the owner gathers changes meanwhile.
const BATCHES: usize = 16;

/// No dial waits longer; ConnectRetry (RFC 4271 section 8.1.3) comes first.
const DIAL_LIMIT: Duration = Duration::from_secs(120);

/// Starts a speaker without sessions that listens nowhere yet; [`Bgp`] gives it both.
pub fn start(config: SpeakerConfig, tracker: &TaskTracker, cancel: CancellationToken) -> (Bgp, Outputs) {
    let (events, inbox) = mpsc::channel(INBOX);
    let (commands, requests) = mpsc::channel(COMMANDS);
    let (fib, fib_updates) = mpsc::channel(BATCHES);
    let (watches, next_hop_watches) = mpsc::channel(BATCHES);
    let spawner = Spawner { tracker: tracker.clone(), events };
    let owner = Owner::new(config, spawner, inbox, requests, fib, watches);
    tracker.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = owner.run() => {}
        }
    });
    (Bgp::new(commands), Outputs { fib: fib_updates, watches: next_hop_watches })
}

/// Starts the owner's helpers.
#[derive(Debug)]
pub(crate) struct Spawner {
    tracker: TaskTracker,
    events: mpsc::Sender<SocketEvent>,
}

impl Spawner {
    /// Listeners on all addresses at a port.
    pub(crate) fn listen(&self, port: u16) -> io::Result<Vec<AbortHandle>> {
        let listeners = socket::listeners(port)?;
        Ok(listeners.into_iter().map(|listener| self.spawn(accept(listener, self.events.clone()))).collect())
    }

    pub(crate) fn dial(&self, id: ConnId, remote: SocketAddr, local: Option<IpAddr>) -> AbortHandle {
        let events = self.events.clone();
        self.spawn(async move {
            let limit = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
            let dialled = tokio::time::timeout(DIAL_LIMIT, socket::dial(remote, local)).await;
            let dialled = dialled.unwrap_or_else(|_| Err(limit()));
            // The owner is gone only when the agent is.
            let _ = events.send(SocketEvent::Dialled(id, dialled)).await;
        })
    }

    pub(crate) fn read(&self, id: ConnId, stream: TcpStream) -> Connection {
        let (stream, want_write) = (Arc::new(stream), Arc::new(Notify::new()));
        let read = connection::read(id, Arc::clone(&stream), Arc::clone(&want_write), self.events.clone());
        Connection::new(stream, want_write, self.spawn(read))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tracker.spawn(task).abort_handle()
    }
}

async fn accept(listener: TcpListener, events: mpsc::Sender<SocketEvent>) {
    loop {
        let event = match listener.accept().await {
            Ok((stream, _)) => SocketEvent::Accepted(stream),
            Err(error) => {
                // Out of file descriptors, or a connection that ended before it was taken: neither ends the listener.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
