//! A configured peer: its session, and what of its routes is kept or told.

use std::time::Instant;

use bytes::Bytes;

use super::config::PeerConfig;
use super::intake::Watched;
use crate::graceful::Retention;
use crate::rib::{ByFamily, GroupId, PeerIndex, Source};
use crate::session::{PeerRestart, Session};

/// A peer, from the configuration that adds it to the one that removes it.
#[derive(Debug)]
pub(super) struct Peer {
    /// What was configured.
    pub(super) config: PeerConfig,
    /// The session with it.
    pub(super) session: Session,
    /// Its routes that stay while it restarts.
    pub(super) retention: Retention,
    /// Its terms of graceful restart in the last OPEN that led to a session.
    pub(super) offer: Option<PeerRestart>,
    /// The update groups that it is in while its session is up.
    pub(super) groups: ByFamily<Option<GroupId>>,
    /// When the speaker looks after it next; entered in the speaker's timers.
    pub(super) armed: Option<Instant>,
    /// When a session that ended for too many prefixes may begin again.
    pub(super) resume: Option<Instant>,
    /// Routes that were dropped because they had been here before.
    pub(super) loops: u64,
    /// What is remembered of its refused routes.
    pub(super) watched: Watched,
}

impl Peer {
    pub(super) fn new(config: PeerConfig, session: Session) -> Self {
        Self {
            config,
            session,
            retention: Retention::default(),
            offer: None,
            groups: ByFamily::default(),
            armed: None,
            resume: None,
            loops: 0,
            watched: Watched::default(),
        }
    }

    /// What kind of routes it sends.
    pub(super) fn source(&self) -> Source {
        match (self.config.is_internal(), self.config.route_reflector_client) {
            (false, _) => Source::External,
            (true, true) => Source::Client,
            (true, false) => Source::Internal,
        }
    }

    /// When there is something to do without an input.
    pub(super) fn timeout(&self) -> Option<Instant> {
        [self.session.timeout(), self.retention.timeout(), self.resume, self.watched.timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// A connection of some peer.
#[derive(Debug)]
pub(super) struct Connection {
    /// The peer that it is with.
    pub(super) peer: PeerIndex,
    /// Our address, once the connection is there.
    pub(super) local: Option<std::net::IpAddr>,
    /// Messages of the session that have not been handed out yet. They go before routes.
    pub(super) control: Vec<Bytes>,
    /// Whether it is among the connections with something to be sent.
    pub(super) ready: bool,
}

impl Connection {
    pub(super) const fn new(peer: PeerIndex, local: Option<std::net::IpAddr>) -> Self {
        Self { peer, local, control: Vec::new(), ready: false }
    }
}
