//! One cluster for all tests of this program that can live with each other.
//!
//! It comes up with the first test that asks for it, and goes when the program ends, however that happens. Tests that only
//! make pods and look run [`alongside`] each other, each in a Kubernetes namespace of its own; what restarts, breaks or
//! reconfigures things has it [`alone`], and leaves it as it found it. What needs a cluster of another kind brings up its
//! own, [`without`] anybody using the shared one meanwhile.
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tests::{Cluster, ClusterOptions, LabError, Network, can_run_clusters};

/// The cluster, once a test has asked for it, or the reason why there is none.
static SHARED: RwLock<Option<Result<Cluster, String>>> = RwLock::new(None);

type Slot = Option<Result<Cluster, String>>;

/// The shared cluster, for one test, and a namespace of its own.
pub(crate) struct Shared {
    guard: Guard,
    /// The Kubernetes namespace of this test alone.
    pub(crate) namespace: String,
}

enum Guard {
    Alongside(RwLockReadGuard<'static, Slot>),
    Alone(RwLockWriteGuard<'static, Slot>),
}

/// Gives the cluster to a test, at the same time as to others. None if this machine can run no cluster: the test is
/// skipped then.
pub(crate) fn alongside(test: &str) -> Result<Option<Shared>, LabError> {
    if !can_run_clusters() {
        return Ok(None);
    }
    loop {
        let guard = SHARED.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() {
            return Shared::enter(Guard::Alongside(guard), test).map(Some);
        }
        drop(guard);
        bring_up(&mut SHARED.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Gives the cluster to a test alone.
#[allow(dead_code, reason = "for tests that break things")]
pub(crate) fn alone(test: &str) -> Result<Option<Shared>, LabError> {
    let Some(mut guard) = without() else { return Ok(None) };
    bring_up(&mut guard);
    Shared::enter(Guard::Alone(guard), test).map(Some)
}

/// Keeps every test from using the cluster as long as this is held.
pub(crate) fn without() -> Option<RwLockWriteGuard<'static, Slot>> {
    can_run_clusters().then(|| SHARED.write().unwrap_or_else(PoisonError::into_inner))
}

fn bring_up(slot: &mut Slot) {
    slot.get_or_insert_with(|| {
        let options = ClusterOptions::unique("shared").network(Network::Manx);
        Cluster::up(&options).map_err(|error| format!("the cluster did not come up: {error}"))
    });
}

impl Shared {
    fn enter(guard: Guard, test: &str) -> Result<Self, LabError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("{test}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let shared = Self { guard, namespace };
        if let Some(Err(reason)) = shared.slot() {
            return Err(LabError::State { path: "the shared cluster".into(), problem: reason.clone() });
        }
        shared.kubectl(&["create", "namespace", &shared.namespace])?;
        Ok(shared)
    }

    fn slot(&self) -> &Slot {
        match &self.guard {
            Guard::Alongside(guard) => guard,
            Guard::Alone(guard) => guard,
        }
    }
}

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match self.slot() {
            Some(Ok(cluster)) => cluster,
            _ => panic!("there is no cluster, and `enter` said so"),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(Ok(cluster)) = self.slot() {
            let _ = cluster.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
        }
    }
}
