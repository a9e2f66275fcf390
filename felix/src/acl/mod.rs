//! The one owner of this node's filter: IP sets, our chains of iptables, and the tracked connections that policies end.
//!
//! ```text
//!   policies, namespaces, endpoints (agent) ─► Compiler ─► Change ─► state ─┬─► members of sets: netlink, at once
//!   attach, detach (agent) ──────────────────►                             ├─► restore texts ─► felix-acl-tables
//!   iptables-save, sets (kernel) ──────────────────────────────────────────┘   felix-acl-connections ◄─ what to cut
//! ```
//!
//! What is in force for an endpoint is one version of its class: two chains under a *mark number*, which the packet's mark
//! carries. An address is mapped to its number by one element of a set, overwritten in place. A class whose rules change
//! gets a second version beside the first; when its chains are in the kernel the addresses are mapped to it, one after the
//! other and each at one instant, and the first is cleared away later. So a change only ever adds chains before it counts, which
//! costs iptables 3 ms where a replacement waits 15 to 20 ms for an RCU grace period, and nothing is half in force.
//!
//! `render`, `plan`, `class_versions`, `sets` and `state` decide and are pure; `owner` is the thread that reads and writes.
//! Chains and rules of others are never touched; ours bear a hash in a comment by which a new life of the agent knows them.

mod address_marks;
mod class_versions;
mod config;
mod connections;
mod fixed;
mod handle;
mod names;
mod owner;
mod plan;
mod render;
mod rule;
mod rule_tables;
mod saved;
mod sets;
mod state;
mod tables;
mod verified;
mod view;

pub use config::{AclConfig, NatPool};
pub use handle::{Acl, AclError};
pub use owner::AclBackend;
pub use verified::lacking;
pub use view::{AclView, DropCount, Histogram};

pub(crate) use config::MarkSpace;
pub(crate) use connections::{Tracker, serve as serve_connections};
pub(crate) use owner::{COMMANDS_PER_ROUND, Ends, Owner};
pub(crate) use tables::serve as serve_tables;

pub use crate::tasks::start_acl as start;
