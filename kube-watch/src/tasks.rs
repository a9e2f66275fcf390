//! The tasks of this crate; nothing else spawns.
//!
//! ```text
//!              API server
//!                  │ list, watch: one connection per task
//!   ┌──────────────┼──────────────┬──────────────┐
//!   │ follow       │ follow       │ follow       │ follow
//!   │ policies     │ namespaces   │ pods         │ node       one task per watch; it ends with its
//!   └──────┬───────┴──────┬───────┴──────┬───────┴─────┬──    receiver, or when Tasks::close says so
//!          │ Update       │ Update       │ Update      │ Update
//!          ▼              ▼              ▼             ▼        (bounded: a slow reader slows its watch down)
//!                            caller ◄─────────────────────── Status (tokio::sync::watch)
//! ```
//!
//! Services, EndpointSlices and single Secrets are followed by tasks of the same kind, for as long as somebody asks for them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{EndpointSlice, NamespacedName, ResourceName, Service, Update};

use crate::call::Calls;
use crate::follow::follow;
use crate::kinds::AllNodes;
use crate::object::Kind;
use crate::secrets::{Secret, Secrets};
use crate::services::{EndpointSlices, Services};
use crate::status::Report;
use crate::{Status, Writer};

/// So many updates wait in a watch's channel before the watch stops reading from the API server.
const WATCH_BUFFER: usize = 256;

/// The tasks behind the watches. Dropping this ends none of them: a watch ends when its receiver is dropped.
#[derive(Debug)]
pub struct Tasks {
    /// Counts the tasks, so that closing can wait for them.
    tracker: TaskTracker,
    /// Ends them.
    closed: CancellationToken,
    /// What each task begins with a copy of.
    calls: Calls,
    /// Where they say how they fare.
    status: Arc<watch::Sender<Status>>,
}

impl Tasks {
    pub(crate) fn new(calls: Calls, status: watch::Sender<Status>) -> Self {
        Self { tracker: TaskTracker::new(), closed: CancellationToken::new(), calls, status: Arc::new(status) }
    }

    pub(crate) fn watch<K: Kind>(&self) -> mpsc::Receiver<Update<K::Key, K::Value>> {
        self.watch_by::<K>(self.calls.clone())
    }

    fn watch_by<K: Kind>(&self, calls: Calls) -> mpsc::Receiver<Update<K::Key, K::Value>> {
        let (to, updates) = mpsc::channel(WATCH_BUFFER);
        let report = Report::new(K::RESOURCE, Arc::clone(&self.status));
        self.tracker.spawn(follow::<K>(calls, to, report, self.closed.clone()));
        updates
    }

    /// The Services of all namespaces, from now on.
    pub fn services(&self) -> mpsc::Receiver<Update<NamespacedName, Service>> {
        self.watch::<Services>()
    }

    /// The EndpointSlices of all namespaces, from now on, but for those of headless Services.
    pub fn endpoint_slices(&self) -> mpsc::Receiver<Update<NamespacedName, EndpointSlice>> {
        self.watch::<EndpointSlices>()
    }

    /// The names of all Nodes, from now on.
    pub fn node_names(&self) -> mpsc::Receiver<Update<String, ()>> {
        self.watch::<AllNodes>()
    }

    /// The Secret of this name in the agent's own namespace, from now on. It may be asked for where others in the namespace
    /// are not the agent's to read (RBAC's `resourceNames`).
    pub fn secret(&self, name: &ResourceName) -> mpsc::Receiver<Update<String, Secret>> {
        self.watch_by::<Secrets>(self.calls.clone().of_one(name.clone()))
    }

    /// Something to write with, over a connection of its own.
    pub fn writer(&self) -> Writer {
        Writer::new(self.calls.clone())
    }

    /// Ends all watches and waits until they have.
    pub async fn close(&self) {
        self.closed.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
