//! Tests that need several nodes, an outside peer or the whole workspace, in a lab (crate [`tests`]). They need root; where
//! something that they need is missing, they say `SKIPPED` and why.
//!
//! `CONTRIBUTING.md` says which test goes where ("Where does a test go?"); the names below say what each file is about.

#![cfg(test)]

// A node's addresses, and how it finds them.
mod addresses;
// Which crate may depend on which.
mod architecture;
// Plugins of others in a chain behind ours.
mod chains;
// Many runtimes at once, and an agent that dies meanwhile.
mod churn;
// `manxctl node clean`: a node that Manx leaves.
mod clean;
// A node whose wall clock is wrong.
mod clock;
// Topologies as containerlab runs them, and the real containerlab.
mod containerlab;
// The documents: what they link to and name exists.
mod documents;
// What nodes and the fabric's router have of each other.
mod fabric;
// Nodes that cannot tell whether their blocks are still their own.
mod fencing;
// A node whose disk is full.
mod full_disk;
// Host ports of pods where something went amiss.
mod host_ports;
// The length of files, the size of structs, the walks of the map.
mod house;
// The lab: namespaces, links, services, its end.
mod lab_itself;
// What is deployed, as an API server takes it.
mod manifests;
// The routed network as a user has it.
mod network;
// What a newer Manx has left behind.
mod newer;
// One node's agent: configuration, CNI conversations, restarts.
mod node_life;
// Routes that are not whose they say.
mod origins;
// podman, and a compose file on its network.
mod podman;
// What a hostile pod can do to nodes and routers.
mod pods;
// Pods that are plugged in otherwise than by one interface of ours.
mod plugging;
// NetworkPolicy as the kernel enforces it.
mod policy;
// Nodes that leave the cluster, and come back.
mod reclaim;
// Which clause of which RFC is proved by which test.
mod rfc_coverage;
// What the runtime plugs pods in by: our configuration and binary, and configurations of others.
mod runtime_files;
// Runtimes that call more than ADD and DEL.
mod runtimes;
// Connections from a peer's address beside its session.
mod second_connections;
// Passwords and TTL security of BGP sessions.
mod session_security;
// Addresses of Services as the router has them.
mod services_bgp;
// An etcd that speaks TLS.
mod tls;
// CNI's verbs, in all versions.
mod verbs;

use std::path::{Path, PathBuf};

/// The topology of two nodes and an etcd ([`tests::pair`]), in the folder of what tests write.
pub(crate) fn pair(test: &str, agent: &str) -> std::io::Result<PathBuf> {
    tests::pair::write(Path::new(env!("CARGO_TARGET_TMPDIR")), test, agent)
}
