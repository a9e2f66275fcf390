//! What this node originates: its own blocks, and the addresses of Services that it announces.

use std::collections::BTreeSet;
use std::sync::Arc;

use bgp::Bgp;
use felix::routes::Routes;
use tokio::sync::watch;

use types::Prefix;

use crate::node::readiness::{Part, Readiness};

/// What this node originates follows from these.
pub(crate) struct Origination {
    /// The blocks that this node owns.
    pub(crate) blocks: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    /// Pools whose blocks are not announced.
    pub(crate) unexported: watch::Receiver<BTreeSet<Prefix>>,
    /// Addresses of Services; nothing before they are known.
    pub(crate) services: watch::Receiver<Option<BTreeSet<Prefix>>>,
    /// Whether everything is kept from peers.
    pub(crate) drained: watch::Receiver<bool>,
}

impl Origination {
    /// Own blocks: unreachable routes and originated prefixes. Services: originated prefixes.
    pub(crate) async fn follow(mut self, routes: Routes, bgp: Bgp, readiness: Readiness) {
        loop {
            let own = self.blocks.borrow_and_update().as_ref().clone();
            let hidden = self.unexported.borrow_and_update().clone();
            let services = self.services.borrow_and_update().clone();
            let drained = *self.drained.borrow_and_update();
            // The unreachable route first: no peer sends what this node would send back.
            routes.own_blocks(own.clone()).await;
            // With the first word of what is originated peers may take what they are not told for gone (RFC 4724).
            if let Some(services) = services {
                let blocks = own.iter().filter(|block| !hidden.iter().any(|pool| pool.covers(block))).copied();
                let originated = if drained { BTreeSet::new() } else { blocks.chain(services).collect() };
                if bgp.originate(originated).await.is_err() {
                    return;
                }
            }
            if own.is_empty() {
                readiness.unready(Part::PodAddresses, "no address block is claimed yet".to_owned());
            } else {
                readiness.ready(Part::PodAddresses);
            }
            let changed = tokio::select! {
                changed = self.blocks.changed() => changed,
                changed = self.unexported.changed() => changed,
                changed = self.services.changed() => changed,
                changed = self.drained.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}
