//! What the store says of the cluster, what follows for this node, and this node's place among the others.

pub(crate) mod desired;
pub(crate) mod desired_task;
pub(crate) mod election;
mod forwarding;
mod freshness;
pub(crate) mod origination;
pub(crate) mod origins;
pub(crate) mod passwords;
pub(crate) mod passwords_task;
pub(crate) mod presence;
mod reclaim;
pub(crate) mod reclaim_task;
pub(crate) mod remembered_passwords;
pub(crate) mod sources;
pub(crate) mod tasks;
