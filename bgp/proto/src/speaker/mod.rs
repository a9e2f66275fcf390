//! The speaker: all sessions and the tables as one deterministic object, without I/O and without a clock.
//!
//! A round is any number of [`Speaker::handle`], then [`Speaker::poll_action`] until there is none, then for each
//! connection that [`Speaker::poll_transmit`] names [`Speaker::transmit`] until it hands out nothing or the socket is full,
//! then sleep until [`Speaker::timeout`] or the next input. What inputs change is decided and encoded once per round, so
//! that rounds get larger under load and messages with them; no timer delays anything.
//!
//! ```text
//!   Input ──► handle ──► session ──► update, established, down ──► Rib
//!                                                                   │ settle
//!   Action ◄── poll_action ◄────────────────────────────────────────┤
//!   octets ◄── transmit ◄── control messages, then update groups ◄──┘
//! ```

mod config;
mod configure;
mod event;
mod intake;
mod peer;
mod round;
mod sessions;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use types::{ClusterId, Prefix};

pub use config::{Identity, PeerConfig, SpeakerConfig};
pub use event::{Action, Input, PeerEvent};
pub use view::{PeerStatus, RejectedView, TableSizes};

use crate::graceful::Restart;
use crate::rib::{ByFamily, PeerIndex, Rib};
use crate::session::{self, ConnId, Outputs};
use crate::wire::{Cease, ErrorCode, Notification};
use peer::{Connection, Peer};

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    /// What it was configured with, and who it is now.
    config: SpeakerConfig,
    /// When it was created: peers of the first configuration are waited for from then on.
    start: Instant,
    /// The time of the last input.
    now: Instant,
    /// Our cluster where we reflect routes.
    reflector: Option<ClusterId>,
    /// The peers by their places; an empty place is reused.
    peers: Vec<Option<Peer>>,
    /// The place of each peer.
    by_address: BTreeMap<IpAddr, PeerIndex>,
    /// The connections of all peers, those that are being dialled among them.
    connections: HashMap<ConnId, Connection>,
    /// All routes.
    rib: Rib,
    /// Our own graceful restart.
    restart: Restart,
    /// Whether it is known what this speaker originates.
    originated: bool,
    /// Prefixes whose deletion waits until the family is in sync.
    deferred: ByFamily<BTreeSet<Prefix>>,
    /// What sessions want done; empty between inputs.
    outputs: Outputs,
    /// What is to be done and has not been handed out yet.
    actions: VecDeque<Action>,
    /// Connections with something to be sent, each once.
    ready: VecDeque<ConnId>,
    /// When peers are to be looked after: at or before their own timeouts, one entry each.
    timers: BTreeSet<(Instant, PeerIndex)>,
    /// Whether there was an input since the last round ended.
    stirred: bool,
    /// How many connections were closed because whoever dialled is not a peer.
    rejected: u64,
}

impl Speaker {
    /// A speaker without peers. Its own restart, if it is one, begins now.
    pub fn new(config: SpeakerConfig, now: Instant) -> Self {
        Self {
            start: now,
            now,
            reflector: None,
            peers: Vec::new(),
            by_address: BTreeMap::new(),
            connections: HashMap::new(),
            rib: Rib::new(config.import.clone()),
            restart: Restart::new(config.preserved),
            originated: false,
            deferred: ByFamily::default(),
            outputs: Outputs::default(),
            actions: VecDeque::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            stirred: false,
            rejected: 0,
            config,
        }
    }

    /// An id for a connection that was accepted.
    pub const fn conn_id(&mut self) -> ConnId {
        self.outputs.conn_id()
    }

    /// Takes one input. Connections that are not known (any more) are ignored.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        self.stirred = true;
        match input {
            Input::Configure { identity, peers, cluster_id } => self.configure(identity, peers, cluster_id),
            Input::Originate(prefixes) => {
                self.rib.originate(prefixes);
                if !self.originated {
                    self.originated = true;
                    self.wake_all();
                }
            }
            Input::Origins(changes) => self.rib.set_origins(changes),
            Input::Import(import) => {
                // What is told under the old policy has to be known before the new one takes over.
                self.settle();
                self.rib.set_import(import);
            }
            Input::Connected { conn, local } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.local = Some(local.ip());
                }
                self.connection_input(conn, session::Input::Connected(conn));
            }
            Input::ConnectFailed { conn, error } => {
                self.connection_input(conn, session::Input::ConnectFailed(conn, error));
                self.connections.remove(&conn);
            }
            Input::Accepted { conn, local, remote } => self.accepted(conn, local, remote),
            Input::Received { conn, message } => {
                self.connection_input(conn, session::Input::Received(conn, message));
            }
            Input::Closed { conn } => {
                self.connection_input(conn, session::Input::Closed(conn));
                self.connections.remove(&conn);
            }
            Input::Acknowledged { conn } => self.connection_input(conn, session::Input::Acknowledged(conn)),
            Input::NextHop(state) => self.rib.set_next_hop(state),
            Input::Tick => self.tick(),
        }
    }

    /// The next thing to do; nothing when all of this round is done.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.stirred {
            self.close_round();
        }
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due, after a round.
    pub fn timeout(&self) -> Option<Instant> {
        // Nothing comes into sync before all next hops are known, so nothing is due for it either.
        let restart = self.restart.timeout().filter(|_| self.rib.knows_all_next_hops());
        let peers = self.timers.first().map(|(due, _)| *due);
        restart.into_iter().chain(peers).min()
    }

    fn accepted(&mut self, conn: ConnId, local: SocketAddr, remote: SocketAddr) {
        let known = self.by_address.get(&remote.ip()).copied();
        let Some(peer) = known.filter(|peer| self.peer(*peer).is_some_and(|peer| peer.config.dials(local.ip()))) else {
            self.rejected += 1;
            // A speaker that is not a peer is told Connection Rejected (RFC 4486 section 4).
            let rejection = Notification::new(ErrorCode::Cease(Cease::ConnectionRejected));
            self.actions.push_back(Action::Close { conn, last_words: vec![rejection.encode()] });
            self.actions.push_back(Action::Event { peer: remote.ip(), event: PeerEvent::Rejected });
            return;
        };
        self.connections.insert(conn, Connection::new(peer, Some(local.ip())));
        self.session_input(peer, session::Input::Accepted(conn));
    }

    fn connection_input(&mut self, conn: ConnId, input: session::Input) {
        if let Some(peer) = self.connections.get(&conn).map(|connection| connection.peer) {
            self.session_input(peer, input);
        }
    }

    fn tick(&mut self) {
        let mut due = Vec::new();
        while let Some((at, index)) = self.timers.first().copied()
            && at <= self.now
        {
            self.timers.pop_first();
            due.push(index);
        }
        for index in due {
            if let Some(peer) = self.peer_mut(index) {
                peer.armed = None;
            }
            self.look_after(index);
        }
    }

    /// Notes when a peer is to be looked after. A note that has become too early stays: it costs one look at the peer.
    fn arm(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(usize::from(index.0)).and_then(Option::as_mut) else { return };
        let Some(due) = peer.timeout() else { return };
        if peer.armed.is_none_or(|armed| due < armed) {
            if let Some(armed) = peer.armed.replace(due) {
                self.timers.remove(&(armed, index));
            }
            self.timers.insert((due, index));
        }
    }

    fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(usize::from(index.0))?.as_ref()
    }

    fn peer_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(index.0))?.as_mut()
    }
}
