//! This node by itself: its addresses, its life, its Node object, its host, and what keeps it from being ready.

pub(crate) mod addresses;
pub(crate) mod addresses_task;
pub(crate) mod awaited;
mod cni_configuration;
mod detection;
pub(crate) mod fatal;
pub(crate) mod host;
pub(crate) mod instance;
pub(crate) mod internal_addresses;
pub(crate) mod kubernetes;
pub(crate) mod latest;
mod object;
pub(crate) mod object_task;
pub(crate) mod readiness;
pub(crate) mod tasks;
