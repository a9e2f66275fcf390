//! Peers come, go and change while the speaker runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::ClusterId;

use super::event::{Action, PeerEvent};
use super::peer::Peer;
use super::{PeerConfig, Speaker};
use crate::rib::PeerIndex;
use crate::session::{Input as SessionInput, Session, StopReason};

impl Speaker {
    /// Makes the peers these and no others.
    pub(super) fn configure(&mut self, peers: Vec<PeerConfig>, cluster_id: Option<ClusterId>) {
        let wanted: BTreeMap<IpAddr, PeerConfig> = peers.into_iter().map(|peer| (peer.address, peer)).collect();
        let gone: Vec<_> = self.by_address.keys().filter(|address| !wanted.contains_key(address)).copied().collect();
        for address in gone {
            self.remove(address, StopReason::PeerDeConfigured);
        }
        self.set_reflector(&wanted, cluster_id);
        for (address, config) in wanted {
            let Some(index) = self.by_address.get(&address).copied() else {
                self.add(config);
                continue;
            };
            match self.peer_mut(index) {
                Some(peer) if !config.needs_new_session(&peer.config) => self.adjust(index, config),
                _ => {
                    self.remove(address, StopReason::ConfigurationChange);
                    self.add(config);
                }
            }
        }
        self.restart.configured();
    }

    /// Becomes a reflector, or ceases to be one. What internal peers were told under a former cluster cannot be taken back
    /// one by one, so their sessions begin anew; becoming a reflector only adds to what they are told.
    fn set_reflector(&mut self, wanted: &BTreeMap<IpAddr, PeerConfig>, cluster_id: Option<ClusterId>) {
        let has_clients = wanted.values().any(|peer| peer.is_internal() && peer.route_reflector_client);
        let own = ClusterId(self.config.router_id.addr());
        let reflector = cluster_id.or_else(|| has_clients.then_some(own));
        let former = std::mem::replace(&mut self.reflector, reflector);
        if former == reflector {
            return;
        }
        if former.is_none() {
            self.regroup_internal();
            return;
        }
        let internal: Vec<_> = self
            .by_address
            .iter()
            .filter(|(_, index)| self.peer(**index).is_some_and(|peer| peer.config.is_internal()))
            .map(|(address, _)| *address)
            .collect();
        for address in internal {
            self.remove(address, StopReason::ConfigurationChange);
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
        let restart_time = config.restart_time.unwrap_or(self.config.restart_time);
        let seed = (u64::from(self.config.router_id.number()) << 16) | u64::from(index.0);
        let session = Session::new(config.session(&self.config, self.terms(restart_time, families), seed));
        let peer = Some(Peer::new(config, session));
        match self.peers.get_mut(free) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        self.by_address.insert(address, index);
        self.rib.add_peer(index, address);
        self.restart.expect(address, families, self.start + restart_time);
        self.session_input(index, SessionInput::Start);
    }

    fn remove(&mut self, address: IpAddr, reason: StopReason) {
        let Some(index) = self.by_address.get(&address).copied() else { return };
        self.session_input(index, SessionInput::Stop(reason));
        self.rib.remove_peer(index);
        self.settle();
        self.restart.forget(address);
        self.by_address.remove(&address);
        self.connections.retain(|_, connection| connection.peer != index);
        if let Some(peer) = self.peers.get_mut(usize::from(index.0)).and_then(Option::take)
            && let Some(armed) = peer.armed
        {
            self.timers.remove(&(armed, index));
        }
    }

    /// Takes over what needs no new session.
    fn adjust(&mut self, index: PeerIndex, config: PeerConfig) {
        let restart_time = config.restart_time.unwrap_or(self.config.restart_time);
        let terms = self.terms(restart_time, config.agreeable(&self.config));
        if let Some(peer) = self.peer_mut(index) {
            peer.session.set_graceful_restart(terms);
            peer.config = config;
        }
        self.limit_prefixes(index);
    }

    /// Tells all sessions our terms of graceful restart anew.
    pub(super) fn renew_terms(&mut self) {
        for index in self.by_address.values().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peer(index) else { continue };
            let families = peer.config.agreeable(&self.config);
            let terms = self.terms(self.patience(index), families);
            if let Some(peer) = self.peer_mut(index) {
                peer.session.set_graceful_restart(terms);
            }
        }
    }
}
