//! The vocabulary that every Manx crate shares: names, prefixes, AS numbers, resources, and the messages that cross
//! process or crate boundaries.
//!
//! This crate is pure: values in, values out. It opens no file, reads no clock, knows no runtime. What two crates that
//! may not know each other exchange (bgp and felix, ipam and felix, cni and agent) is a type of this crate.

mod asn;
mod endpoint;
mod fib;
mod hash;
mod names;
mod namespaced;
mod node;
mod pod;
mod prefix;
mod service;
mod session;

pub mod api;
pub mod backoff;
pub mod cni;
pub mod config;
pub mod duration;
pub mod host_ports;
pub mod ownership;
pub mod policy;
pub mod resource;
pub mod selector;
pub mod update;

pub use asn::{Asn, AsnError, ClusterId, RouterId, RouterIdError};
pub use endpoint::{EndpointId, EndpointIdError, EndpointPort, LinkKind, PodRef, Subnet, WorkloadEndpoint};
pub use fib::{FibUpdate, NextHopState, NextHopWatch};
pub use hash::stable_hash;
pub use names::{ContainerId, InterfaceName, NameError, NetworkName, NodeName, ResourceName};
pub use namespaced::NamespacedName;
pub use node::{Alive, BlockClaim, ClusterNode, Gone, Registration};
pub use pod::Pod;
pub use prefix::{Family, Prefix, PrefixError};
pub use service::{AddressCondition, EndpointSlice, Requested, Service, ServiceRanges};
pub use session::{
    Hops, HopsError, KnownPassword, PasswordSource, Passwords, SessionPassword, SessionPasswordError, SessionSecurity,
    SessionState,
};
pub use update::Update;
