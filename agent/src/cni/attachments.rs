//! What pods' attachments to this node are made of, and how one is taken back.

use std::path::PathBuf;

use felix::acl::Acl;
use felix::routes::Routes;
use ipam::Ipam;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use types::WorkloadEndpoint;

use super::host_ports::HostPorts;
use super::links;
use crate::node::readiness::Readiness;
use crate::policy::pods::Identities;

/// What every conversation needs. Clones are of the same node.
#[derive(Clone)]
pub(crate) struct Attachments {
    /// The owner of addresses and endpoints.
    pub(crate) ipam: Ipam,
    /// The owner of the kernel's routes.
    pub(crate) routes: Routes,
    /// The owner of the filter.
    pub(crate) acl: Acl,
    /// The owner of host ports.
    pub(crate) host_ports: HostPorts,
    /// Says which Pod object an attachment belongs to.
    pub(crate) identities: Identities,
    /// The MTU for pods' interfaces.
    pub(crate) mtu: watch::Receiver<u32>,
    /// The link group of parked links.
    pub(crate) parked_group: u32,
    /// Tells the reaper that a link was parked.
    pub(crate) parked: mpsc::Sender<()>,
    /// Where DELs that were not answered leave tombstones.
    pub(crate) released: PathBuf,
    /// What keeps ADD from being served, if anything.
    pub(crate) readiness: Readiness,
}

impl Attachments {
    /// Takes back whatever an attachment has, in the order in which a DEL does; what cannot be taken back is said.
    pub(super) async fn undo(&self, endpoint: &WorkloadEndpoint) {
        if let Err(error) = self.routes.detach(endpoint.addresses.clone()).await {
            warn!(endpoint = %endpoint.id, %error, "routes of an abandoned attachment stay until the next resync");
        }
        // Before the release: from then on another ADD of the same attachment may make a link of the same name.
        if let Err(error) = links::park(endpoint.host_interface.clone(), self.parked_group).await {
            warn!(endpoint = %endpoint.id, %error, "the link of an abandoned attachment stays until the DEL of its pod");
        }
        if let Err(error) = self.acl.detach(endpoint.id.clone()).await {
            warn!(endpoint = %endpoint.id, %error, "policy of an abandoned attachment stays until the next resync");
        }
        if let Err(error) = self.ipam.release(endpoint.id.clone()).await {
            warn!(endpoint = %endpoint.id, %error, "addresses of an abandoned attachment stay taken");
        }
        self.host_ports.release(&endpoint.id).await;
        self.reap();
    }

    /// Says that a link was parked.
    pub(super) fn reap(&self) {
        // A full queue means that the reaper has been told already.
        let _ = self.parked.try_send(());
    }
}
