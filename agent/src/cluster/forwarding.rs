//! What BGP and the owner of the kernel's routes say to each other; they do not know each other.

use bgp::Bgp;
use felix::routes::Routes;
use tokio::sync::mpsc;

/// How many states of next hops are handed over at most at a time.
const STATES_PER_ROUND: usize = 1_024;

/// Carries the routes that BGP has chosen to the kernel's, batch by batch.
pub(crate) async fn carry_routes(mut batches: mpsc::Receiver<Vec<types::FibUpdate>>, routes: Routes) {
    while let Some(batch) = batches.recv().await {
        routes.fib(batch).await;
    }
}

/// Carries the next hops that BGP wants to be followed, to whoever follows them.
pub(crate) async fn carry_watches(mut batches: mpsc::Receiver<Vec<types::NextHopWatch>>, routes: Routes) {
    while let Some(batch) = batches.recv().await {
        routes.watch(batch).await;
    }
}

/// Carries the states of followed next hops to BGP.
pub(crate) async fn carry_next_hops(routes: Routes, bgp: Bgp) {
    let Some(mut states) = routes.next_hops() else { return };
    let mut batch = Vec::new();
    while states.recv_many(&mut batch, STATES_PER_ROUND).await > 0 {
        if bgp.next_hops(std::mem::take(&mut batch)).await.is_err() {
            return;
        }
    }
}
