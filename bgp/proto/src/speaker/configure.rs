//! Peers come, go and change while the speaker runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::ClusterId;

use super::event::{Action, PeerEvent};
use super::peer::Peer;
use super::{Identity, PeerConfig, Speaker};
use crate::rib::PeerIndex;
use crate::session::{Input as SessionInput, Session, StopReason};

impl Speaker {
    /// From now on the speaker is `identity` and has these peers and no others.
    pub(super) fn configure(&mut self, identity: Identity, peers: Vec<PeerConfig>, cluster_id: Option<ClusterId>) {
        let mut wanted: BTreeMap<IpAddr, PeerConfig> = peers.into_iter().map(|peer| (peer.address, peer)).collect();
        let earlier = std::mem::replace(&mut self.config.identity, identity);
        let reflector = self.reflector_among(&wanted, cluster_id);
        let former = self.reflector;
        // What internal peers were told under a former cluster cannot be taken back one by one, so their sessions begin
        // anew; becoming a reflector only adds to what they are told.
        let renounces = former.is_some() && former != reflector;
        self.retain_peers(|peer| match wanted.get(&peer.address) {
            None => Some(StopReason::PeerDeConfigured),
            Some(config) if config.needs_new_session(peer) => Some(StopReason::ConfigurationChange),
            Some(_) if peer.depends_on(&earlier, &identity) => Some(StopReason::ConfigurationChange),
            Some(_) if renounces && peer.is_internal() => Some(StopReason::ConfigurationChange),
            Some(_) => None,
        });
        self.reflector = reflector;
        for (address, index) in self.by_address.clone() {
            if let Some(config) = wanted.remove(&address) {
                self.adjust(index, config);
            }
        }
        if former.is_none() && reflector.is_some() {
            self.regroup_internal();
        }
        for config in wanted.into_values() {
            self.add(config);
        }
        self.restart.configured();
    }

    /// Our cluster, where one is configured or some peer is a client.
    fn reflector_among(
        &self,
        peers: &BTreeMap<IpAddr, PeerConfig>,
        cluster_id: Option<ClusterId>,
    ) -> Option<ClusterId> {
        let has_clients = peers.values().any(|peer| peer.is_internal() && peer.route_reflector_client);
        cluster_id.or_else(|| has_clients.then(|| ClusterId(self.config.identity.router_id.addr())))
    }

    /// Ends the sessions of peers for which there is a reason, and forgets those peers. Their routes go in one pass.
    fn retain_peers(&mut self, mut reason: impl FnMut(&PeerConfig) -> Option<StopReason>) {
        let mut gone = Vec::new();
        for (address, index) in self.by_address.clone() {
            if let Some(reason) = self.peer(index).and_then(|peer| reason(&peer.config)) {
                self.session_input(index, SessionInput::Stop(reason));
                self.rib.doom_peer(index);
                gone.push((address, index));
            }
        }
        // Nothing may remember a peer whose place is given to another.
        self.settle();
        for (address, index) in gone {
            self.rib.remove_peer(index);
            self.restart.forget(address);
            self.by_address.remove(&address);
            self.connections.retain(|_, connection| connection.peer != index);
            if let Some(peer) = self.peers.get_mut(usize::from(index.0)).and_then(Option::take)
                && let Some(armed) = peer.armed
            {
                self.timers.remove(&(armed, index));
            }
        }
    }

    fn add(&mut self, config: PeerConfig) {
        let free = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
        let address = config.address;
        let Some(index) = u16::try_from(free).ok().map(PeerIndex).filter(|index| *index != PeerIndex::LOCAL) else {
            self.actions.push_back(Action::Event { peer: address, event: PeerEvent::TooManyPeers });
            return;
        };
        let families = config.agreeable(&self.config);
        let restart_time = config.graceful_restart.unwrap_or(self.config.restart_time);
        let seed = (u64::from(self.config.identity.router_id.number()) << 16) | u64::from(index.0);
        let session = Session::new(config.session(&self.config, self.terms(restart_time, families), seed));
        let peer = Some(Peer::new(config, session));
        match self.peers.get_mut(free) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        self.by_address.insert(address, index);
        self.rib.add_peer(index, address);
        self.set_intake(index);
        self.restart.expect(address, families, self.start + restart_time);
        self.session_input(index, SessionInput::Start);
    }

    /// Takes over what needs no new session.
    fn adjust(&mut self, index: PeerIndex, config: PeerConfig) {
        let restart_time = config.graceful_restart.unwrap_or(self.config.restart_time);
        let terms = self.terms(restart_time, config.agreeable(&self.config));
        let Some(peer) = self.peer_mut(index) else { return };
        peer.session.set_graceful_restart(terms);
        let former = std::mem::replace(&mut peer.config, config);
        let is_told_more =
            (former.export_all, former.shared_subnet) != (peer.config.export_all, peer.config.shared_subnet);
        let limits = |config: &PeerConfig| (config.max_prefixes, config.max_prefixes_action);
        let resumes = limits(&former) != limits(&peer.config) && peer.resume.take().is_some();
        self.set_intake(index);
        if resumes {
            self.session_input(index, SessionInput::Start);
        } else {
            self.limit_prefixes(index);
        }
        if is_told_more {
            self.regroup(index);
        }
    }

    /// Tells all sessions our terms of graceful restart anew.
    pub(super) fn renew_terms(&mut self) {
        for index in self.by_address.values().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peer(index) else { continue };
            let families = peer.config.agreeable(&self.config);
            let terms = self.terms(self.restart_time_of(index), families);
            if let Some(peer) = self.peer_mut(index) {
                peer.session.set_graceful_restart(terms);
            }
        }
    }
}
