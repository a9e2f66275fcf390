//! What protects the connections of each peer: a key for TCP MD5 (RFC 2385), a least TTL (RFC 5082). Which sessions wait for
//! a password, and what is known of connections that do not come about.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use bgp_proto::PeerConfig;
use kernel::netstat::TcpDrops;
use kernel::sockopt::{self, Syn};
use types::api::PeerStatus;
use types::{Family, Hops, Passwords, SessionPassword, SessionState};

/// What everything of BGP is sent with, so that each peer may ask for as much (RFC 5082 section 3).
pub(crate) const SENT_TTL: u8 = 255;

/// How long a segment that was not acknowledged waits at most to be sent again, where there is a key: while only one end has
/// a new one, everything is lost, and when the other has it too, this long is waited yet.
const LONGEST_RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long TCP tries before it gives a connection up: what it is without the shorter timeout. The hold time is for BGP.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(900);

/// What is asked of the connections of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The key that both ends sign with.
    password: Option<SessionPassword>,
    /// How far away the peer may be.
    ttl_security: Option<Hops>,
}

impl Terms {
    /// The octets of the key.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.password.as_ref().map(SessionPassword::reveal)
    }

    /// Makes a socket that is connected to the peer, or going to be, do what is asked.
    pub(crate) fn put_on(&self, socket: impl AsFd, peer: IpAddr) -> io::Result<()> {
        sockopt::set_ttl(&socket, Family::of(peer), SENT_TTL, self.ttl_security.map_or(0, Hops::least_ttl))?;
        sockopt::set_md5_key(&socket, peer, self.key())?;
        if self.password.is_some() {
            match sockopt::set_longest_retransmission_timeout(&socket, LONGEST_RETRANSMISSION_TIMEOUT) {
                Ok(()) => socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(GIVEN_UP_AFTER))?,
                // A kernel that does not know it sends again later.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a connection that began with this SYN may be of the peer; the error says why not.
    ///
    /// The kernel checks signatures and TTLs of a connection once they are set on it, which they are when it is accepted:
    /// what came before that the SYN stands for.
    fn judge(&self, syn: Option<Syn>) -> Result<(), String> {
        match (self.ttl_security, syn) {
            (Some(hops), Some(syn)) if syn.ttl < hops.least_ttl() => {
                return Err(format!(
                    "its packets arrive with TTL {}; a peer within {hops} hop(s) that sends with TTL 255 arrives with {} or \
                     more (ttlSecurity)",
                    syn.ttl,
                    hops.least_ttl()
                ));
            }
            (Some(_), None) => {
                return Err("the TTL of its SYN is not known: the kernel keeps none in a flood".to_owned());
            }
            _ => {}
        }
        // Where the kernel keeps none it has checked the signature, or the key came later and drops what follows.
        if self.password.is_some() && syn.is_some_and(|syn| !syn.is_signed) {
            return Err("it began its connection without the password".to_owned());
        }
        Ok(())
    }
}

/// What protects the connections of all peers.
#[derive(Debug, Default)]
pub(crate) struct Security {
    /// Of the peers that may have a session.
    terms: BTreeMap<IpAddr, Terms>,
    /// Peers that have no session, and why.
    withheld: BTreeMap<IpAddr, (PeerConfig, String)>,
    /// Why the dials of peers are not answered, as far as that can be told.
    unanswered: BTreeMap<IpAddr, String>,
    /// Why connections were closed that came from peers' addresses since their sessions were up last.
    refused: BTreeMap<IpAddr, String>,
    /// What the kernel had dropped when the sessions of peers came up.
    dropped_before: BTreeMap<IpAddr, TcpDrops>,
}

/// What has become of a configuration.
pub(crate) struct Adopted {
    /// The peers that may have a session.
    pub(crate) peers: Vec<PeerConfig>,
    /// What is asked of connections of peers that are new, gone (nothing) or of whom something else was asked before.
    pub(crate) changed: BTreeMap<IpAddr, Terms>,
}

impl Security {
    /// Takes over what is asked of these peers. `set_key` puts a key on the listening sockets, or takes it away; a peer whose
    /// key is not taken has no session.
    pub(crate) fn adopt(
        &mut self,
        peers: Vec<PeerConfig>,
        passwords: &Passwords,
        set_key: impl Fn(IpAddr, Option<&[u8]>) -> io::Result<()>,
    ) -> Adopted {
        let mut former = std::mem::take(&mut self.terms);
        self.withheld.clear();
        let is_peer = |address: &IpAddr| peers.iter().any(|peer| peer.address == *address);
        for obstacles in [&mut self.unanswered, &mut self.refused] {
            obstacles.retain(|address, _| is_peer(address));
        }
        self.dropped_before.retain(|address, _| is_peer(address));
        let mut adopted = Adopted { peers: Vec::new(), changed: BTreeMap::new() };
        for peer in peers {
            let address = peer.address;
            let terms = match terms(&peer, passwords) {
                Ok(terms) => terms,
                Err(why) => {
                    self.withheld.insert(address, (peer, why));
                    continue;
                }
            };
            let before = former.remove(&address);
            if before.as_ref() != Some(&terms) {
                let had_key = before.as_ref().is_some_and(|before| before.password.is_some());
                if (had_key || terms.password.is_some())
                    && let Err(error) = set_key(address, terms.key())
                {
                    adopted.changed.insert(address, Terms::default());
                    self.withheld.insert(address, (peer, refused(&error)));
                    continue;
                }
                adopted.changed.insert(address, terms.clone());
            }
            self.terms.insert(address, terms);
            adopted.peers.push(peer);
        }
        for (address, terms) in former {
            if terms.password.is_some() {
                // The key of one that is no peer any more lets nobody in.
                let _ = set_key(address, None);
            }
            adopted.changed.insert(address, Terms::default());
        }
        adopted
    }

    /// What is asked of connections of this peer.
    pub(crate) fn terms(&self, peer: IpAddr) -> Terms {
        self.terms.get(&peer).cloned().unwrap_or_default()
    }

    /// The keys that a listening socket needs.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.terms.iter().filter_map(|(address, terms)| terms.key().map(|key| (*address, key)))
    }

    /// Puts what is asked of a peer's connections on one that it has dialled; the error says why it is none of the peer's.
    /// Whoever is no peer may be anything.
    pub(crate) fn admit(&self, accepted: impl AsFd, remote: IpAddr) -> Result<(), String> {
        let Some(terms) = self.terms.get(&remote).filter(|terms| **terms != Terms::default()) else { return Ok(()) };
        terms.judge(sockopt::saved_syn(&accepted).map_err(|error| error.to_string())?)?;
        terms.put_on(&accepted, remote).map_err(|error| error.to_string())
    }

    /// A dial of this peer has found no answer, while so many segments were dropped. What that means, where it is news.
    pub(crate) fn unanswered(&mut self, peer: IpAddr, drops: TcpDrops) -> Option<&str> {
        let obstacle = obstacle(self.terms.get(&peer)?, drops);
        let is_news = self.unanswered.get(&peer) != Some(&obstacle);
        let obstacle = self.unanswered.entry(peer).insert_entry(obstacle).into_mut();
        is_news.then_some(obstacle.as_str())
    }

    /// A dial of this peer was answered, be it by a refusal.
    pub(crate) fn answered(&mut self, peer: IpAddr) {
        self.unanswered.remove(&peer);
    }

    /// A connection from the peer's address was closed for this reason. Whether that is news: who sends SYNs from there may
    /// be anybody.
    pub(crate) fn refused(&mut self, peer: IpAddr, why: String) -> bool {
        self.refused.insert(peer, format!("a connection from its address was closed: {why}")).is_none()
    }

    /// The session with the peer is up; the kernel has dropped so much before.
    pub(crate) fn established(&mut self, peer: IpAddr, dropped: TcpDrops) {
        self.unanswered.remove(&peer);
        self.refused.remove(&peer);
        self.dropped_before.insert(peer, dropped);
    }

    /// What was dropped since the session with this peer came up, where something is asked of its connection.
    pub(crate) fn dropped_since_up(&self, peer: IpAddr, now: TcpDrops) -> Option<TcpDrops> {
        let is_protected = self.terms.get(&peer).is_some_and(|terms| *terms != Terms::default());
        self.dropped_before.get(&peer).filter(|_| is_protected).map(|before| now.since(*before))
    }

    /// Adds what is known here to what is told of a peer who does not answer while so much was dropped: neither a dial that
    /// is under way nor, where the session is up, what is sent to it again and again.
    pub(crate) fn describe(&self, mut status: PeerStatus, dropped: Option<TcpDrops>) -> PeerStatus {
        let terms = self.terms.get(&status.address);
        status.has_password = terms.is_some_and(|terms| terms.password.is_some());
        status.least_ttl = terms.and_then(|terms| terms.ttl_security).map(Hops::least_ttl);
        if status.state == SessionState::Established {
            let counted = dropped.filter(|drops| *drops != TcpDrops::default());
            status.obstacle = terms.zip(counted).map(|(terms, drops)| obstacle(terms, drops));
        } else {
            let now = terms.zip(dropped).map(|(terms, drops)| (obstacle(terms, drops), drops != TcpDrops::default()));
            let unanswered = match (now, self.unanswered.get(&status.address)) {
                (Some((now, true)), _) | (Some((now, false)), None) => Some(now),
                (_, before) => before.cloned(),
            };
            let obstacles = [self.refused.get(&status.address).cloned(), unanswered];
            status.obstacle = obstacles.into_iter().flatten().reduce(|first, second| format!("{first}; {second}"));
        }
        status
    }

    /// The peers that have no session, and why.
    pub(crate) fn withheld(&self) -> impl Iterator<Item = (&PeerConfig, &str)> {
        self.withheld.values().map(|(peer, why)| (peer, why.as_str()))
    }
}

/// What is asked of connections with this peer; the error says why there can be none.
fn terms(peer: &PeerConfig, passwords: &Passwords) -> Result<Terms, String> {
    let ttl_security = peer.security.ttl_security;
    let Some(source) = &peer.security.password else { return Ok(Terms { password: None, ttl_security }) };
    let known =
        passwords.get(source).ok_or_else(|| format!("no session without its password: {source} is not known yet"))?;
    let why = || known.problem.as_deref().unwrap_or("is not known");
    let password =
        known.password.clone().ok_or_else(|| format!("no session without its password: {source}: {}", why()))?;
    Ok(Terms { password: Some(password), ttl_security })
}

/// Why a key is not on the listening sockets.
fn refused(error: &io::Error) -> String {
    let hint = if error.kind() == io::ErrorKind::OutOfMemory {
        " (a socket has as many keys as net.core.optmem_max has room for)"
    } else {
        ""
    };
    format!("no session without its password: the kernel does not take it: {error}{hint}")
}

/// What it means that the peer does not answer, by what the kernel has dropped meanwhile. It counts for all peers together.
fn obstacle(terms: &Terms, drops: TcpDrops) -> String {
    let told = match terms.password {
        Some(_) if drops.wrongly_signed > 0 => {
            "segments come that another password was used for (TCPMD5Failure): the peer seems to have another one"
        }
        Some(_) if drops.unsigned > 0 => {
            "segments come without a password (TCPMD5NotFound): the peer seems to have none"
        }
        None if drops.unexpectedly_signed > 0 => {
            "segments come with a password (TCPMD5Unexpected): the peer seems to have one, this session has none"
        }
        _ if terms.ttl_security.is_some() && drops.low_ttl > 0 => {
            "segments come with too low a TTL (TCPMinTTLDrop): the peer seems to be farther away than ttlSecurity says, or \
             sends with a TTL below 255"
        }
        Some(_) => "it may have another password or none, or a filter may be between",
        None => "it may ask for a password, or a filter may be between",
    };
    format!("the peer does not answer: {told}")
}

#[cfg(test)]
mod tests;
