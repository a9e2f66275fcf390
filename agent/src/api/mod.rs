//! What people and programs of this host may ask of the agent.

pub(crate) mod health;
pub(crate) mod local;
pub(crate) mod metrics;
pub(crate) mod status;
