//! The owner of the speaker, which does what [`crate::Bgp`] asks and sockets report.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_proto::{Action, ConnId, Input, PeerConfig, PeerEvent, Speaker, SpeakerConfig};
use kernel::netstat::TcpDrops;
use kernel::sockopt;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use types::api::PeerStatus;
use types::{FibUpdate, NextHopWatch, Passwords};

use crate::connection::Connection;
use crate::dial::Dial;
use crate::handle::{BgpError, Command};
use crate::outbox::Outbox;
use crate::probes::Probes;
use crate::security::Security;
use crate::socket;
use crate::sparingly::Sparingly;
use crate::tasks::{Listener, SocketEvent, Spawner};
use crate::view;

/// Events of sockets in one turn: enough to pack messages well.
const EVENTS_PER_TURN: usize = 256;

/// How long a turn takes up what sockets have brought, and how long it writes, before timers, outputs and commands have
/// theirs again: long enough to pack messages well, short against everything that anybody waits for.
const TURN: Duration = Duration::from_millis(10);

/// Octets that are written to one connection in a row while others have something to be sent.
const OCTETS_IN_A_ROW: u64 = 256 * 1024;

/// Destinations in one answer about the tables.
const ROUTES_PER_ANSWER: usize = 512;

/// Open files of a peer: a connection that is dialled, one that is established, and those that wait for a session.
const FILES_PER_PEER: u64 = 6;

/// Open files of the agent besides.
const OTHER_FILES: u64 = 1_024;

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
    /// What was told or asked through [`crate::Bgp`].
    commands: mpsc::Receiver<Command>,
    /// The sockets, by the id that the speaker knows them under.
    connections: HashMap<ConnId, Connection>,
    /// The dials that are under way.
    dials: HashMap<ConnId, Dial>,
    /// The port that is listened at, and its listeners.
    listening: Option<(u16, Vec<Listener>)>,
    /// What protects the peers' connections.
    security: Security,
    /// Tells the listeners who the peers are.
    peers: watch::Sender<HashSet<IpAddr>>,
    /// Questions whether the other end of a connection is there.
    probes: Probes,
    /// Connections with more to be sent than was written in a row.
    unwritten: VecDeque<ConnId>,
    /// Whether the last turn ended before everything was written.
    interrupted: bool,
    /// Keeps lines of the log that peers bring about from filling it.
    sparingly: Sparingly,
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
        peers: watch::Sender<HashSet<IpAddr>>,
        (fib, watches): (mpsc::Sender<Vec<FibUpdate>>, mpsc::Sender<Vec<NextHopWatch>>),
    ) -> Self {
        Self {
            speaker: Speaker::new(config, Instant::now()),
            spawner,
            inbox,
            commands,
            connections: HashMap::new(),
            dials: HashMap::new(),
            listening: None,
            security: Security::default(),
            peers,
            probes: Probes::default(),
            unwritten: VecDeque::new(),
            interrupted: false,
            sparingly: Sparingly::default(),
            fib: Outbox::new(fib),
            watches: Outbox::new(watches),
        }
    }

    /// Goes turn by turn. A turn begins when there is something to do, does some of everything that is there, timers and
    /// outputs first, and is short, so that a peer with a million routes is in nobody's way.
    pub(crate) async fn run(mut self) {
        loop {
            let busy = self.interrupted || !self.unwritten.is_empty();
            let clogged_until = self.fib.clogged_until(Instant::now());
            tokio::select! {
                biased;
                () = std::future::ready(()), if busy => {}
                () = self.fib.flush(), if !self.fib.is_empty() => {}
                () = self.watches.flush(), if !self.watches.is_empty() => {}
                () = at(self.speaker.timeout()) => {}
                () = at(self.probes.timeout()) => {}
                () = at(self.sparingly.timeout()) => {}
                () = at(clogged_until) => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    // The last handle is gone, so nobody can configure or ask any more: the agent is ending.
                    None => return,
                },
                event = self.inbox.recv(), if clogged_until.is_none() => {
                    event.into_iter().for_each(|event| self.socket_event(event));
                }
            }
            self.look_at_timers();
            self.take_commands();
            // Felix takes routes more slowly than sockets bring them. What has not been read from a socket is in nobody's
            // way; what has been read is before all that comes later.
            if self.fib.clogged_until(Instant::now()).is_none() {
                self.take_events();
            }
            self.settle();
            self.fib.send();
            self.watches.send();
            // The tasks that this turn has woken may wait for this thread.
            tokio::task::yield_now().await;
        }
    }

    fn look_at_timers(&mut self) {
        let now = Instant::now();
        let is_due = |timeout: Option<Instant>| timeout.is_some_and(|at| at <= now);
        if is_due(self.speaker.timeout()) {
            self.speaker.handle(Input::Tick, now);
        }
        if is_due(self.probes.timeout()) {
            self.look_at_probes();
        }
        if is_due(self.sparingly.timeout()) {
            self.say_what_was_kept_back();
        }
    }

    fn take_commands(&mut self) {
        let end = Instant::now() + TURN;
        while Instant::now() < end {
            let Ok(command) = self.commands.try_recv() else { return };
            self.command(command);
        }
    }

    /// Does what sockets have brought, for as long as a turn may take.
    fn take_events(&mut self) {
        let end = Instant::now() + TURN;
        for _ in 0..EVENTS_PER_TURN {
            let Ok(event) = self.inbox.try_recv() else { return };
            self.socket_event(event);
            if Instant::now() >= end {
                return;
            }
        }
    }

    fn look_at_probes(&mut self) {
        let now = Instant::now();
        for conn in self.probes.acknowledged(&self.connections, now) {
            self.speaker.handle(Input::Acknowledged { conn }, now);
        }
    }

    fn say_what_was_kept_back(&mut self) {
        for (peer, event, count) in self.sparingly.due(Instant::now()) {
            let (what, is_warning) = view::event(&event);
            let what =
                if count > 1 { format!("{what} (the last of {count} such events within a second)") } else { what };
            say(peer, &what, is_warning);
        }
    }

    fn command(&mut self, command: Command) {
        let now = Instant::now();
        // A reply fails only when whoever asked has stopped waiting for it, which is no loss.
        match command {
            Command::Configure(identity, peers, cluster_id, passwords) => {
                let peers = self.protect(peers, &passwords);
                self.peers.send_replace(peers.iter().map(|peer| peer.address).collect());
                raise_open_files(peers.len());
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
                let _ = reply.send(self.peers(now));
            }
            Command::Routes(family, after, reply) => {
                let routes = self.speaker.routes_after(family, after).take(ROUTES_PER_ANSWER);
                let _ = reply.send(routes.map(|route| view::route(&route)).collect());
            }
            Command::Route(prefix, reply) => {
                let mut routes = self.speaker.routes(prefix.family(), Some(prefix));
                let route = routes.find(|route| route.prefix == prefix);
                let _ = reply.send(route.map(|route| view::route(&route)));
            }
        }
    }

    fn listen(&mut self, port: u16) -> Result<(), BgpError> {
        if self.listening.as_ref().is_some_and(|(present, _)| *present == port) {
            return Ok(());
        }
        let listeners = self.spawner.listen(port, &self.security).map_err(|error| BgpError::Listen { port, error })?;
        info!(port, "listening for BGP");
        if let Some((_, former)) = self.listening.replace((port, listeners)) {
            former.iter().for_each(|listener| listener.task.abort());
        }
        Ok(())
    }

    /// Protects connections, those that are there and those to come, as these peers ask for; gives those peers that may have
    /// a session.
    fn protect(&mut self, peers: Vec<PeerConfig>, passwords: &Passwords) -> Vec<PeerConfig> {
        let listeners = self.listening.as_ref().map(|(_, listeners)| listeners.as_slice()).unwrap_or_default();
        let set_key = |peer: IpAddr, key: Option<&[u8]>| {
            let of_family = |listener: &&Listener| {
                listener.socket.local_addr().is_ok_and(|address| address.is_ipv4() == peer.is_ipv4())
            };
            listeners.iter().filter(of_family).try_for_each(|each| sockopt::set_md5_key(&each.socket, peer, key))
        };
        let adopted = self.security.adopt(peers, passwords, set_key);
        for (peer, terms) in adopted.changed {
            let begun: Vec<ConnId> =
                self.dials.iter().filter(|(_, dial)| dial.remote == peer).map(|(conn, _)| *conn).collect();
            for conn in begun {
                if let Some(dial) = self.dials.remove(&conn) {
                    dial.task.abort();
                }
                let error = "its password or TTL security has changed meanwhile".to_owned();
                self.speaker.handle(Input::ConnectFailed { conn, error }, Instant::now());
            }
            // Those of a peer that is gone have to tell it so yet, on their former terms.
            if !adopted.peers.iter().any(|adopted| adopted.address == peer) {
                continue;
            }
            let is_of_peer = |connection: &Connection| connection.socket().peer_addr().is_ok_and(|at| at.ip() == peer);
            let of_peer = self.connections.iter().filter(|(_, connection)| is_of_peer(connection));
            let failed = of_peer.filter_map(|(conn, connection)| {
                terms.put_on(connection.socket(), peer).err().map(|error| (*conn, error))
            });
            for (conn, error) in failed.collect::<Vec<_>>() {
                warn!(%peer, %error, "the kernel does not protect a connection that is up as is asked for now; it is closed");
                self.lost(conn, Some(error));
            }
        }
        adopted.peers
    }

    /// All peers as the local API shows them, in the order of their addresses.
    fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let dials = self.dials.values().filter_map(|dial| Some((dial.remote, dial.dropped_in_vain()?)));
        let in_vain: HashMap<IpAddr, TcpDrops> = dials.chain(self.resent_in_vain()).collect();
        let shown = |status: bgp_proto::PeerStatus<'_>| {
            let dropped = in_vain.get(&status.config.address).copied();
            self.security.describe(view::peer(&status, now), dropped)
        };
        let peers = self.speaker.peers().map(shown);
        let withheld = self.security.withheld().map(|(config, why)| view::withheld(config, why));
        let mut all: Vec<_> = peers.chain(withheld).collect();
        all.sort_by_key(|peer| peer.address);
        all
    }

    /// The peers whose TCP acknowledges nothing, with what the kernel has dropped since their sessions came up. A session that
    /// stays so is down when its hold time is over.
    fn resent_in_vain(&self) -> impl Iterator<Item = (IpAddr, TcpDrops)> {
        let resending = |connection: &&Connection| sockopt::is_resending(connection.socket()).unwrap_or_default();
        let peer = |connection: &Connection| Some(connection.socket().peer_addr().ok()?.ip());
        let peers: Vec<IpAddr> = self.connections.values().filter(resending).filter_map(peer).collect();
        // Mostly there is none, and nothing to be read.
        let now = if peers.is_empty() { TcpDrops::default() } else { TcpDrops::now().unwrap_or_default() };
        peers.into_iter().filter_map(move |peer| Some((peer, self.security.dropped_since_up(peer, now)?)))
    }

    /// Nobody has answered a dial.
    fn unanswered(&mut self, dial: &Dial) {
        if let Some(drops) = dial.dropped_in_vain()
            && let Some(obstacle) = self.security.unanswered(dial.remote, drops)
        {
            warn!(peer = %dial.remote, "{obstacle}");
        }
    }

    fn socket_event(&mut self, event: SocketEvent) {
        let now = Instant::now();
        match event {
            SocketEvent::Accepted(stream) => {
                let prepared = socket::prepare(&stream).and_then(|()| socket::ends(&stream));
                match prepared {
                    Ok((local, remote)) => {
                        if let Err(why) = self.security.admit(&stream, remote.ip()) {
                            if self.security.refused(remote.ip(), why.clone()) {
                                warn!(peer = %remote.ip(), "a connection from the peer's address is closed: {why}");
                            }
                            return;
                        }
                        let conn = self.speaker.conn_id();
                        self.connections.insert(conn, self.spawner.read(conn, stream));
                        self.speaker.handle(Input::Accepted { conn, local, remote }, now);
                    }
                    Err(error) => debug!(%error, "an incoming BGP connection ended before it could be used"),
                }
            }
            SocketEvent::Dialled(conn, dialled) => {
                let Some(dial) = self.dials.remove(&conn) else { return };
                match dialled.and_then(|stream| Ok((stream.local_addr()?, stream))) {
                    Ok((local, stream)) => {
                        self.connections.insert(conn, self.spawner.read(conn, stream));
                        self.speaker.handle(Input::Connected { conn, local }, now);
                    }
                    Err(error) => {
                        if error.kind() == io::ErrorKind::TimedOut {
                            self.unanswered(&dial);
                        } else {
                            self.security.answered(dial.remote);
                        }
                        let error = error.to_string();
                        self.speaker.handle(Input::ConnectFailed { conn, error }, now);
                    }
                }
            }
            SocketEvent::Received(conn, received) => {
                if self.connections.contains_key(&conn) {
                    self.speaker.handle(Input::Received { conn, message: received.message.clone() }, now);
                }
            }
            SocketEvent::Writable(conn) => {
                if self.write(conn) == Written::InPart && !self.unwritten.contains(&conn) {
                    self.unwritten.push_back(conn);
                }
            }
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

    /// Does what the speaker has decided, and writes what it has to say for as long as a turn may take.
    fn settle(&mut self) {
        let end = Instant::now() + TURN;
        let mut bulk = std::mem::take(&mut self.unwritten);
        self.interrupted = false;
        loop {
            while let Some(action) = self.speaker.poll_action() {
                self.act(action);
            }
            // Those who have said little lately come before those who are sent a table, who have one go in each turn.
            let Some(conn) = self.speaker.poll_transmit().or_else(|| bulk.pop_front()) else { break };
            if self.write(conn) == Written::InPart && !self.unwritten.contains(&conn) {
                self.unwritten.push_back(conn);
            }
            if Instant::now() >= end {
                self.interrupted = true;
                break;
            }
        }
        // Those who had no go in this turn come first in the next.
        while let Some(conn) = bulk.pop_back() {
            self.unwritten.push_front(conn);
        }
        self.probes.written(&self.connections);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { conn, remote, local } => {
                let terms = self.security.terms(remote.ip());
                let task = self.spawner.dial(conn, remote, local, terms);
                self.dials.insert(conn, Dial::begun(remote.ip(), task));
            }
            Action::Close { conn, last_words } => {
                if let Some(dial) = self.dials.remove(&conn) {
                    dial.task.abort();
                    self.unanswered(&dial);
                }
                if let Some(mut connection) = self.connections.remove(&conn) {
                    connection.enqueue(last_words);
                    // The connection closes whether or not this succeeds: a peer that does not read is not told why.
                    let _ = connection.flush();
                }
            }
            Action::Fib(update) => self.fib.push(update),
            Action::Watch(watch) => self.watches.push(watch),
            Action::Probe { conn } => self.probes.begin(conn, Instant::now()),
            Action::Event { peer, event } => {
                if matches!(event, PeerEvent::Established(_)) {
                    self.security.established(peer, TcpDrops::now().unwrap_or_default());
                }
                if let Some(event) = self.sparingly.says(peer, event, Instant::now()) {
                    let (what, is_warning) = view::event(&event);
                    say(peer, &what, is_warning);
                }
            }
        }
    }

    /// Hands the socket what the speaker has for it, as far as it takes it and for as long as it is this connection's turn.
    fn write(&mut self, conn: ConnId) -> Written {
        let mut messages = Vec::new();
        let Some(connection) = self.connections.get_mut(&conn) else { return Written::Whole };
        let limit = connection.written() + OCTETS_IN_A_ROW;
        loop {
            if !connection.is_drained() {
                if let Err(error) = connection.flush() {
                    self.lost(conn, Some(error));
                    return Written::Whole;
                }
                if !connection.is_drained() {
                    // The reader reports when there is room again.
                    return Written::Whole;
                }
            }
            if connection.written() >= limit {
                return Written::InPart;
            }
            self.speaker.transmit(conn, &mut messages, OCTETS_PER_TRANSMIT, Instant::now());
            if messages.is_empty() {
                return Written::Whole;
            }
            connection.enqueue(messages.drain(..));
        }
    }
}

/// How much of what there is for a connection was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// All, or as much as the socket takes for now.
    Whole,
    /// As much as it was the connection's turn for.
    InPart,
}

/// Ends at this time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn say(peer: IpAddr, what: &str, is_warning: bool) {
    if is_warning {
        warn!(%peer, "{what}");
    } else {
        info!(%peer, "{what}");
    }
}

/// Sees to it that every peer can have its connections.
fn raise_open_files(peers: usize) {
    let wanted = OTHER_FILES + FILES_PER_PEER * peers as u64;
    match kernel::raise_open_files(wanted) {
        Ok(limit) if limit < wanted => {
            warn!(
                limit,
                wanted,
                "the limit of open files is too low for {peers} BGP peers and cannot be raised: raise LimitNOFILE"
            );
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "the limit of open files cannot be raised for {peers} BGP peers"),
    }
}
