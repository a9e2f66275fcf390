//! The task that gives Services of type LoadBalancer their addresses, at work in the elected agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use kube_watch::{WriteError, Writer};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use types::backoff::Backoff;
use types::update::{Change, Listing};
use types::{NamespacedName, Service, Update};

use super::load_balancer::{self, StatusChange};
use crate::cluster::desired::LoadBalancerPool;
use crate::node::kubernetes::ApiServer;
use crate::node::latest::tell;

/// How many updates are taken at most before what follows from them is written.
const UPDATES_PER_ROUND: usize = 1_024;

/// The shortest and the longest delay between two attempts to write what the API server did not take.
const WRITE_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Gives Services of type LoadBalancer their addresses while this agent is elected.
pub(super) struct LoadBalancerTask {
    /// The API server that has the Services.
    pub(super) api: ApiServer,
    /// The pools that addresses are given out from.
    pub(super) pools: watch::Receiver<Vec<LoadBalancerPool>>,
    /// Whether this agent is elected.
    pub(super) elected: watch::Receiver<bool>,
    /// The sentences that say what is wrong with which Service.
    pub(super) problems: watch::Sender<BTreeSet<String>>,
}

impl LoadBalancerTask {
    /// Serves each term of this agent.
    pub(super) async fn run(mut self) {
        loop {
            let wanted = async {
                self.elected.wait_for(|is_elected| *is_elected).await.map(drop)?;
                self.pools.wait_for(|pools| !pools.is_empty()).await.map(drop)
            };
            if wanted.await.is_err() {
                return;
            }
            let mut elected = self.elected.clone();
            tokio::select! {
                // At once, in the middle of whatever is being done.
                biased;
                _ = elected.wait_for(|is_elected| !*is_elected) => {}
                () = self.serve() => {}
            }
            self.problems.send_replace(BTreeSet::new());
        }
    }

    /// One term. Pools may all go meanwhile: what was given out of them is then taken back.
    async fn serve(&mut self) {
        info!("this agent gives Services of type LoadBalancer their addresses from now on");
        let mut updates = self.api.tasks.services();
        let mut term = Term::new(self.api.tasks.writer());
        let mut batch = Vec::new();
        loop {
            let retry = async {
                match term.retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = updates.recv_many(&mut batch, UPDATES_PER_ROUND) => {
                    if count == 0 {
                        return;
                    }
                }
                changed = self.pools.changed() => if changed.is_err() {
                    return;
                },
                () = retry => {}
            }
            batch.drain(..).for_each(|update| term.take(update));
            if term.listing.is_known() {
                let pools = self.pools.borrow_and_update().clone();
                term.write(&pools).await;
                tell(&self.problems, load_balancer::problems(&term.services));
            }
        }
    }
}

/// The state of one term of this agent in office.
struct Term {
    /// Writes Services' status.
    writer: Writer,
    /// Services that have to do with load balancing.
    services: BTreeMap<NamespacedName, Service>,
    /// How far the listing of Services has come.
    listing: Listing<NamespacedName>,
    /// What may have been written though the API server did not say so.
    held: BTreeMap<NamespacedName, Vec<IpAddr>>,
    /// The delay after what was not written.
    backoff: Backoff,
    /// When it is written again.
    retry_at: Option<Instant>,
}

impl Term {
    fn new(writer: Writer) -> Self {
        Self {
            writer,
            services: BTreeMap::new(),
            listing: Listing::new(),
            held: BTreeMap::new(),
            backoff: Backoff::new(WRITE_DELAYS.0, WRITE_DELAYS.1, u64::from(std::process::id())),
            retry_at: None,
        }
    }

    fn take(&mut self, update: Update<NamespacedName, Service>) {
        match self.listing.follow(update, || self.services.keys().cloned()) {
            Change::Set(name, service) => self.put(name, service),
            Change::Gone(names) => names.iter().for_each(|name| self.forget(name)),
        }
    }

    fn put(&mut self, name: NamespacedName, service: Service) {
        // The watch may be behind what we have written ourselves.
        let is_behind = |known: &Service| is_older(&service.version, &known.version) && known.uid == service.uid;
        if self.services.get(&name).is_some_and(is_behind) {
            return;
        }
        if load_balancer::concerns(&service) {
            self.services.insert(name, service);
        } else {
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &NamespacedName) {
        self.services.remove(name);
        self.held.remove(name);
    }

    /// Writes what differs, one Service after the other: of the next one it is known what the ones before have got.
    async fn write(&mut self, pools: &[LoadBalancerPool]) {
        self.retry_at = None;
        let mut has_failed = false;
        for change in load_balancer::changes(pools, &self.services, &self.held) {
            let StatusChange { service, version, addresses, condition } = change;
            match self.writer.put_addresses(&service, &version, &addresses, condition.as_ref()).await {
                Ok(version) => {
                    self.held.remove(&service);
                    let reason = condition.as_ref().map_or("released", |condition| condition.message.as_str());
                    info!(%service, reason, "the addresses of a Service are written into its status");
                    if let Some(known) = self.services.get_mut(&service) {
                        (known.version, known.ingress, known.said) = (version, addresses, condition);
                    }
                }
                // The watch will tell what the object is now.
                Err(WriteError::Outdated { .. }) => {}
                Err(WriteError::Failed(error)) => {
                    warn!(%service, %error, "the addresses of a Service are not written into its status yet; trying again");
                    self.held.insert(service, addresses);
                    has_failed = true;
                }
            }
        }
        if has_failed {
            self.retry_at = Some(Instant::now() + self.backoff.delay());
        } else {
            self.backoff.reset();
        }
    }
}

/// Whether one version of an object is older than another: both are numbers (KEP-5504).
fn is_older(one: &str, other: &str) -> bool {
    matches!((one.parse::<u64>(), other.parse::<u64>()), (Ok(one), Ok(other)) if one < other)
}
