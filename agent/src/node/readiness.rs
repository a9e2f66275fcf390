//! What keeps the node from being ready, by part.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// A part of the agent that can be unready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Nothing is known of the cluster yet.
    Cluster,
    /// There are no addresses to give out.
    PodAddresses,
    /// Local routes are not in the kernel yet.
    Routes,
    /// The speaker does not listen.
    Speaker,
    /// This node's address is not there yet, or another node has it.
    OwnAddress,
    /// Policy is not in force as it should be.
    Policy,
    /// The runtime does not plug pods in by this node's CNI configuration and binary.
    Runtime,
}

/// Reasons, shared by those who have them and those who ask.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    reasons: watch::Sender<BTreeMap<Part, String>>,
}

impl Readiness {
    /// Nothing is ready at the start.
    pub(crate) fn new() -> Self {
        let reasons = BTreeMap::from([
            (Part::Cluster, "the cluster's state is not known yet".to_owned()),
            (Part::PodAddresses, "no address block is claimed yet".to_owned()),
            (Part::Routes, "the kernel's routes are not reconciled yet".to_owned()),
            (Part::Speaker, "BGP is not started yet".to_owned()),
            (Part::Policy, "policies are not known yet".to_owned()),
        ]);
        Self { reasons: watch::Sender::new(reasons) }
    }

    /// The part is ready.
    pub(crate) fn ready(&self, part: Part) {
        self.reasons.send_if_modified(|reasons| reasons.remove(&part).is_some());
    }

    /// The part is not ready, for this reason.
    pub(crate) fn unready(&self, part: Part, reason: String) {
        self.reasons.send_if_modified(|reasons| reasons.insert(part, reason.clone()).as_ref() != Some(&reason));
    }

    /// Tells when reasons change.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<Part, String>> {
        self.reasons.subscribe()
    }

    /// Returns when every part is ready.
    pub(crate) async fn all_ready(&self) {
        // Never an error: the sender is ours.
        let _ = self.reasons.subscribe().wait_for(BTreeMap::is_empty).await;
    }

    /// Returns when every other part is ready.
    pub(crate) async fn ready_but_for(&self, part: Part) {
        // Never an error: the sender is ours.
        let _ = self.reasons.subscribe().wait_for(|reasons| reasons.keys().all(|other| *other == part)).await;
    }

    /// Whether something is the matter that pods suffer from which are there already.
    pub(crate) fn limits_pods(&self) -> bool {
        let limits = |part: &Part| matches!(part, Part::Routes | Part::Speaker | Part::OwnAddress | Part::Policy);
        self.reasons.borrow().keys().any(limits)
    }

    /// Why a part is not ready.
    pub(crate) fn reason(&self, part: Part) -> Option<String> {
        self.reasons.borrow().get(&part).cloned()
    }

    /// The reasons now; none means ready.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.reasons.borrow().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
