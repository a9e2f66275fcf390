//! Tests that need several nodes, an outside peer or the whole workspace, in a lab (crate [`tests`]). They need root; where
//! something that they need is missing, they say `SKIPPED` and why.
//!
//! # Where does a test go?
//!
//! | what is tested | where | example |
//! |---|---|---|
//! | one module, without a socket, a kernel or a clock | `foo/tests.rs` beside it, as `#[cfg(test)] mod tests;` at the end of `foo.rs` or `foo/mod.rs` | `ctl/src/cmd/resources/tests.rs` |
//! | one crate from outside, with a server, a kernel or generated input | `tests/it/` of the crate; `main.rs` names the files | `kube-watch/tests/it/following.rs` |
//! | what is compiled and rendered, against what the specification means | `tests/oracle/tests/` | `tests/oracle/tests/comparison/rendered.rs` |
//! | one node's agent, with an etcd and a second node on the same wire ([`pair`]) | `tests/cases/`, in the file of the subject below | `tests/cases/full_disk.rs` |
//! | routes and sessions between several nodes and a router ([`tests::mesh`]) | `tests/cases/`, likewise | `tests/cases/network.rs` |
//! | what policies let pass between pods | `tests/cases/policy/`, on its `world` | `tests/cases/policy/table.rs` |
//! | Kubernetes with all its components | `tests/cases/kubernetes/`, on its `shared` cluster | `tests/cases/kubernetes/rights.rs` |
//! | the lab itself | `tests/cases/lab_itself.rs` | |
//! | a figure that is compared with another program's | `bench/`: it is no test | `bench/src/cni.rs` |
//!
//! What cases of several subjects need goes into `tests/src/`. What all cases of one folder play on (`policy/world`,
//! `kubernetes/shared`) stays in that folder.

#![cfg(test)]

// A node's addresses, and how it finds them.
mod addresses;
// Which crate may depend on which.
mod architecture;
// `manxctl node clean`: a node that Manx leaves.
mod clean;
// A node whose wall clock is wrong.
mod clock;
// The documents: what they link to and name exists.
mod documents;
// What nodes and the fabric's router have of each other.
mod fabric;
// Nodes that cannot tell whether their blocks are still their own.
mod fencing;
// A node whose disk is full.
mod full_disk;
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
// What a hostile pod can do to nodes and routers.
mod pods;
// NetworkPolicy as the kernel enforces it.
mod policy;
// Nodes that leave the cluster, and come back.
mod reclaim;
// Addresses of Services as the router has them.
mod services_bgp;
// An etcd that speaks TLS.
mod tls;

use std::path::{Path, PathBuf};

/// The topology of two nodes and an etcd ([`tests::pair`]), in the folder of what tests write.
pub(crate) fn pair(test: &str, agent: &str) -> std::io::Result<PathBuf> {
    tests::pair::write(Path::new(env!("CARGO_TARGET_TMPDIR")), test, agent)
}
