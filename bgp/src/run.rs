//! The owner of the speaker, and the handle through which others speak to it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bgp_proto::{Action, ConnId, Identity, ImportPolicy, Input, OriginChange, PeerConfig, Speaker, SpeakerConfig};
use mailbox::{Ended, Mailbox};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use types::api::{PeerStatus, RejectedRoute, RouteView};
use types::{ClusterId, Family, FibUpdate, NextHopState, NextHopWatch, Prefix};

use crate::connection::Connection;
use crate::socket;
use crate::tasks::{SocketEvent, Spawner};
use crate::view;

/// The handle to the speaker. Clones speak to the same one.
#[derive(Debug, Clone)]
pub struct Bgp {
    /// To the speaker's owner.
    mailbox: Mailbox<Command>,
}

/// What the speaker says of itself, in batches and in order.
#[derive(Debug)]
pub struct Outputs {
    /// Chosen routes.
    pub fib: mpsc::Receiver<Vec<FibUpdate>>,
    /// Next hops whose state it wants to be told ([`Bgp::next_hops`]).
    pub watches: mpsc::Receiver<Vec<NextHopWatch>>,
}

/// Why a speaker does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    /// The environment is at fault: another process listens there, or the port is privileged.
    #[error("cannot listen for BGP on port {port}: {error}")]
    Listen {
        /// The port.
        port: u16,
        /// What the kernel says.
        error: io::Error,
    },
    /// The speaker's owner has ended, as it does when the agent ends.
    #[error("the BGP speaker has ended")]
    Ended,
}

impl From<Ended> for BgpError {
    fn from(Ended: Ended) -> Self {
        Self::Ended
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Configure(Identity, Vec<PeerConfig>, Option<ClusterId>),
    Import(ImportPolicy),
    Origins(Vec<OriginChange>),
    Originate(BTreeSet<Prefix>),
    NextHops(Vec<NextHopState>),
    Listen(u16, oneshot::Sender<Result<(), BgpError>>),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(Option<Family>, Option<Prefix>, oneshot::Sender<Vec<RouteView>>),
    Rejected(oneshot::Sender<Vec<RejectedRoute>>),
}

impl Bgp {
    pub(crate) const fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { mailbox: Mailbox::new(commands) }
    }

    /// Listens at this port from now on (and no longer at an earlier one).
    pub async fn listen(&self, port: u16) -> Result<(), BgpError> {
        self.mailbox.ask(|reply| Command::Listen(port, reply)).await?
    }

    /// The sessions that there should be: new ones are started, others end with a Cease, changed ones begin again, and
    /// those that stay the same are not disturbed. With them, who this node is, and the cluster that it reflects routes
    /// for, if it does.
    pub async fn configure(
        &self,
        identity: Identity,
        peers: Vec<PeerConfig>,
        cluster_id: Option<ClusterId>,
    ) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Configure(identity, peers, cluster_id)).await?)
    }

    /// What import policy accepts.
    pub async fn import(&self, accepted: ImportPolicy) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Import(accepted)).await?)
    }

    /// What has changed of who may announce what.
    pub async fn origins(&self, changes: Vec<OriginChange>) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Origins(changes)).await?)
    }

    /// Routes that are refused: those that are kept, and samples of the others.
    pub async fn rejected(&self) -> Result<Vec<RejectedRoute>, BgpError> {
        Ok(self.mailbox.ask(Command::Rejected).await?)
    }

    /// The prefixes that this node originates, all of them.
    pub async fn originate(&self, prefixes: BTreeSet<Prefix>) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Originate(prefixes)).await?)
    }

    /// Answers to [`Outputs::watches`].
    pub async fn next_hops(&self, states: Vec<NextHopState>) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::NextHops(states)).await?)
    }

    /// The sessions as they are.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, BgpError> {
        Ok(self.mailbox.ask(Command::Peers).await?)
    }

    /// The tables: of one family or both, one destination or all.
    pub async fn routes(&self, family: Option<Family>, prefix: Option<Prefix>) -> Result<Vec<RouteView>, BgpError> {
        Ok(self.mailbox.ask(|reply| Command::Routes(family, prefix, reply)).await?)
    }
}

/// Events of sockets that one round takes at most before it writes: enough to pack messages well, few enough for commands
/// to be answered soon.
const EVENTS_PER_ROUND: usize = 256;

/// Octets after which the speaker stops handing out messages for one connection. A run of messages is handed out whole
/// ([`Speaker::transmit`]), so this few mean one run at a time: none is taken that the socket may have no room for.
const OCTETS_PER_TRANSMIT: usize = 256;

/// The owner's state.
pub(crate) struct Owner {
    /// Sessions and tables.
    speaker: Speaker,
    /// Starts listeners, dials and readers.
    spawner: Spawner,
    /// What sockets report.
    inbox: mpsc::Receiver<SocketEvent>,
    /// What was told or asked through [`Bgp`].
    commands: mpsc::Receiver<Command>,
    /// The sockets, by the id that the speaker knows them under.
    connections: HashMap<ConnId, Connection>,
    /// The dials that are under way; aborting one gives it up.
    dials: HashMap<ConnId, AbortHandle>,
    /// The port that is listened at, and its listeners; aborting them ends the listening.
    listening: Option<(u16, Vec<AbortHandle>)>,
    /// Route changes that felix has not taken yet.
    fib: Outbox<FibUpdate>,
    /// Watches that felix has not taken yet.
    watches: Outbox<NextHopWatch>,
}

impl Owner {
    pub(crate) fn new(
        config: SpeakerConfig,
        spawner: Spawner,
        inbox: mpsc::Receiver<SocketEvent>,
        commands: mpsc::Receiver<Command>,
        fib: mpsc::Sender<Vec<FibUpdate>>,
        watches: mpsc::Sender<Vec<NextHopWatch>>,
    ) -> Self {
        Self {
            speaker: Speaker::new(config, Instant::now()),
            spawner,
            inbox,
            commands,
            connections: HashMap::new(),
            dials: HashMap::new(),
            listening: None,
            fib: Outbox::new(fib),
            watches: Outbox::new(watches),
        }
    }

    /// Goes round by round: takes what has come, lets the speaker decide, and writes once per connection.
    pub(crate) async fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        loop {
            let timeout = self.speaker.timeout();
            let timer = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    // The last handle is gone, so nobody can configure or ask any more: the agent is ending.
                    None => return,
                },
                count = self.inbox.recv_many(&mut events, EVENTS_PER_ROUND) => {
                    debug_assert!(count > 0, "the spawner holds a sender");
                    events.drain(..).for_each(|event| self.socket_event(event));
                }
                () = self.fib.flush(), if !self.fib.is_empty() => {}
                () = self.watches.flush(), if !self.watches.is_empty() => {}
                () = timer => self.speaker.handle(Input::Tick, Instant::now()),
            }
            self.settle();
        }
    }

    fn command(&mut self, command: Command) {
        let now = Instant::now();
        // A reply fails only when whoever asked has stopped waiting for it, which is no loss.
        match command {
            Command::Configure(identity, peers, cluster_id) => {
                self.speaker.handle(Input::Configure { identity, peers, cluster_id }, now);
            }
            Command::Import(accepted) => self.speaker.handle(Input::Import(accepted), now),
            Command::Origins(changes) => self.speaker.handle(Input::Origins(changes), now),
            Command::Rejected(reply) => {
                let _ = reply.send(self.speaker.rejected().iter().map(view::rejected).collect());
            }
            Command::Originate(prefixes) => self.speaker.handle(Input::Originate(prefixes), now),
            Command::NextHops(states) => {
                states.into_iter().for_each(|state| self.speaker.handle(Input::NextHop(state), now));
            }
            Command::Listen(port, reply) => {
                let _ = reply.send(self.listen(port));
            }
            Command::Peers(reply) => {
                let _ = reply.send(self.speaker.peers().map(|status| view::peer(&status, now)).collect());
            }
            Command::Routes(family, prefix, reply) => {
                let families = Family::ALL.into_iter().filter(|each| family.is_none_or(|family| family == *each));
                let routes = families.flat_map(|family| self.speaker.routes(family, prefix));
                let asked_for = routes.filter(|route| view::is_asked_for(prefix, route.prefix));
                let _ = reply.send(asked_for.map(|route| view::route(&route)).collect());
            }
        }
    }

    fn listen(&mut self, port: u16) -> Result<(), BgpError> {
        if self.listening.as_ref().is_some_and(|(present, _)| *present == port) {
            return Ok(());
        }
        let listeners = self.spawner.listen(port).map_err(|error| BgpError::Listen { port, error })?;
        info!(port, "listening for BGP");
        if let Some((_, former)) = self.listening.replace((port, listeners)) {
            former.iter().for_each(AbortHandle::abort);
        }
        Ok(())
    }

    fn socket_event(&mut self, event: SocketEvent) {
        let now = Instant::now();
        match event {
            SocketEvent::Accepted(stream) => {
                let prepared = socket::prepare(&stream).and_then(|()| ends(&stream));
                match prepared {
                    Ok((local, remote)) => {
                        let conn = self.speaker.conn_id();
                        self.connections.insert(conn, self.spawner.read(conn, stream));
                        self.speaker.handle(Input::Accepted { conn, local, remote }, now);
                    }
                    Err(error) => debug!(%error, "an incoming BGP connection ended before it could be used"),
                }
            }
            SocketEvent::Dialled(conn, dialled) => {
                if self.dials.remove(&conn).is_none() {
                    return;
                }
                match dialled.and_then(|stream| Ok((stream.local_addr()?, stream))) {
                    Ok((local, stream)) => {
                        self.connections.insert(conn, self.spawner.read(conn, stream));
                        self.speaker.handle(Input::Connected { conn, local }, now);
                    }
                    Err(error) => {
                        let error = error.to_string();
                        self.speaker.handle(Input::ConnectFailed { conn, error }, now);
                    }
                }
            }
            SocketEvent::Received(conn, message) => {
                if self.connections.contains_key(&conn) {
                    self.speaker.handle(Input::Received { conn, message }, now);
                }
            }
            SocketEvent::Writable(conn) => self.write(conn),
            SocketEvent::Closed(conn, error) => self.lost(conn, error),
        }
    }

    /// A connection has ended, and not because the speaker closed it.
    fn lost(&mut self, conn: ConnId, error: Option<io::Error>) {
        if self.connections.remove(&conn).is_some() {
            if let Some(error) = error {
                debug!(?conn, %error, "a BGP connection was lost");
            }
            self.speaker.handle(Input::Closed { conn }, Instant::now());
        }
    }

    /// Does what the speaker has decided, until it has nothing more to say.
    fn settle(&mut self) {
        loop {
            while let Some(action) = self.speaker.poll_action() {
                self.act(action);
            }
            let Some(conn) = self.speaker.poll_transmit() else { return };
            self.write(conn);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { conn, remote, local } => {
                let dial = self.spawner.dial(conn, remote, local);
                self.dials.insert(conn, dial);
            }
            Action::Close { conn, last_words } => {
                if let Some(dial) = self.dials.remove(&conn) {
                    dial.abort();
                }
                if let Some(mut connection) = self.connections.remove(&conn) {
                    connection.enqueue(last_words);
                    // The connection closes whether or not this succeeds: a peer that does not read is not told why.
                    let _ = connection.flush();
                }
            }
            Action::Fib(update) => self.fib.push(update),
            Action::Watch(watch) => self.watches.push(watch),
            Action::Event { peer, event } => match view::event(&event) {
                (what, true) => warn!(%peer, "{what}"),
                (what, false) => info!(%peer, "{what}"),
            },
        }
    }

    /// Hands the socket what the speaker has for it, as far as it takes it.
    fn write(&mut self, conn: ConnId) {
        let mut messages = Vec::new();
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        loop {
            if !connection.is_drained() {
                if let Err(error) = connection.flush() {
                    return self.lost(conn, Some(error));
                }
                if !connection.is_drained() {
                    return;
                }
            }
            self.speaker.transmit(conn, &mut messages, OCTETS_PER_TRANSMIT, Instant::now());
            if messages.is_empty() {
                return;
            }
            connection.enqueue(messages.drain(..));
        }
    }
}

fn ends(stream: &tokio::net::TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

/// Values on their way to another task. The owner does not wait for that task: it gathers values until there is room.
struct Outbox<T> {
    /// To the other task.
    sender: mpsc::Sender<Vec<T>>,
    /// The values that have not been sent, in their order.
    waiting: Vec<T>,
}

impl<T> Outbox<T> {
    const fn new(sender: mpsc::Sender<Vec<T>>) -> Self {
        Self { sender, waiting: Vec::new() }
    }

    fn push(&mut self, value: T) {
        self.waiting.push(value);
    }

    const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends all that waits as soon as there is room; safe to cancel.
    async fn flush(&mut self) {
        match self.sender.reserve().await {
            Ok(permit) => permit.send(std::mem::take(&mut self.waiting)),
            // The other task has ended, and with it the programming of routes: the agent is ending.
            Err(_) => self.waiting.clear(),
        }
    }
}
