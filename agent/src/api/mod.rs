//! What people and programs of this host may ask of the agent.

mod fault;
mod health;
pub(crate) mod local;
mod metrics;
mod resources;
pub(crate) mod sockets;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod waiting;
