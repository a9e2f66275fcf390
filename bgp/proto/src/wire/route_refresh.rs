//! ROUTE-REFRESH (RFC 2918).

use bytes::{BufMut as _, Bytes};

use super::family::AfiSafi;
use super::fault::DecodeError;
use super::header::{self, HEADER_LENGTH, MessageType};
use super::notification::{ErrorCode, RouteRefreshError};

/// A request to send all routes of a family again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family whose routes are asked for.
    pub family: AfiSafi,
    /// Zero in a request; RFC 7313 gives others a meaning.
    pub subtype: u8,
}

impl RouteRefresh {
    /// A request for the routes of a family.
    pub const fn request(family: AfiSafi) -> Self {
        Self { family, subtype: 0 }
    }

    /// The body, everything behind the header.
    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let &[high, low, subtype, safi] = body else {
            let error = ErrorCode::RouteRefresh(RouteRefreshError::InvalidLength);
            return Err(DecodeError::new(error, HEADER_LENGTH, &[]));
        };
        Ok(Self { family: AfiSafi { afi: u16::from_be_bytes([high, low]), safi }, subtype })
    }

    /// The message.
    pub fn encode(&self) -> Bytes {
        let mut out = header::begin(MessageType::RouteRefresh);
        out.put_u16(self.family.afi);
        out.put_u8(self.subtype);
        out.put_u8(self.family.safi);
        header::finish(out)
    }
}
