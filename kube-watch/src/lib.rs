//! Watches of the Kubernetes API: the only crate that knows kube.
//!
//! [`start`] follows NetworkPolicies and Namespaces of the whole cluster, and this node's Pods and its Node; Services and
//! EndpointSlices, and single Secrets, are followed where somebody asks for them ([`Tasks::services`], [`Tasks::secret`]). Each is a channel of [`Update`]s: what is
//! listed is whole and the newest there is before `InSync` is said, a deletion is told at once, and a watch that breaks goes
//! on where it was. While the API server is away nothing is said: what was true stays true. The crate keeps no copy of what
//! it reported; of objects it reads, it keeps the few fields that Manx needs. [`Writer`] writes what little is written, and
//! [`Objects`] is for programs that follow nothing.
//!
//! # Why neither `kube::runtime::watcher` nor a reflector
//!
//! This crate speaks to `kube::Client` directly and holds the loop itself (module `follow`), because the `watcher` of
//! kube-runtime 5.0
//! - fails a whole page of a listing for one object in it that cannot be decoded, and in a watch passes over such an
//!   object without saying which it was; here it is named and taken as gone;
//! - after 410 Gone as the answer to opening a watch asks for the same version forever (`State::InitListed`); only the
//!   event of that code makes it list again;
//! - goes on polling a stream after an error, and notices a dead connection only at the end of the watch's whole timeout;
//! - does not tell whether a list is older than what it has seen, nor when it is connected.
//!
//! A reflector holds a copy of every object.
//!
//! It knows nothing of etcd, of what policies mean, and of what becomes of its reports.

mod access;
mod call;
mod config;
mod error;
mod events;
mod follow;
mod history;
mod kinds;
mod node;
mod object;
mod objects;
mod secrets;
mod services;
mod status;
mod tasks;
mod write;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use types::policy::{Labels, PolicyId};
use types::{NamespacedName, Pod, Update};

pub use config::WatchConfig;
pub use error::WatchError;
pub use node::{Node, node};
pub use objects::Objects;
pub use secrets::Secret;
pub use status::{Failure, Resource, Status, WatchStatus};
pub use tasks::Tasks;
pub use write::{WriteError, Writer};

use call::Calls;
use kinds::{Namespaces, NetworkPolicies, Nodes, Pods};

/// What is watched. A watch ends when its receiver is dropped; all of them when [`Tasks::close`] is called.
#[derive(Debug)]
pub struct Watches {
    /// The `spec` of the NetworkPolicies of all namespaces, as written; null where there is none.
    pub policies: mpsc::Receiver<Update<PolicyId, serde_json::Value>>,
    /// The labels of all namespaces, by name.
    pub namespaces: mpsc::Receiver<Update<String, Labels>>,
    /// The Pods that are bound to this node. A pod that takes the name of another is told as `Delete`, then `Set`.
    pub pods: mpsc::Receiver<Update<NamespacedName, Pod>>,
    /// The Node object of this node, by name; none until somebody registers it.
    pub node: mpsc::Receiver<Update<String, Node>>,
    /// How each watch fares.
    pub status: watch::Receiver<Status>,
    /// The tasks behind the receivers, and whatever else is asked of the API server.
    pub tasks: Tasks,
}

/// Starts the watches. Waits for nothing but files: an API server that is away is waited for in the background.
///
/// # Errors
///
/// [`WatchError::Config`], naming the file or key, where it cannot be told which API server to ask, or with what
/// credentials. What goes wrong later is in [`Watches::status`].
pub async fn start(config: WatchConfig) -> Result<Watches, WatchError> {
    let config = Arc::new(config);
    let calls = Calls::new(config).await?;
    let (status, statuses) = watch::channel(Status::new());
    let tasks = Tasks::new(calls, status);
    Ok(Watches {
        policies: tasks.watch::<NetworkPolicies>(),
        namespaces: tasks.watch::<Namespaces>(),
        pods: tasks.watch::<Pods>(),
        node: tasks.watch::<Nodes>(),
        status: statuses,
        tasks,
    })
}
