//! Why a session ended or did not come up.

use std::time::Duration;

use types::{Asn, RouterId, SessionState};

use super::config::StopReason;
use crate::wire::{AfiSafi, Cease, DecodeError, ErrorCode, Families, FsmError, MessageType, Notification, OpenError};

/// Why an established session went down, or why an attempt to establish one failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The transport ended without a NOTIFICATION: the peer was killed, or the path failed.
    #[error("connection lost")]
    ConnectionLost,
    /// The peer has opened another connection: it has restarted (RFC 4724 section 4.2).
    #[error("peer restarted: it opened a new connection")]
    PeerRestarted,
    /// The peer cannot be dialled.
    #[error("cannot connect: {0}")]
    ConnectFailed(String),
    /// The peer ended it.
    #[error("peer sent NOTIFICATION: {0}")]
    NotificationReceived(Notification),
    /// Nothing was heard for this long.
    #[error("hold timer expired: nothing heard for {} s", .0.as_secs())]
    HoldTimerExpired(Duration),
    /// The peer sent what RFC 4271 section 6 does not forgive.
    #[error("peer sent a malformed message: {0}")]
    Malformed(DecodeError),
    /// The peer sent a message that the state does not expect.
    #[error("peer sent {message} in state {state}")]
    Unexpected {
        /// The message.
        message: MessageType,
        /// The state.
        state: SessionState,
    },
    /// The peer says that it is another AS than configured.
    #[error("peer says that it is AS {got}, configured is AS {expected}")]
    BadPeerAs {
        /// The configured one.
        expected: Asn,
        /// The one in its OPEN.
        got: Asn,
    },
    /// The peer has our own identifier (RFC 6286 section 2.2).
    #[error("peer has our own router id {0}")]
    BadIdentifier(RouterId),
    /// The peer takes no family that is configured.
    #[error("peer takes none of the configured address families")]
    NoCommonFamily(Families),
    /// Another connection of the two speakers stays (RFC 4271 section 6.8).
    #[error("another connection with the peer stays")]
    Collision,
    /// Our own decision.
    #[error("{0}")]
    Stopped(StopReason),
}

impl DownReason {
    /// What the peer is told; `None` when it is gone, or has said the last word itself.
    pub fn notification(&self) -> Option<Notification> {
        let plain = |error| Some(Notification::new(error));
        match self {
            Self::ConnectionLost | Self::PeerRestarted | Self::ConnectFailed(_) | Self::NotificationReceived(_) => None,
            Self::HoldTimerExpired(_) => plain(ErrorCode::HoldTimerExpired),
            Self::Malformed(error) => Some(error.notification.clone()),
            Self::Unexpected { state, .. } => plain(ErrorCode::Fsm(match state {
                SessionState::OpenSent => FsmError::InOpenSent,
                SessionState::OpenConfirm => FsmError::InOpenConfirm,
                SessionState::Established => FsmError::InEstablished,
                SessionState::Idle | SessionState::Connect | SessionState::Active => FsmError::Unspecific,
            })),
            Self::BadPeerAs { .. } => plain(ErrorCode::Open(OpenError::BadPeerAs)),
            Self::BadIdentifier(_) => plain(ErrorCode::Open(OpenError::BadIdentifier)),
            Self::NoCommonFamily(wanted) => {
                // The capabilities that are missed, as they would stand in an OPEN (RFC 5492 section 5).
                let mut data = Vec::new();
                for AfiSafi { afi, safi } in wanted.iter().map(AfiSafi::unicast) {
                    let [high, low] = afi.to_be_bytes();
                    data.extend([1, 4, high, low, 0, safi]);
                }
                Some(Notification::with_data(ErrorCode::Open(OpenError::UnsupportedCapability), data))
            }
            Self::Collision => plain(ErrorCode::Cease(Cease::CollisionResolution)),
            Self::Stopped(reason) => Some(reason.notification()),
        }
    }

    /// Whether a peer that restarts gracefully may come back to find its routes kept: only when its connection just ended,
    /// not after a NOTIFICATION in either direction (RFC 4724 section 4.2).
    pub const fn retains_routes(&self) -> bool {
        matches!(self, Self::ConnectionLost | Self::PeerRestarted)
    }
}
