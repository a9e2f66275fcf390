//! What two speakers have agreed on: a pure function of the configuration and the peer's OPEN.

use std::time::Duration;

use types::{Asn, RouterId};

use super::config::SessionConfig;
use super::down::DownReason;
use crate::wire::{Codec, Families, HoldTime, Open, PeerType};

/// The terms of an established session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's identifier.
    pub router_id: RouterId,
    /// The peer's AS number.
    pub asn: Asn,
    /// Whether it is ours.
    pub peer_type: PeerType,
    /// The families that both take: at least one.
    pub families: Families,
    /// AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// The smaller of the two proposals.
    pub hold_time: HoldTime,
    /// The peer answers ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// The peer's terms of graceful restart; `None` where either side has none (RFC 4724).
    pub graceful_restart: Option<PeerRestart>,
}

/// The peer's terms of graceful restart, of the families that were agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRestart {
    /// R: the peer has just restarted.
    pub restarting: bool,
    /// How long its routes are kept after its connection ended.
    pub time: Duration,
    /// The families whose routes are kept; none when the peer only helps others restart.
    pub families: Families,
    /// F: the families whose forwarding outlived the restart that just happened. Routes of others are not kept on.
    pub forwarding: Families,
}

impl Negotiated {
    /// The terms that follow from the peer's OPEN; an error is the peer's fault, or the configuration's.
    pub fn new(config: &SessionConfig, open: &Open) -> Result<Self, DownReason> {
        if open.asn != config.peer_asn {
            return Err(DownReason::BadPeerAs { expected: config.peer_asn, got: open.asn });
        }
        // Between ASes, equal identifiers are allowed (RFC 6286 section 2.2).
        if open.router_id == config.router_id && config.peer_type() == PeerType::Internal {
            return Err(DownReason::BadIdentifier(open.router_id));
        }
        let families = config.families.common(open.families());
        if families.is_empty() {
            return Err(DownReason::NoCommonFamily(config.families));
        }
        let terms = open.graceful_restart().filter(|_| config.graceful_restart.is_some());
        Ok(Self {
            router_id: open.router_id,
            asn: open.asn,
            peer_type: config.peer_type(),
            families,
            four_octet_as: open.four_octet_as(),
            hold_time: config.hold_time.agreed(open.hold_time),
            route_refresh: open.route_refresh(),
            graceful_restart: terms.map(|terms| PeerRestart {
                restarting: terms.restarting,
                time: terms.time,
                families: terms.families().common(families),
                forwarding: terms.forwarding().common(families),
            }),
        })
    }

    /// How octets of this session are read and written.
    pub const fn codec(&self) -> Codec {
        Codec { four_octet_as: self.four_octet_as, peer_type: self.peer_type, families: self.families }
    }
}
