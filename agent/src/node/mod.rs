//! This node by itself: its addresses, its life, its Node object, and what keeps it from being ready.

pub(crate) mod addresses;
pub(crate) mod addresses_task;
pub(crate) mod detection;
pub(crate) mod instance;
pub(crate) mod object;
pub(crate) mod object_task;
pub(crate) mod readiness;
