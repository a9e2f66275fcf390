//! What this node's kernel does with packets: the one writer of its routes, the one writer of its filter, and the compiler
//! that says what the filter should be.
//!
//! ```text
//!   pods, own blocks, BGP's choices ──► routes ──────────────────────► the main routing table
//!   policies, namespaces, endpoints ──► policy ──► acl ──────────────► IP sets, chains of iptables
//!                                                      └─────────────► tracked connections
//! ```
//!
//! - [`routes`] makes the kernel's routes what its sources want: local pods, own blocks, what BGP has chosen.
//! - [`policy`] is the compiler: it turns NetworkPolicies, labels and addresses into classes of rules and sets of addresses,
//!   and changes of the one into changes of the other. It is pure.
//! - [`acl`] makes the kernel's IP sets and chains what the compiler wants, and ends tracked connections that a policy
//!   forbids now.
//!
//! Routes and filter each have an owner, a thread, and a handle through which the agent speaks to it; `tasks` starts them.
//! felix knows neither bgp nor ipam, neither etcd nor Kubernetes: all of them reach it as values of `types`.

pub mod acl;
pub mod policy;
pub mod routes;
mod tasks;

pub use tasks::StartError;
