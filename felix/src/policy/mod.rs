//! The policy compiler: pure. Policies, namespaces and endpoints in, [`program::Change`]s out.
//!
//! ```text
//!   Update<RemoteKey, ..> ─┐                ┌─ peers ────► memberships ─► sets ──┐
//!   set_local, Expected ───┼─► world ─► selectors                                ├─► flush ─► Vec<Change>
//!   Update<String, Labels> ┘  (labels,      └─ subjects ─► who is governed ──────┤
//!   Update<PolicyId, ..> ────► policies      by what ─► classes ─► encoding ─────┘
//! ```
//!
//! `world` knows who there is, compactly, with an index from labels to endpoints. `selectors` keeps for every selector that
//! somebody uses who is selected, and touches only those that a change can concern. `classes` puts endpoints that the same
//! policies govern under one number. `encoding` chooses how the rules of a class are written: as elements of its own set
//! or as rules over shared sets. `ordered` writes tiers with deny and pass. `flush` brings it all into an order in which
//! no step opens or closes too much. `explain` judges by the policies as they are written.
//!
//! Changes are collected in runs of one kind: policies change while all memberships stand still, or memberships while all
//! policies do. Only so there is an order that is safe at every step.

mod blocks;
mod classes;
mod compiler;
mod desired;
mod encoding;
mod explain;
mod flush;
mod hash;
mod id_set;
mod infrastructure;
mod labels;
mod namespaces;
mod ordered;
mod policies;
pub mod program;
mod selectors;
mod sets;
mod slab;
#[cfg(test)]
mod tests;
mod update;
mod world;

pub use compiler::{CompileError, Compiler, CompilerConfig, CompilerStats, EndpointFacts, PolicyUpdate, RemoteKey};
pub use desired::Desired;
pub use infrastructure::Infrastructure;

pub(crate) use infrastructure::closed_udp_ports;
