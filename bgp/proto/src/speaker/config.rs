//! What a speaker and its peers are configured with.

use std::net::IpAddr;
use std::time::Duration;

use types::{Asn, Family, Prefix, RouterId, SessionSecurity};

use crate::origin::{PeerImport, PeerRole};
use crate::policy::ImportPolicy;
use crate::rib::{ByFamily, LimitAction};
use crate::wire::{Families, GracefulRestart, HoldTime};

/// Who a speaker is. That can change, and sessions that depend on what has changed begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The BGP Identifier: one for all sessions (RFC 4271 section 4.2).
    pub router_id: RouterId,
    /// This node's address per family: the next hop of its own routes over sessions of the other family, and never the
    /// next hop of a learned one. A family without one is not agreed on with peers of the other.
    pub addresses: ByFamily<Option<IpAddr>>,
}

/// What holds for the life of a speaker, and what it begins with.
#[derive(Debug, Clone)]
pub struct SpeakerConfig {
    /// Who it is, to begin with.
    pub identity: Identity,
    /// How long peers are asked to keep this node's routes while it restarts, and how long this node waits for each of
    /// them after its own start (RFC 4724 section 3); zero for no graceful restart. Peers may have one of their own.
    pub restart_time: Duration,
    /// The families whose routes the kernel has kept since this speaker's last life; none after a boot. With one at least,
    /// this is a restart in the sense of RFC 4724 section 4.1: deletions wait for the peers, and nobody is told that all
    /// has been sent before the first [`super::Input::Originate`].
    pub preserved: Families,
    /// Which learned prefixes are used, to begin with.
    pub import: ImportPolicy,
}

/// One peer. Peers are told apart by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it is.
    pub address: IpAddr,
    /// Its port, to be dialled.
    pub port: u16,
    /// Its AS number. The session is internal if it is `local_asn`.
    pub asn: Asn,
    /// Our AS number towards it.
    pub local_asn: Asn,
    /// The address to dial from; the kernel's choice without one.
    pub local_address: Option<IpAddr>,
    /// The peer dials us at `local_address` and nowhere else: it is a node, which knows no other address of ours. What comes
    /// from its address to another one of ours is not its speaker's, but was masqueraded there.
    pub dials_local_address: bool,
    /// The families to be agreed on.
    pub families: Families,
    /// Our proposal (RFC 4271 section 4.2): 3 to 65,535 s, zero for none.
    pub hold_time: Duration,
    /// The ConnectRetryTimer's first interval.
    pub connect_retry: Duration,
    /// Only the peer dials.
    pub passive: bool,
    /// The peer is a client of ours (RFC 4456); for internal peers.
    pub route_reflector_client: bool,
    /// The peer is told of other nodes' prefixes as well, if pools cover them; for external peers.
    pub export_all: bool,
    /// The subnet that we share with the peer: a next hop on it is not replaced by ours (RFC 4271 section 5.1.3); for
    /// external peers.
    pub shared_subnet: Option<Prefix>,
    /// What the peer is to the cluster, and what follows from routes whose origin does not check.
    pub import: PeerImport,
    /// How many prefixes of a family the peer may have in use; without a number, what follows from what it is and from how
    /// many blocks there are.
    pub max_prefixes: Option<u32>,
    /// What becomes of more.
    pub max_prefixes_action: LimitAction,
    /// A restart time for this peer in place of the speaker's ([`SpeakerConfig::restart_time`]).
    pub graceful_restart: Option<Duration>,
    /// What is asked of the transport. Whoever makes connections sees to it; the speaker only carries it.
    pub security: SessionSecurity,
    /// Where the peer comes from, for people: `mesh`, or the name of a resource.
    pub description: String,
}

impl PeerConfig {
    /// A peer with the defaults of the field: port 179, the family of its address, 90 s hold time, as many routes as it has.
    pub const fn new(address: IpAddr, asn: Asn, local_asn: Asn) -> Self {
        let family = match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        };
        let is_internal = asn.number() == local_asn.number();
        Self {
            address,
            port: 179,
            asn,
            local_asn,
            local_address: None,
            dials_local_address: false,
            families: Families::only(family),
            hold_time: Duration::from_secs(90),
            connect_retry: Duration::from_secs(5),
            passive: false,
            route_reflector_client: false,
            export_all: false,
            shared_subnet: None,
            import: PeerImport::new(if is_internal { PeerRole::Reflector } else { PeerRole::Fabric }),
            max_prefixes: Some(u32::MAX),
            max_prefixes_action: LimitAction::Refuse,
            graceful_restart: None,
            security: SessionSecurity { password: None, ttl_security: None },
            description: String::new(),
        }
    }

    /// Whether the peer dials us at this address.
    pub(super) fn dials(&self, local: IpAddr) -> bool {
        !self.dials_local_address || self.local_address.is_none_or(|own| own == local)
    }

    /// Whether the session is internal.
    pub fn is_internal(&self) -> bool {
        self.asn == self.local_asn
    }

    /// Whether a session under the old terms has to end for these to hold.
    ///
    /// It has to where the peer was told more than it is to be told now, as what it was told is not remembered route by
    /// route. More can be told at any time.
    pub(super) fn needs_new_session(&self, old: &Self) -> bool {
        let alike = Self {
            dials_local_address: self.dials_local_address,
            export_all: self.export_all || old.export_all,
            shared_subnet: self.shared_subnet,
            description: self.description.clone(),
            import: self.import.clone(),
            max_prefixes: self.max_prefixes,
            max_prefixes_action: self.max_prefixes_action,
            graceful_restart: self.graceful_restart,
            security: self.security.clone(),
            ..old.clone()
        };
        *self != alike
    }

    /// What the session is told of it.
    pub(super) fn session(
        &self,
        speaker: &SpeakerConfig,
        graceful_restart: Option<GracefulRestart>,
        seed: u64,
    ) -> crate::session::SessionConfig {
        crate::session::SessionConfig {
            router_id: speaker.identity.router_id,
            local_asn: self.local_asn,
            peer_asn: self.asn,
            families: self.agreeable(speaker),
            hold_time: HoldTime::clamped(self.hold_time),
            connect_retry: self.connect_retry,
            passive: self.passive,
            graceful_restart,
            seed,
        }
    }

    /// The families that we can be a next hop in.
    pub(super) fn agreeable(&self, speaker: &SpeakerConfig) -> Families {
        let has_next_hop = |family| speaker.identity.addresses.of(family).is_some();
        self.families.iter().filter(|family| !self.is_foreign(*family) || has_next_hop(*family)).collect()
    }

    /// Whether a session with this peer depends on what has changed between these two.
    pub(super) fn depends_on(&self, old: &Identity, new: &Identity) -> bool {
        let is_told = |family| self.is_foreign(family) && old.addresses.of(family) != new.addresses.of(family);
        old.router_id != new.router_id || self.families.iter().any(is_told)
    }

    /// Whether a next hop of this family is not our end of the session.
    fn is_foreign(&self, family: Family) -> bool {
        family != Family::of(self.address)
    }
}
