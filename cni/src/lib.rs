//! The CNI plugin `manx`: what a container runtime executes to plug a pod into the routed network.
//!
//! It reads the runtime's request, asks the agent on this node for addresses, makes the pair of links, and prints the
//! result. It keeps no state, knows no datastore and no Kubernetes, and has one thread, which visits the pod's namespace.
//! What an address is taken from, which routes and rules a pod has, and when a parked link is deleted, is the agent's
//! business.
//!
//! ```text
//!  environment ─► args ─┐
//!                       ├─► verbs ─► client ◄── unix socket ──► agent
//!  stdin ───► config ───┘     │
//!                             ├─► plan (pure) ─► wiring ─► kernel, host side and pod side
//!                             ├─► lease (another plugin wires: addresses alone)
//!                             ├─► mapping ─► delegate ─► portmap (pods with host ports)
//!                             └─► parked_group, tombstone (DEL without an agent)
//!  stdout ◄── result or error (spec, result)
//! ```
//!
//! # Configuration
//!
//! A plugin object of a network configuration list. Keys beside CNI's own, all optional:
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `runDir` | `/run/manx` | the agent's run folder: the socket, the group of parked links, and the tombstones of DELs that met no agent |
//! | `agentSocket` | `cni.sock` in `runDir` | the agent's CNI socket |
//! | `mtu` | the agent's | the pod's MTU: at most the agent's, and with IPv6 at least 1280 |
//! | `dns` | none | goes into the result |
//!
//! Under a main plugin of another kind, whose `ipam.type` is `manx` ([`lease`]), these keys stand in the section `ipam`: `runDir`,
//! `agentSocket` and `routes`.
//!
//! `args.cni.labels` and `args.cni["manx.io/ports"]` describe the pod where there is no Kubernetes. A request for a
//! certain address or MAC (`runtimeConfig.ips`, `runtimeConfig.mac`, `args.cni.ips`, `IP=` and `MAC=` in CNI_ARGS) is
//! refused with code 2, and so is what other networks' plugins know and this one does not do ([`wishes`]): a pod would silently
//! get something else. Other unknown keys are tolerated, as the CNI spec wants.

pub mod args;
mod check;
pub mod client;
pub mod config;
pub mod delegate;
pub mod lease;
pub mod mapping;
pub mod parked_group;
pub mod plan;
mod records;
pub mod result;
mod source_routing;
pub mod spec;
pub mod tombstone;
pub mod verbs;
pub mod wiring;
pub mod wishes;

#[cfg(test)]
mod fake_agent;

pub use verbs::{Machine, Node, Outcome, run};
