//! DELs that never came: a runtime was killed or forgot a pod, and the pod's namespace has gone with both ends of its pair.
//! Noticed while the agent runs; at its start, recovery does the same.

use std::time::Duration;

use futures::future;
use tracing::{info, warn};

use types::WorkloadEndpoint;

use super::attachments::Attachments;
use super::links::Presence;

/// How often it is looked whether every pod has its link.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Gives up attachments whose link has gone, for as long as the agent runs.
pub(super) async fn follow(attachments: Attachments) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        look(&attachments).await;
    }
}

/// One look. What it finds is looked at again in its turn: an attachment may have been made meanwhile.
pub(super) async fn look(attachments: &Attachments) {
    let endpoints = attachments.ipam.endpoints().await;
    if endpoints.is_empty() {
        return;
    }
    match attachments.host.link_names().await {
        Ok(links) => {
            let is_gone = |endpoint: &WorkloadEndpoint| {
                // What another plugin has wired has no link of ours: its end comes with a DEL or a GC.
                !endpoint.is_wired_elsewhere() && !links.contains(endpoint.host_interface.as_str())
            };
            let gone = endpoints.into_iter().filter(is_gone);
            future::join_all(gone.map(|endpoint| give_up(attachments, endpoint))).await;
        }
        Err(error) => {
            warn!(%error, "links cannot be listed; pods that went without a DEL keep their addresses until they can")
        }
    }
}

async fn give_up(attachments: &Attachments, seen: WorkloadEndpoint) {
    let _turn = attachments.turns.at(&seen.host_interface).await;
    let Some(endpoint) = attachments.ipam.endpoint(seen.id).await else { return };
    if !matches!(attachments.host.link(endpoint.host_interface.clone()).await, Ok(Presence::Gone)) {
        return;
    }
    attachments.undo(&endpoint).await;
    info!(endpoint = %endpoint.id, pod = %endpoint.pod, "a pod is detached whose namespace has gone without a DEL");
}

#[cfg(test)]
mod tests;
