//! The lab: a containerlab topology as network namespaces, with the real etcd, FRR, kernel and Manx agents.
//!
//! ```no_run
//! use std::path::Path;
//! use tests::{Lab, Options, Place, Probe};
//! use types::Family;
//!
//! # fn main() -> Result<(), tests::LabError> {
//! let lab = Lab::up(Path::new("topologies/mesh.clab.yml"), &Options::unique("killed"))?;
//! let (a, b) = (lab.pod("node1", "a")?, lab.pod("node2", "b")?);
//! assert!(a.ping(b.address(Family::Ipv6)));
//!
//! let probe = Probe::start(&a, &b, b.address(Family::Ipv4), 200)?;
//! lab.node("node1").agent().kill9()?;
//! lab.node("node1").agent().start()?;
//! lab.node("node1").agent().wait_ready(std::time::Duration::from_secs(30))?;
//! assert_eq!(probe.finish().lost, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # What a node is
//! Network, mount, host-name and PID namespaces, held by a small process 1 (the module `pause`). A node has its own
//! `/run`, `/var/lib`, `/var/log` and `/sys`; its `/etc` and `/opt` are the host's with its own changes on top, in memory.
//! Everything else is the host's: there are no images. `eth0` is the management network as containerlab makes it, with
//! the default route; the rest of the interfaces are the topology's links.
//!
//! # How a lab ends
//! When the [`Lab`] is dropped; when the process that made it ends, however it does (the kernel then kills the nodes);
//! or by [`Lab::take_down`], for one that was detached. Nothing is ever made in the host's own network namespace, and
//! nothing is signalled by name.
//!
//! # What the lab does not do
//! It is not the code under test and does not use it: links are made with iproute2, health is asked with a socket.

mod agent;
mod apiserver;
mod binaries;
mod capture;
pub mod containerlab;
mod error;
mod etcd;
mod flood;
mod flow;
mod frr;
mod groups;
mod http;
mod k8s;
mod lab;
mod links;
pub mod mesh;
mod namespace;
mod node;
pub mod pair;
pub mod pause;
mod place;
mod pod;
mod probe;
mod process;
pub mod raw;
pub mod reach;
mod runtime;
pub mod sources;
mod state;
pub mod topology;
pub mod traces;
mod wait;

pub use agent::Agent;
pub use apiserver::{ApiClient, Apiserver};
pub use binaries::{can_run_labs, fake_clock, has_programs, say_skipped};
pub use capture::Capture;
pub use error::LabError;
pub use etcd::Etcd;
pub use flood::{Flood, Sink, fine_timers};
pub use flow::{Flow, Talker};
pub use frr::Frr;
pub use http::Answer;
pub use k8s::{
    AGNHOST_IMAGE, BUSYBOX_IMAGE, COREDNS_IMAGE, ETCD_IMAGE, PAUSE_IMAGE, can_run_clusters, images_folder,
    kubectl_command, make_busybox, reap,
};
pub use k8s::{
    Cluster, ClusterOptions, ClusterPod, Component, ControlPlane, KubeProxy, Machine, Network, Peering, ProxyMode,
};
pub use lab::{Lab, Options};
pub use namespace::{Namespace, NamespaceRecord, run_in};
pub use node::Node;
pub use place::{Output, Place};
pub use pod::{Pod, PodSpec, Sandbox};
pub use probe::{Probe, ProbeReport};
pub use process::{ProcessId, Service};
pub use runtime::{Attachment, CniError, Runtime, addresses};
pub use topology::{Role, Topology};
pub use wait::{wait_for, wait_until};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a test answers: any error fails it with its text.
pub type TestResult = Result<(), Box<dyn std::error::Error>>;

/// How long routes, sessions and agents may take on a busy machine before a test calls them stuck.
pub const CONVERGENCE: Duration = Duration::from_secs(45);

/// The path of a file of the project's topologies (`tests/topologies`).
pub fn topology_file(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(file)
}
