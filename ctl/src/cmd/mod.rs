//! One module per command.

pub(crate) mod bgp;
pub(crate) mod ipam;
pub(crate) mod node;
pub(crate) mod resources;
pub(crate) mod version;
