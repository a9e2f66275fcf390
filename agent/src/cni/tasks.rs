//! The tasks of this room, as the diagram in `crate::tasks` shows them.

use std::net::IpAddr;
use std::time::Duration;

use kernel::{Kernel, Linux};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::annotations::Annotations;
use super::attachments::Attachments;
use super::host_ports::HostPortsTask;
use super::stale_mappings::{NatTables, StaleMappings};
use super::{reaper, tombstones, vanished};
use crate::node::kubernetes::ApiServer;

/// How long after a failure the next conversation is accepted.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The parts that the tasks of this room are made of.
pub(crate) struct CniTasks {
    /// The socket that the CNI binary connects to.
    pub(crate) listener: UnixListener,
    /// The owners that every conversation needs.
    pub(crate) attachments: Attachments,
    /// The owner of host ports.
    pub(crate) host_ports: HostPortsTask,
    /// The API server, where there is one.
    pub(crate) api: Option<ApiServer>,
    /// The node's addresses.
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    /// Tells when a link was parked.
    pub(crate) parked: mpsc::Receiver<()>,
}

impl CniTasks {
    /// Starts the tasks of this room.
    pub(crate) fn start(self, tracker: &TaskTracker) -> anyhow::Result<()> {
        let Self { listener, attachments, host_ports, api, addresses, parked } = self;
        let group = attachments.parked_group;
        let kernel: Box<dyn Kernel> = Box::new(Linux::open()?);
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || reaper::run(kernel, group, parked))?;
        tracker.spawn(host_ports.run());
        if let Some(api) = api {
            let (given, identities) = (attachments.host_ports.given(), attachments.identities.clone());
            tracker.spawn(Annotations { api, identities, given, addresses }.run());
        }
        let (host_ports, turns) = (attachments.host_ports.clone(), attachments.turns.clone());
        tracker.spawn(StaleMappings { host_ports, turns, tables: NatTables::node() }.follow());
        tracker.spawn(tombstones::follow(attachments.clone()));
        tracker.spawn(vanished::follow(attachments.clone()));
        tracker.spawn(serve(listener, attachments, tracker.clone()));
        Ok(())
    }
}

/// Holds each conversation in a task of its own.
async fn serve(listener: UnixListener, attachments: Attachments, tracker: TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tracker.spawn(attachments.clone().converse(stream));
            }
            Err(error) => {
                warn!(%error, "a conversation with the CNI binary cannot be accepted; trying again");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}
