//! What goes into a speaker and what comes out.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use types::{ClusterId, Family, FibUpdate, NextHopState, NextHopWatch, Prefix};

use super::config::{Identity, PeerConfig};
use crate::origin::OriginChange;
use crate::policy::ImportPolicy;
use crate::session::{ConnId, DownReason};
use crate::wire::{AttributeFault, Families};

/// What happens to a speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// These are the peers from now on, all of them. Only those that are new, gone or changed notice, and those whose
    /// session depends on what has changed of us.
    Configure {
        /// Who we are.
        identity: Identity,
        /// The peers; of two with one address the last counts.
        peers: Vec<PeerConfig>,
        /// Our cluster where we reflect routes. Without one, a speaker that has clients uses its BGP Identifier (RFC 4456
        /// section 7).
        cluster_id: Option<ClusterId>,
    },
    /// These prefixes are originated from now on, and no others.
    Originate(BTreeSet<Prefix>),
    /// Learned prefixes are judged by this policy from now on, those that are here already among them.
    Import(ImportPolicy),
    /// This has changed of who may announce what; routes that are here already are judged by it too.
    Origins(Vec<OriginChange>),
    /// A connection that [`Action::Connect`] asked for is there.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
    },
    /// A connection that [`Action::Connect`] asked for cannot be had.
    ConnectFailed {
        /// The connection.
        conn: ConnId,
        /// Why, in words.
        error: String,
    },
    /// Somebody has dialled.
    Accepted {
        /// A new id ([`super::Speaker::conn_id`]).
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
        /// Their end; who it is follows from the address.
        remote: SocketAddr,
    },
    /// A whole message has come, as [`crate::wire::frame_length`] cuts it out.
    Received {
        /// The connection.
        conn: ConnId,
        /// The message.
        message: Bytes,
    },
    /// A connection has ended, whoever ended it. Nothing more comes from it.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// The peer's TCP has acknowledged what was sent on a connection; answers [`Action::Probe`].
    Acknowledged {
        /// The connection.
        conn: ConnId,
    },
    /// What the kernel says of a next hop; answers [`NextHopWatch::Track`], and comes again with every change.
    NextHop(NextHopState),
    /// [`super::Speaker::timeout`] has passed.
    Tick,
}

/// What a speaker wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial; answered by [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect {
        /// The new connection's id.
        conn: ConnId,
        /// The peer's address and port.
        remote: SocketAddr,
        /// Our address to dial from; the kernel chooses one where there is none.
        local: Option<IpAddr>,
    },
    /// Close a connection, or give up dialling it. Its id means nothing to the speaker any more.
    Close {
        /// The connection.
        conn: ConnId,
        /// Messages to be written before, if that is possible without waiting.
        last_words: Vec<Bytes>,
    },
    /// Answer with [`Input::Acknowledged`] when the peer's TCP has acknowledged something that is sent on the connection in
    /// this round or later; with nothing if it does not.
    Probe {
        /// The connection.
        conn: ConnId,
    },
    /// Change the kernel's routes.
    Fib(FibUpdate),
    /// Watch a next hop, or no longer.
    Watch(NextHopWatch),
    /// Something to tell people.
    Event {
        /// The peer, or who dialled.
        peer: IpAddr,
        /// What has happened.
        event: PeerEvent,
    },
}

/// Something that people may want to know of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// Routes may flow, of these families.
    Established(Families),
    /// The session is over.
    Down {
        /// Why it is over.
        reason: DownReason,
        /// The families whose routes are kept while the peer restarts.
        retained: Families,
    },
    /// The session did not come up.
    AttemptFailed(DownReason),
    /// The peer has sent all its routes of the family.
    EndOfRib(Family),
    /// The peer has not come back, or has not sent its routes again, in time; those that were kept are gone.
    StaleExpired(Family),
    /// A malformed attribute was handled as RFC 7606 says.
    Fault(AttributeFault),
    /// Connections that came from the peer's address while its session is alive are closed: so many.
    SecondRefused(usize),
    /// Routes of the peer were refused as their origin does not check, or as it has more than it may.
    Refused {
        /// How many since people were last told.
        count: u64,
        /// One of them.
        prefix: Prefix,
        /// Why that one was refused.
        reason: String,
    },
    /// The peer has four fifths of the prefixes that it may have, or more.
    NearLimit {
        /// Of which family.
        family: Family,
        /// How many are in use.
        accepted: u32,
        /// How many may be.
        limit: u32,
    },
    /// Routes of the family that were refused may be good now, and the peer does not send routes again when it is asked to
    /// (RFC 2918): a new session would bring them.
    CannotAskAgain(Family),
    /// Somebody dialled who is not a peer; the connection is closed (Cease, Connection Rejected).
    Rejected,
    /// There are more peers than a speaker can have (65,535); this one is ignored.
    TooManyPeers,
}
