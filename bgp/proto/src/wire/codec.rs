//! Messages, and the context that decoding and encoding need: what the two sides have agreed on.

use bytes::Bytes;

use super::family::Families;
use super::fault::DecodeError;
use super::header::{self, HEADER_LENGTH, MessageType};
use super::notification::{ErrorCode, HeaderError, Notification};
use super::open::Open;
use super::route_refresh::RouteRefresh;
use super::update::Update;

/// A message (RFC 4271 section 4, RFC 2918).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Begins a session.
    Open(Open),
    /// Announces and withdraws routes.
    Update(Update),
    /// Ends a session.
    Notification(Notification),
    /// Accepts an OPEN, and shows life.
    Keepalive,
    /// Asks for routes again.
    RouteRefresh(RouteRefresh),
}

/// Whether a peer is in our AS (RFC 4271 section 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerType {
    /// It is: iBGP.
    Internal,
    /// It is not: eBGP.
    External,
}

/// What two speakers have agreed on as far as it concerns octets. Sessions with equal codecs understand the same octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Codec {
    /// AS numbers in AS_PATH and AGGREGATOR have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Which attributes are accepted and sent.
    pub peer_type: PeerType,
    /// The families whose routes are read; those of others are ignored (RFC 4760 section 8).
    pub families: Families,
}

/// A KEEPALIVE.
pub fn keepalive() -> Bytes {
    header::finish(header::begin(MessageType::Keepalive))
}

impl Message {
    /// Its type.
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::Open(_) => MessageType::Open,
            Self::Update(_) => MessageType::Update,
            Self::Notification(_) => MessageType::Notification,
            Self::Keepalive => MessageType::Keepalive,
            Self::RouteRefresh(_) => MessageType::RouteRefresh,
        }
    }
}

impl Codec {
    /// What is understood before an OPEN was received: messages without routes.
    pub const fn before_open(peer_type: PeerType) -> Self {
        Self { four_octet_as: true, peer_type, families: Families::NONE }
    }

    /// The one message that the octets are. An error is the peer's fault and ends the session.
    pub fn decode(&self, octets: &[u8]) -> Result<Message, DecodeError> {
        let bad_length = || {
            let length = octets.get(16..18).unwrap_or_default();
            DecodeError::new(ErrorCode::Header(HeaderError::BadLength), 16, length)
        };
        let (kind, length) = header::parse(octets)?.ok_or_else(bad_length)?;
        if length != octets.len() {
            return Err(bad_length());
        }
        let body = octets.get(HEADER_LENGTH..).unwrap_or_default();
        Ok(match kind {
            MessageType::Open => Message::Open(Open::parse(body)?),
            MessageType::Update => Message::Update(Update::parse(self, body)?),
            MessageType::Notification => Message::Notification(Notification::parse(body)),
            MessageType::Keepalive => Message::Keepalive,
            MessageType::RouteRefresh => Message::RouteRefresh(RouteRefresh::parse(body)?),
        })
    }
}
