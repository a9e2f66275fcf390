//! The wire format of BGP-4: octets to values and back, and what RFC 7606 makes of octets that are wrong.
//!
//! Owns messages (RFC 4271 section 4), capabilities (RFC 5492), path attributes, multiprotocol NLRI (RFC 4760), four-octet
//! AS numbers (RFC 6793) and the codes of NOTIFICATION. A value that has been decoded is well-formed; what was not is
//! either a [`DecodeError`], which carries the NOTIFICATION that ends the session, or one of an [`Update`]'s faults.
//!
//! It knows no state of a session (that is [`crate::session`]) and no table: whether a route is usable, whose loop it is,
//! or what is sent to whom is decided elsewhere.

mod as_path;
mod attributes;
mod capability;
mod codec;
mod family;
mod fault;
mod header;
mod nlri;
mod notification;
mod octets;
mod open;
mod pack;
mod route_refresh;
mod update;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attributes::{Aggregator, Origin, Partial, PathAttributes, UnknownAttribute};
pub use capability::{Capability, GracefulRestart, RestartFamily};
pub use codec::{Codec, Message, PeerType, keepalive};
pub use family::{AfiSafi, Families};
pub use fault::{AttributeFault, DecodeError, Handling};
pub use header::{HEADER_LENGTH, MAX_LENGTH, MessageType, frame_length};
pub use notification::{
    Cease, ErrorCode, FsmError, HeaderError, Notification, OpenError, RouteRefreshError, UpdateError,
};
pub use open::{HoldTime, Open};
pub use pack::{Packed, Packer, TooLong};
pub use route_refresh::RouteRefresh;
pub use update::{Reach, Update};
