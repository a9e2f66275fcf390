//! The task that tells Kubernetes of what is wrong with the runtime's configuration and binary: an Event on the Node, which is there
//! while it is so.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use types::NodeName;
use types::backoff::Backoff;

use super::cni_configuration::Fault;
use super::kubernetes::ApiServer;

/// The shortest and the longest delay between two attempts to write what was not taken.
const WRITE_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How often an Event is renewed: API servers forget it an hour after it was written last (`--event-ttl`).
const RENEWAL: Duration = Duration::from_secs(20 * 60);

/// The Event's `reason`.
const REASON: &str = "CNIConfiguration";

/// The parts that the task is made of.
pub(crate) struct EventsTask {
    /// This node.
    pub(crate) node: NodeName,
    /// The API server.
    pub(crate) api: ApiServer,
    /// What is wrong; nothing before it was looked.
    pub(crate) faults: watch::Receiver<Option<Vec<Fault>>>,
}

impl EventsTask {
    /// Follows what is wrong for as long as the agent runs.
    pub(crate) async fn run(mut self) {
        let mut writer = self.api.tasks.writer();
        let mut backoff = Backoff::new(WRITE_DELAYS.0, WRITE_DELAYS.1, u64::from(std::process::id()));
        if self.faults.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut told = None;
        loop {
            let message = message(self.faults.borrow_and_update().as_deref().unwrap_or_default());
            let written = match &message {
                Some(message) => writer.warn_of_node(self.node.as_str(), REASON, message).await,
                // One of an earlier life may be there.
                None => writer.end_warning_of_node(self.node.as_str()).await,
            };
            let pause = match written {
                Ok(()) => {
                    if told != message {
                        let now = message.as_deref().unwrap_or("it is mended");
                        info!(said = now, "the Event on this node's CNI configuration is written");
                    }
                    backoff.reset();
                    told = message;
                    told.as_ref().map(|_| RENEWAL)
                }
                Err(error) => {
                    warn!(%error, "the Event on this node's Node object cannot be written yet; trying again");
                    Some(backoff.delay())
                }
            };
            let passed = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.faults.changed() => if changed.is_err() { return },
                () = passed => {}
            }
        }
    }
}

/// All of it in one text; none where nothing is wrong. `kubectl describe` shows it whole.
fn message(faults: &[Fault]) -> Option<String> {
    let texts: Vec<_> = faults.iter().map(|fault| fault.text.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}
