//! This node by itself: its addresses, its life, its Node object, its host, and what keeps it from being ready.

pub(crate) mod addresses;
pub(crate) mod addresses_task;
pub(crate) mod awaited;
mod cni_binary;
pub(crate) mod cni_configuration;
mod conflist;
mod detection;
pub(crate) mod events_task;
pub(crate) mod fatal;
pub(crate) mod host;
pub(crate) mod instance;
pub(crate) mod internal_addresses;
pub(crate) mod kubernetes;
pub(crate) mod latest;
mod object;
pub(crate) mod object_task;
pub(crate) mod readiness;
pub(crate) mod runtime_task;
pub(crate) mod tasks;
