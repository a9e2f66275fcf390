//! The task that notices when this node's addresses change.

use std::net::IpAddr;
use std::time::Duration;

use kernel::Linux;
use store::Journal;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use types::config::AddressDetection;

use super::kubernetes::ApiServer;
use super::latest::{changed, tell};
use super::{addresses, internal_addresses};

/// How long the look at the interfaces waits after a change: changes come in steps, and the last one counts.
const SETTLING: Duration = Duration::from_secs(1);

/// This node's addresses, and what they follow from.
pub(crate) struct OwnAddresses {
    /// The configured ways to find the addresses.
    pub(crate) methods: AddressDetection,
    /// Where those are remembered that Kubernetes knows.
    pub(crate) journal: Journal,
    /// The InternalIPs that Kubernetes knows.
    pub(crate) internal: Vec<IpAddr>,
    /// The addresses that were found.
    pub(crate) found: watch::Sender<Vec<IpAddr>>,
}

impl OwnAddresses {
    /// Looks again after each change of an interface or of the Node object.
    pub(crate) async fn follow(mut self, mut interfaces: mpsc::Receiver<()>, api: Option<ApiServer>) {
        let mut node = api.map(|api| api.node);
        loop {
            let have_changed = tokio::select! {
                Some(()) = interfaces.recv() => {
                    tokio::time::sleep(SETTLING).await;
                    while interfaces.try_recv().is_ok() {}
                    true
                }
                Ok(()) = changed(&mut node) => false,
                else => return,
            };
            let known = node.as_mut().and_then(|node| node.borrow_and_update().as_ref().map(|it| it.addresses.clone()));
            // Most of what changes in a Node object is no address.
            if self.take_internal(known.unwrap_or_default()).await || have_changed {
                self.look().await;
            }
        }
    }

    /// What Kubernetes says; a Node object without addresses is not whole yet, or going. Whether it is news.
    async fn take_internal(&mut self, known: Vec<IpAddr>) -> bool {
        if known.is_empty() || known == self.internal {
            return false;
        }
        if let Err(error) = internal_addresses::remember(&known, &self.journal).await {
            warn!(%error, "this node's addresses are not remembered; the next start has to ask Kubernetes for them");
        }
        self.internal = known;
        true
    }

    async fn look(&self) {
        let (methods, internal, former) = (self.methods.clone(), self.internal.clone(), self.found.borrow().clone());
        let looked = tokio::task::spawn_blocking(move || {
            addresses::find_again(&methods, &mut Linux::open()?, &internal, &former)
        });
        match looked.await {
            Ok(Ok(found)) => {
                if tell(&self.found, found.clone()) {
                    info!(addresses = ?found, "this node has other addresses: sessions move there");
                }
            }
            Ok(Err(error)) => warn!(%error, "this node's addresses cannot be looked for now; they stay what they were"),
            Err(_) => {}
        }
    }
}
