//! What sessions want done, and what it means for the tables.

use std::net::SocketAddr;
use std::time::Duration;

use types::{ClusterId, Family};

use super::event::{Action, PeerEvent};
use super::peer::Connection;
use super::{Identity, Speaker};
use crate::policy::{Audience, ExportPolicy, Receiver, SharedSubnet};
use crate::rib::{Extent, PeerIndex, RouteAttributes};
use crate::session::{self, ConnId, DownReason, Negotiated, Output};
use crate::wire::{Families, GracefulRestart, Update};

impl Speaker {
    /// Gives a session its input and does what it wants done.
    pub(super) fn session_input(&mut self, index: PeerIndex, input: session::Input) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(usize::from(index.0)).and_then(Option::as_mut) else { return };
        peer.session.handle(input, now, &mut self.outputs);
        self.drain_outputs(index);
        self.arm(index);
    }

    /// Does what the session wants done.
    pub(super) fn drain_outputs(&mut self, index: PeerIndex) {
        while let Some(output) = self.outputs.pop() {
            self.session_output(index, output);
        }
    }

    fn session_output(&mut self, index: PeerIndex, output: Output) {
        match output {
            Output::Connect(conn) => {
                let Some(peer) = self.peer(index) else { return };
                let remote = SocketAddr::new(peer.config.address, peer.config.port);
                let local = peer.config.local_address;
                self.connections.insert(conn, Connection::new(index, None));
                self.actions.push_back(Action::Connect { conn, remote, local });
            }
            Output::Close(conn) => {
                let last_words = self.connections.remove(&conn).map_or_else(Vec::new, |connection| connection.control);
                self.actions.push_back(Action::Close { conn, last_words });
            }
            Output::Send(conn, message) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.control.push(message);
                }
                self.wake(conn);
            }
            Output::Probe(conn) => self.actions.push_back(Action::Probe { conn }),
            Output::Refused(count) => self.event(index, PeerEvent::SecondRefused(count)),
            Output::Established(conn, negotiated) => self.established(index, conn, &negotiated),
            Output::Down(reason) => self.down(index, reason),
            Output::AttemptFailed(reason) => self.event(index, PeerEvent::AttemptFailed(reason)),
            Output::Update(update) => self.update(index, update),
            Output::Refresh(family) => self.refresh(index, family),
        }
    }

    fn established(&mut self, index: PeerIndex, conn: ConnId, negotiated: &Negotiated) {
        let now = self.now;
        let restart_time = self.restart_time_of(index);
        // What a former session left must not take new routes along.
        self.rib.sweep();
        let Some(peer) = self.peer_mut(index) else { return };
        let address = peer.config.address;
        let offer = negotiated.graceful_restart.as_ref();
        peer.offer = offer.cloned();
        let gone = peer.retention.established(offer, restart_time, now);
        for family in gone.iter() {
            self.rib.doom(index, family, Extent::Stale);
        }
        self.rib.sweep();
        self.rib.set_router_id(index, negotiated.router_id);
        self.restart.established(address, negotiated.families, offer, restart_time, now);
        for family in negotiated.families.iter() {
            self.join(index, conn, family, negotiated, true);
        }
        self.wake(conn);
        self.event(index, PeerEvent::Established(negotiated.families));
    }

    /// Puts a peer into the update group of a family.
    fn join(&mut self, index: PeerIndex, conn: ConnId, family: Family, terms: &Negotiated, owes_end_of_rib: bool) {
        let local = self.connections.get(&conn).and_then(|connection| connection.local);
        let own_next_hop =
            local.filter(|local| Family::of(*local) == family).or_else(|| *self.config.identity.addresses.of(family));
        let (Some(own_next_hop), Some(peer)) = (own_next_hop, self.peer(index)) else { return };
        let audience = if peer.config.is_internal() {
            Audience::Internal { reflector: self.reflector, clients: peer.config.route_reflector_client }
        } else {
            Audience::External {
                remote: peer.config.asn,
                local: peer.config.local_asn,
                transit: peer.config.export_all.then_some(SharedSubnet(peer.config.shared_subnet)),
            }
        };
        let policy = ExportPolicy { family, codec: terms.codec(), audience, own_next_hop };
        let group = self.rib.join(index, policy, owes_end_of_rib);
        if let Some(peer) = self.peer_mut(index) {
            *peer.groups.of_mut(family) = Some(group);
        }
    }

    /// Puts internal peers into the groups that they belong to now that we reflect routes.
    pub(super) fn regroup_internal(&mut self) {
        for place in self.by_address.values().copied().collect::<Vec<_>>() {
            if self.peer(place).is_some_and(|peer| peer.config.is_internal()) {
                self.regroup(place);
            }
        }
    }

    /// Puts a peer into the groups that it belongs to now, and tells it all that they are told.
    pub(super) fn regroup(&mut self, index: PeerIndex) {
        let Some(peer) = self.peer(index) else { return };
        let (Some(conn), Some(terms)) = (peer.session.connection(), peer.session.negotiated().cloned()) else { return };
        for family in terms.families.iter() {
            let group_of = |speaker: &Self| speaker.peer(index).and_then(|peer| *peer.groups.of(family));
            // What it was told and is withdrawn by now is not in the table that it is told anew.
            let untold = group_of(self).map(|group| self.rib.untold(index, group)).unwrap_or_default();
            self.leave(index, family);
            self.join(index, conn, family, &terms, true);
            if let Some(group) = group_of(self) {
                self.rib.miss(index, group, untold);
            }
        }
        self.wake(conn);
    }

    fn leave(&mut self, index: PeerIndex, family: Family) {
        let group = self.peer_mut(index).and_then(|peer| peer.groups.of_mut(family).take());
        if let Some(group) = group {
            self.rib.leave(index, group);
        }
    }

    fn down(&mut self, index: PeerIndex, reason: DownReason) {
        let now = self.now;
        for family in Family::ALL {
            self.leave(index, family);
        }
        let Some(peer) = self.peer_mut(index) else { return };
        let address = peer.config.address;
        let retained = peer.retention.lost(peer.offer.as_ref(), reason.retains_routes(), now);
        for family in Family::ALL {
            if retained.contains(family) {
                self.rib.keep_stale(index, family);
            } else {
                self.rib.doom(index, family, Extent::All);
            }
            // What was refused and not kept is no longer offered.
            self.rib.begin_anew(index, family);
        }
        self.restart.closed(address);
        self.event(index, PeerEvent::Down { reason, retained });
    }

    fn update(&mut self, index: PeerIndex, update: Update) {
        let Some(peer) = self.peer(index) else { return };
        let (source, local_asn) = (peer.source(), peer.config.local_asn);
        let Identity { router_id, addresses } = self.config.identity;
        let receiver = Receiver {
            asn: local_asn,
            router_id,
            cluster_id: self.cluster(),
            addresses: [addresses.ipv4, addresses.ipv6, peer.config.local_address],
        };
        self.rib.withdraw(index, update.withdrawn);
        let mut loops = 0;
        if let Some(path) = update.attributes {
            for reach in update.reach {
                if receiver.detects_loop(&path, reach.next_hop).is_some() {
                    loops += reach.prefixes.len() as u64;
                    self.rib.withdraw(index, reach.prefixes);
                } else {
                    let attributes = RouteAttributes { path: path.clone(), next_hop: Some(reach.next_hop) };
                    self.rib.announce(index, source, attributes, reach.prefixes);
                }
            }
        }
        if let Some(peer) = self.peer_mut(index) {
            peer.loops += loops;
        }
        for fault in update.faults {
            self.event(index, PeerEvent::Fault(fault));
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(index, family);
        }
        self.say_refused(index);
        self.limit_prefixes(index);
    }

    fn end_of_rib(&mut self, index: PeerIndex, family: Family) {
        let Some(peer) = self.peer_mut(index) else { return };
        let address = peer.config.address;
        if peer.retention.end_of_rib(family) {
            self.rib.doom(index, family, Extent::Stale);
        }
        self.restart.end_of_rib(address, family);
        self.event(index, PeerEvent::EndOfRib(family));
    }

    fn refresh(&mut self, index: PeerIndex, family: Family) {
        let Some(peer) = self.peer(index) else { return };
        let conn = peer.session.connection();
        if let Some(group) = *peer.groups.of(family) {
            self.rib.refresh(index, group);
        }
        if let Some(conn) = conn {
            self.wake(conn);
        }
    }

    /// Does what is due for a peer.
    pub(super) fn look_after(&mut self, index: PeerIndex) {
        let now = self.now;
        let Some(peer) = self.peer_mut(index) else { return };
        let expired = peer.retention.expired(now);
        let resumes = peer.resume.take_if(|resume| *resume <= now).is_some();
        for family in expired.iter() {
            self.rib.doom(index, family, Extent::Stale);
            self.event(index, PeerEvent::StaleExpired(family));
        }
        self.request_due(index);
        self.session_input(index, if resumes { session::Input::Start } else { session::Input::Tick });
    }

    /// How long the peer is asked to keep our routes while we restart, and is waited for when it or we have restarted.
    pub(super) fn restart_time_of(&self, index: PeerIndex) -> Duration {
        self.peer(index).and_then(|peer| peer.config.graceful_restart).unwrap_or(self.config.restart_time)
    }

    /// Our terms of graceful restart (RFC 4724 section 3).
    pub(super) fn terms(&self, restart_time: Duration, families: Families) -> Option<GracefulRestart> {
        let under_way = self.restart.is_under_way();
        let forwarding = self.restart.forwarding().common(families);
        (!restart_time.is_zero()).then(|| GracefulRestart::new(under_way, restart_time, families, forwarding))
    }

    /// Our cluster (RFC 4456 section 7).
    pub(super) fn cluster(&self) -> ClusterId {
        self.reflector.unwrap_or_else(|| ClusterId(self.config.identity.router_id.addr()))
    }

    pub(super) fn event(&mut self, index: PeerIndex, event: PeerEvent) {
        if let Some(peer) = self.peer(index) {
            let peer = peer.config.address;
            self.actions.push_back(Action::Event { peer, event });
        }
    }
}
