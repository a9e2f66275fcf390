//! What NetworkPolicy means, by brute force from the text of its specification; and what iptables does with a packet, by
//! following its rules. Tests only.
//!
//! ```text
//!   generate ──► world ──► judge ──────────────► expected verdict ──┐
//!                  │                                                ├── must agree, packet by packet
//!                  └──► types, felix, kernel ──► actual verdict   ──┘
//!                          └─ rendered text ──► iptables (simulated)
//! ```
//!
//! Nothing here is shared with what it judges: policies are read as raw JSON, prefixes are integers, selectors are
//! matched by this crate's own code. `types` is used in [`handover`] only, to say a world in the product's words.

pub mod cases;
mod cidr;
pub mod generate;
pub mod handover;
pub mod iptables;
mod judge;
mod selector;
mod table;
mod world;

pub use cidr::Cidr;
pub use judge::{Direction, Exemptions, Side, Verdict, judge};
pub use table::{Probe, Row, TruthTable, truth_table};
pub use world::{Labels, NamedPort, Packet, Phase, Pod, PodName, PolicyName, Protocol, World};
