//! The runtime's side: conversations with the CNI binary, what they attach, the host ports that pods have, what an earlier life of
//! the agent left, and the links that wait to be deleted.

mod annotations;
pub(crate) mod attachments;
mod collection;
mod conversation;
pub(crate) mod host_ports;
pub(crate) mod links;
mod port_allocation;
mod reaper;
pub(crate) mod recovery;
mod stale_mappings;
pub(crate) mod tasks;
mod tombstones;
pub(crate) mod turns;
mod vanished;
mod verification;
