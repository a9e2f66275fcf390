//! What pods' attachments to this node are made of, and how one is taken back.

use std::path::PathBuf;

use felix::acl::Acl;
use felix::routes::{RouteError, Routes};
use ipam::Ipam;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use types::WorkloadEndpoint;

use super::host_ports::HostPorts;
use super::links::HostLinks;
use super::turns::Turns;
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
    /// Whose turn it is at which attachment.
    pub(crate) turns: Turns,
    /// The kernel that has the pods' links.
    pub(crate) host: HostLinks,
}

impl Attachments {
    /// Takes back whatever an attachment has; what cannot be taken back is said. To be called in the attachment's turn.
    pub(super) async fn undo(&self, endpoint: &WorkloadEndpoint) {
        for complaint in self.take_back(endpoint).await {
            warn!(endpoint = %endpoint.id, "an attachment is given up: {complaint}");
        }
    }

    /// The same, in the order in which a DEL does it; answers what could not be taken back.
    pub(super) async fn take_back(&self, endpoint: &WorkloadEndpoint) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Err(error) = self.routes.detach(endpoint.addresses.clone()).await {
            complaints.push(format!("its routes stay until the next resync: {error}"));
        }
        // Before the release: from then on another ADD of the same attachment may make a link of the same name.
        if let Err(error) = self.host.park(endpoint.host_interface.clone(), self.parked_group).await {
            complaints.push(format!("its link stays until the DEL of its pod: {error}"));
        }
        if let Err(error) = self.acl.detach(endpoint.id.clone()).await {
            complaints.push(format!("its policies stay until the next resync: {error}"));
        }
        if let Err(error) = self.ipam.release(endpoint.id.clone()).await {
            complaints.push(format!("its addresses stay taken: {error}"));
        }
        self.host_ports.release(&endpoint.id).await;
        self.reap();
        complaints
    }

    /// Puts the routes of an attachment into the kernel; one that another plugin has wired has its routes from that.
    pub(super) async fn route(&self, endpoint: &WorkloadEndpoint) -> Result<(), RouteError> {
        if endpoint.is_wired_elsewhere() {
            return Ok(());
        }
        self.routes.attach(endpoint.host_interface.clone(), endpoint.addresses.clone()).await
    }

    /// Says that a link was parked.
    pub(super) fn reap(&self) {
        // A full queue means that the reaper has been told already.
        let _ = self.parked.try_send(());
    }
}
