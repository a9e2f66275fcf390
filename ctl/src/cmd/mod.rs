//! One module per command; a command with several parts is a folder.

pub(crate) mod bgp;
pub(crate) mod certs;
pub(crate) mod clean;
pub(crate) mod endpoints;
pub(crate) mod install;
pub(crate) mod ipam;
pub(crate) mod label;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod resources;
pub(crate) mod version;
