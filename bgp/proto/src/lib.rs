//! BGP-4 without I/O: the wire format, the sessions with peers, and the tables that routes go through.
//!
//! Everything here takes octets and the time as arguments and returns what is to be done. Sockets, the clock and tasks are
//! the crate `bgp`'s; the kernel's routing table is the crate `felix`'s.
//!
//! ```text
//!   octets ──► wire ──► session ──► rib ──► wire ──► octets
//!                          │         │
//!                          └─speaker─┘   owns one session per peer and the tables
//! ```

mod graceful;
mod origin;
mod policy;
mod rib;
mod speaker;

pub mod session;
pub mod wire;

pub use graceful::UNMARKED_RIB_TIME;
pub use origin::{Freshness, Holder, OriginChange, OriginNode, OriginValidation, PeerImport, PeerRole, Range, Refusal};
pub use policy::{DEFAULT_LOCAL_PREF, ImportPolicy};
pub use rib::{
    ByFamily, DecisionStep, Excluded, LimitAction, MAXIMUM_PATHS, PathView, RefusedSample, RouteCounts, RouteView,
    Source, Verdict,
};
pub use session::ConnId;
pub use speaker::{
    Action, Identity, Input, PeerConfig, PeerEvent, PeerStatus, RejectedView, Speaker, SpeakerConfig, TableSizes,
};
