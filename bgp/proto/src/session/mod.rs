//! The session with one configured peer: the state machine of RFC 4271 section 8, sans-IO.
//!
//! A [`Session`] takes [`Input`]s and the time, and says in [`Outputs`] what is to be done; it opens no socket and reads no
//! clock. It decodes what it receives, negotiates, keeps the timers, chooses between two connections that collide, and
//! counts. What is in an UPDATE does not interest it.
//!
//! RFC 4271 section 8.2.1 has one state machine per connection. Here one session owns both sides of a peer, the connection
//! that it dials and the one that it accepts, since they decide together:
//!
//! ```text
//!   Idle ──Start──► Opening ────────────────────────────────────► Established
//!    ▲              ├ outgoing: Nothing | Waiting | Dialling | Open(handshake)   ├ the connection
//!    │              └ incoming: a few handshakes                               └ second: connections that came since, while
//!    │                                                                           the first is probed, or their handshakes
//!    └── Stop, or held after a NOTIFICATION of ours ended an established session
//!
//!   handshake: OpenSent ──OPEN──► OpenConfirm ──KEEPALIVE──► Established, or waits for the connection preferred to it
//! ```

mod agreed;
mod collision;
mod config;
mod context;
mod counters;
mod down;
mod established;
mod handshake;
mod incoming;
mod machine;
mod negotiated;
mod opening;
mod second;

#[cfg(test)]
mod tests;

pub use collision::{Survivor, survivor};
pub use config::{SessionConfig, StopReason};
pub use counters::{Counters, MessageCounts};
pub use down::DownReason;
pub use machine::{ConnId, Input, Output, Outputs, Session};
pub use negotiated::{Negotiated, PeerRestart};
