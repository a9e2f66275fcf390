//! The header that every message begins with (RFC 4271 section 4.1), and how messages are cut out of a stream.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::fault::DecodeError;
use super::notification::{ErrorCode, HeaderError};

/// The octets of a header: marker, length and type.
pub const HEADER_LENGTH: usize = 19;

/// The octets of the longest message, with its header (RFC 4271 section 4.1).
pub const MAX_LENGTH: usize = 4_096;

/// What every message begins with (RFC 4271 section 4.1).
const MARKER: [u8; 16] = [0xff; 16];

/// The types of messages, each with its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// 1: begins a session.
    Open,
    /// 2: announces and withdraws routes.
    Update,
    /// 3: ends a session.
    Notification,
    /// 4: accepts an OPEN, and shows that the sender is alive.
    Keepalive,
    /// 5: asks for routes again (RFC 2918).
    RouteRefresh,
}

impl MessageType {
    const fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    const fn new(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    /// Whether a message of this type may be this long (RFC 4271 section 6.1, RFC 2918 section 3).
    fn allows(self, length: usize) -> bool {
        match self {
            Self::Open => (29..=MAX_LENGTH).contains(&length),
            Self::Update => (23..=MAX_LENGTH).contains(&length),
            Self::Notification => (21..=MAX_LENGTH).contains(&length),
            Self::Keepalive => length == HEADER_LENGTH,
            Self::RouteRefresh => length == 23,
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "OPEN",
            Self::Update => "UPDATE",
            Self::Notification => "NOTIFICATION",
            Self::Keepalive => "KEEPALIVE",
            Self::RouteRefresh => "ROUTE-REFRESH",
        })
    }
}

/// How long the message is that the octets begin with: `None` while too few octets are there to tell. The whole message
/// may not be there yet.
///
/// An error is the peer's fault, and nothing behind it can be framed: the session ends (RFC 4271 section 6.1).
/// [`super::Codec::decode`] finds the same one in the same octets.
pub fn frame_length(octets: &[u8]) -> Result<Option<usize>, DecodeError> {
    Ok(parse(octets)?.map(|(_, length)| length))
}

/// The type of the message that the octets begin with, and its whole length.
pub(super) fn parse(octets: &[u8]) -> Result<Option<(MessageType, usize)>, DecodeError> {
    let Some((marker, [high, low, number])) =
        octets.first_chunk::<HEADER_LENGTH>().and_then(|h| h.split_last_chunk::<3>())
    else {
        return Ok(None);
    };
    let fault = |offset, error, data: &[u8]| DecodeError::new(ErrorCode::Header(error), offset, data);
    if marker != MARKER {
        return Err(fault(0, HeaderError::NotSynchronized, &[]));
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let bad_length = || fault(16, HeaderError::BadLength, &[*high, *low]);
    if !(HEADER_LENGTH..=MAX_LENGTH).contains(&length) {
        return Err(bad_length());
    }
    let kind = MessageType::new(*number).ok_or_else(|| fault(18, HeaderError::BadType, &[*number]))?;
    if !kind.allows(length) {
        return Err(bad_length());
    }
    Ok(Some((kind, length)))
}

/// A message to be filled: its header with the length still to come.
pub(super) fn begin(kind: MessageType) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    put(&mut out, kind);
    out
}

/// Appends a header with the length still to come.
pub(super) fn put(out: &mut BytesMut, kind: MessageType) {
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind.number());
}

/// The message that [`begin`] began.
pub(super) fn finish(mut out: BytesMut) -> Bytes {
    set_length(&mut out);
    out.freeze()
}

/// Writes the length of a message into its header.
pub(super) fn set_length(message: &mut [u8]) {
    debug_assert!(message.len() <= MAX_LENGTH, "callers bound what they put in");
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    if let Some(field) = message.get_mut(16..18) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
