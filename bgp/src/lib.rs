//! The BGP speaker of a node: sockets and a clock around `bgp-proto`.
//!
//! One task owns the speaker and with it every session and table, and what protects their connections; what others want of
//! it goes through [`Bgp`]. Learned routes and next hops to be watched come out as [`Outputs`]. Nothing here decides anything
//! about routes or sessions: that is `bgp-proto`'s, and which sessions there should be is [`sessions`]'s.
//!
//! When the agent ends, the speaker sends no NOTIFICATION: peers keep this node's routes while it restarts (RFC 4724).

mod connection;
mod dial;
mod door;
mod handle;
mod outbox;
mod probes;
mod run;
mod security;
mod socket;
mod sparingly;
mod tasks;
mod view;

pub mod sessions;

pub use bgp_proto::wire::Families;
pub use bgp_proto::{
    ByFamily, Freshness, Holder, Identity, ImportPolicy, OriginChange, OriginNode, PeerConfig, Range, SpeakerConfig,
};
pub use handle::{Bgp, BgpError, Outputs};
pub use tasks::start;
