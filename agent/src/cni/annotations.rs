//! Says on Pod objects which host ports they have. An ADD does not wait for it: while the API server is away it is tried again, and
//! a DEL leaves the annotation to go with its Pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube_watch::WriteError;
use tokio::sync::watch;
use tracing::{info, warn};

use types::backoff::Backoff;
use types::host_ports::{GIVEN_ANNOTATION, annotation};
use types::{Family, NamespacedName};

use super::port_allocation::{AllGiven, Given};
use crate::node::kubernetes::ApiServer;

/// The shortest and the longest delay between two attempts to write what was not taken.
const WRITE_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A Pod object: its name, and its UID.
type PodKey = (NamespacedName, String);

/// The parts that the task is made of.
pub(super) struct Annotations {
    /// The API server.
    pub(super) api: ApiServer,
    /// Who has which host ports.
    pub(super) given: watch::Receiver<Option<Arc<AllGiven>>>,
    /// The node's addresses.
    pub(super) addresses: watch::Receiver<Vec<IpAddr>>,
}

impl Annotations {
    /// Follows what was given, and the node's addresses, for as long as the agent runs.
    pub(super) async fn run(mut self) {
        let mut writer = self.api.tasks.writer();
        let mut backoff = Backoff::new(WRITE_DELAYS.0, WRITE_DELAYS.1, u64::from(std::process::id()));
        let mut written = BTreeMap::new();
        loop {
            let wanted = {
                let given = self.given.borrow_and_update();
                given.as_ref().map(|given| wanted(given, &self.addresses.borrow_and_update())).unwrap_or_default()
            };
            written.retain(|pod, _| wanted.contains_key(pod));
            let mut failed = false;
            for (pod, value) in wanted {
                if written.get(&pod) == Some(&value) {
                    continue;
                }
                match writer.annotate_pod(&pod.0, &pod.1, GIVEN_ANNOTATION, &value).await {
                    Ok(()) => {
                        info!(pod = %pod.0, value, "the host ports of a pod are written on it");
                        written.insert(pod, value);
                    }
                    // It has gone: its DEL comes.
                    Err(WriteError::Outdated { .. }) => {
                        written.insert(pod, value);
                    }
                    Err(error) => {
                        warn!(pod = %pod.0, %error, "the host ports of a pod cannot be written on it yet; trying again");
                        failed = true;
                    }
                }
            }
            let again =
                async { if failed { tokio::time::sleep(backoff.delay()).await } else { std::future::pending().await } };
            let changed = tokio::select! {
                changed = self.given.changed() => changed,
                changed = self.addresses.changed() => changed,
                () = again => continue,
            };
            if changed.is_err() {
                return;
            }
            backoff.reset();
        }
    }
}

/// What is to be on which Pod. Of two attachments of a pod the later one counts.
fn wanted(given: &AllGiven, node: &[IpAddr]) -> BTreeMap<PodKey, String> {
    let mut in_order: Vec<_> = given.values().collect();
    in_order.sort_by_key(|given| given.order);
    let of_pod = |given: &Given| {
        let (name, uid) = (NamespacedName::new(&given.pod.namespace, &given.pod.name), given.pod.uid.clone()?);
        // A host address leads to a pod that has an address of its family.
        let leads = |host: &&IpAddr| given.addresses.iter().any(|pod| Family::of(*pod) == Family::of(**host));
        let hosts: Vec<_> = node.iter().filter(leads).copied().collect();
        Some(((name, uid), annotation(&hosts, &given.ports)))
    };
    in_order.into_iter().filter_map(of_pod).collect()
}

#[cfg(test)]
mod tests;
