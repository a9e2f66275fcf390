//! What the tables know of the peers that routes come from.

use std::net::IpAddr;

use types::{Family, Prefix, RouterId};

use super::adj_in::{Admission, Generation, Path, PeerIndex};
use super::attrs::AttributeSets;
use super::by_family::ByFamily;
use super::decision::{Candidate, Excluded, Source};
use super::intake::{Intake, RefusedSample};
use super::loc::Peers;
use crate::policy::DEFAULT_LOCAL_PREF;

/// The routes of one peer and family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// All that the peer offers and that are kept.
    pub received: u32,
    /// Those among them that are refused.
    pub refused: u32,
    /// Those among them that are kept while the peer restarts (RFC 4724).
    pub stale: u32,
}

/// The peers, by their places.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Option<Peer>>);

/// A peer, as far as its routes depend on it.
#[derive(Debug)]
struct Peer {
    address: IpAddr,
    /// The BGP Identifier of its last OPEN, which stays while the peer restarts.
    router_id: Option<RouterId>,
    /// The generation of the routes that come now.
    generation: ByFamily<Generation>,
    /// How many routes it offers.
    counts: ByFamily<RouteCounts>,
    /// What of its routes is refused.
    intake: Intake,
}

impl Sources {
    pub(super) fn add(&mut self, peer: PeerIndex, address: IpAddr) {
        let place = usize::from(peer.0);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.0.get_mut(place) {
            let (generation, counts) = (ByFamily::default(), ByFamily::default());
            *slot = Some(Peer { address, router_id: None, generation, counts, intake: Intake::default() });
        }
    }

    pub(super) fn remove(&mut self, peer: PeerIndex) {
        if let Some(slot) = self.0.get_mut(usize::from(peer.0)) {
            *slot = None;
        }
    }

    /// Takes the identifier over, and returns whether it is another one than before.
    pub(super) fn set_router_id(&mut self, peer: PeerIndex, router_id: RouterId) -> bool {
        self.peer_mut(peer).is_some_and(|peer| peer.router_id.replace(router_id) != Some(router_id))
    }

    pub(super) fn router_id(&self, peer: PeerIndex) -> Option<RouterId> {
        self.peer(peer)?.router_id
    }

    pub(super) fn address(&self, peer: PeerIndex) -> Option<IpAddr> {
        Some(self.peer(peer)?.address)
    }

    pub(super) fn generation(&self, peer: PeerIndex, family: Family) -> Generation {
        self.peer(peer).map_or_else(Generation::default, |peer| *peer.generation.of(family))
    }

    pub(super) fn begin_generation(&mut self, peer: PeerIndex, family: Family) {
        if let Some(peer) = self.peer_mut(peer) {
            let generation = peer.generation.of_mut(family);
            *generation = generation.next();
            let counts = peer.counts.of_mut(family);
            counts.stale = counts.received;
        }
    }

    pub(super) fn counts(&self, peer: PeerIndex, family: Family) -> RouteCounts {
        self.peer(peer).map_or_else(RouteCounts::default, |peer| *peer.counts.of(family))
    }

    /// A path of the current generation came into the table.
    pub(super) fn added(&mut self, path: &Path, family: Family) {
        if let Some(peer) = self.peer_mut(path.peer) {
            let counts = peer.counts.of_mut(family);
            counts.received += 1;
            if let Some(refusal) = path.admission().refusal {
                counts.refused += 1;
                peer.intake.keep(family, refusal);
            }
        }
    }

    /// A path went out of the table.
    pub(super) fn removed(&mut self, path: &Path, family: Family) {
        if let Some(peer) = self.peer_mut(path.peer) {
            let stale = path.generation() != *peer.generation.of(family);
            let counts = peer.counts.of_mut(family);
            counts.received = counts.received.saturating_sub(1);
            if let Some(refusal) = path.admission().refusal {
                counts.refused = counts.refused.saturating_sub(1);
                peer.intake.let_go(family, refusal);
            }
            counts.stale = counts.stale.saturating_sub(u32::from(stale));
        }
    }

    /// A path is judged otherwise than before; it bears the new judgement.
    pub(super) fn judged(&mut self, prefix: &Prefix, path: &Path, before: Admission, next_hop: Option<IpAddr>) {
        let family = prefix.family();
        let Some(peer) = self.peer_mut(path.peer) else { return };
        let refused = &mut peer.counts.of_mut(family).refused;
        if let Some(refusal) = before.refusal {
            *refused = refused.saturating_sub(1);
            peer.intake.let_go(family, refusal);
        }
        match path.admission().refusal {
            Some(refusal) => {
                *refused += 1;
                peer.intake.keep(family, refusal);
                peer.intake.note(*prefix, RefusedSample { refusal, next_hop, used: false });
            }
            None => peer.intake.forget(prefix),
        }
    }

    /// What of a peer's routes is refused.
    pub(super) fn intake(&self, peer: PeerIndex) -> Option<&Intake> {
        Some(&self.peer(peer)?.intake)
    }

    pub(super) fn intake_mut(&mut self, peer: PeerIndex) -> Option<&mut Intake> {
        Some(&mut self.peer_mut(peer)?.intake)
    }

    /// Of all peers.
    pub(super) fn intakes(&self) -> impl Iterator<Item = (PeerIndex, &Intake)> {
        let known =
            self.0.iter().enumerate().filter_map(|(place, peer)| Some((u16::try_from(place).ok()?, peer.as_ref()?)));
        known.map(|(place, peer)| (PeerIndex(place), &peer.intake))
    }

    fn peer(&self, peer: PeerIndex) -> Option<&Peer> {
        self.0.get(usize::from(peer.0))?.as_ref()
    }

    fn peer_mut(&mut self, peer: PeerIndex) -> Option<&mut Peer> {
        self.0.get_mut(usize::from(peer.0))?.as_mut()
    }
}

impl Peers for Sources {
    fn candidate(&self, path: &Path, attributes: &AttributeSets) -> Candidate {
        let metric = attributes.igp_metric(path.attrs);
        let Admission { refusal, doubted } = path.admission();
        let excluded = match (path.source, refusal, metric) {
            (Source::Local, _, _) | (_, None, Some(_)) => None,
            (_, Some(refusal), _) => Some(Excluded::Refused(refusal)),
            (_, None, None) => Some(Excluded::NextHopUnreachable),
        };
        let peer = self.peer(path.peer);
        let route = attributes.value(path.attrs).map(|route| &route.path);
        let router_id = route.and_then(|route| route.originator_id).or_else(|| peer?.router_id);
        Candidate {
            source: path.source,
            excluded,
            doubted,
            local_pref: route.and_then(|route| route.local_pref).unwrap_or(DEFAULT_LOCAL_PREF),
            as_path_length: route.map_or(0, |route| u32::try_from(route.as_path.length()).unwrap_or(u32::MAX)),
            origin: route.map_or(0, |route| route.origin as u8),
            med: route.and_then(|route| route.med).unwrap_or(0),
            neighbour_as: route.and_then(|route| route.as_path.first()).map(types::Asn::number),
            igp_metric: metric.unwrap_or(u32::MAX),
            originator: router_id.map_or(0, RouterId::number),
            cluster_list_length: route.map_or(0, |route| u32::try_from(route.cluster_list.len()).unwrap_or(u32::MAX)),
            peer: peer.map(|peer| peer.address),
        }
    }
}
