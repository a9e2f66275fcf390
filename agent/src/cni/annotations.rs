//! Says on Pod objects which host ports they have. An ADD does not wait for it: while the API server is away it is tried again, and
//! a DEL leaves the annotation to go with its Pod. What somebody else makes of the annotation does not stay.

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
use crate::policy::pods::{Identities, Told};

/// The shortest and the longest delay between two attempts to write what was not taken.
const WRITE_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A Pod object: its name, and its UID.
type PodKey = (NamespacedName, String);

/// The parts that the task is made of.
pub(super) struct Annotations {
    /// The API server.
    pub(super) api: ApiServer,
    /// Says what stands on the Pod objects.
    pub(super) identities: Identities,
    /// Who has which host ports.
    pub(super) given: watch::Receiver<Option<Arc<AllGiven>>>,
    /// The node's addresses.
    pub(super) addresses: watch::Receiver<Vec<IpAddr>>,
}

impl Annotations {
    /// Follows what was given, the node's addresses, and what stands on the Pods, for as long as the agent runs.
    pub(super) async fn run(mut self) {
        let mut writer = self.api.tasks.writer();
        let mut backoff = Backoff::new(WRITE_DELAYS.0, WRITE_DELAYS.1, u64::from(std::process::id()));
        let mut told = self.identities.host_ports_told().await;
        loop {
            let due = {
                let given = self.given.borrow_and_update();
                let wanted = given.as_ref().map(|given| wanted(given, &self.addresses.borrow_and_update()));
                due(wanted.unwrap_or_default(), &told.borrow_and_update())
            };
            let pause = if due.is_empty() {
                backoff.reset();
                None
            } else {
                Some(backoff.delay())
            };
            for (pod, value) in due {
                match writer.annotate_pod(&pod.0, &pod.1, GIVEN_ANNOTATION, &value).await {
                    Ok(()) => info!(pod = %pod.0, value, "the host ports of a pod are written on it"),
                    // It has gone, as the watch is about to say.
                    Err(WriteError::Outdated { .. }) => {}
                    Err(error) => {
                        warn!(pod = %pod.0, %error, "the host ports of a pod cannot be written on it yet; trying again")
                    }
                }
            }
            // What was written is seen on the watch before it is looked again. Somebody else who writes too is no race.
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
                continue;
            }
            let changed = tokio::select! {
                changed = self.given.changed() => changed,
                changed = self.addresses.changed() => changed,
                changed = told.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// What there is to write: where a Pod object that is known tells something else.
fn due(wanted: BTreeMap<PodKey, String>, told: &Told) -> Vec<(PodKey, String)> {
    let differs = |(pod, value): &(PodKey, String)| told.get(pod).is_some_and(|told| told.as_ref() != Some(value));
    wanted.into_iter().filter(differs).collect()
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
