//! GC: attachments that the runtime does not know of any more.

use futures::future;
use tracing::info;

use types::cni::{Collect, Refused, code};
use types::{EndpointId, WorkloadEndpoint};

use super::attachments::Attachments;

impl Attachments {
    /// Takes back all that is complete in the network and not listed. One that cannot be taken back does not keep the others;
    /// what could not is said at the end.
    pub(super) async fn collect(&self, collect: Collect) -> Result<(), Refused> {
        let Collect { network, valid, .. } = collect;
        let is_left = |id: &EndpointId| valid.contains(&(id.container.clone(), id.interface.clone()));
        let endpoints = self.ipam.endpoints().await.into_iter();
        let ids = endpoints.map(|endpoint| endpoint.id).filter(|id| id.network == network && !is_left(id));
        let outcomes = future::join_all(ids.map(|id| self.collect_one(id))).await;
        let complaints: Vec<_> = outcomes.into_iter().flatten().collect();
        if complaints.is_empty() {
            return Ok(());
        }
        Err(Refused { code: code::AGENT, msg: complaints.join("; ") })
    }

    async fn collect_one(&self, id: EndpointId) -> Vec<String> {
        let _turn = self.turns.at(&id.host_interface()).await;
        let Some(endpoint) = self.ipam.endpoint(id).await else { return Vec::new() };
        let complaints = self.take_back(&endpoint).await;
        let WorkloadEndpoint { id, pod, .. } = &endpoint;
        info!(endpoint = %id, %pod, "a pod is detached that its runtime does not know of");
        complaints.into_iter().map(|complaint| format!("{id}: {complaint}")).collect()
    }
}

#[cfg(test)]
mod tests;
