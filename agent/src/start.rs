//! From the configuration to a running node, in the order that restarts depend on.
//!
//! 1. The state folder is locked and the journal opened: what this node has given out.
//! 2. The kernel is read: this node's addresses, and what is left of the agent's earlier life. Addresses that are not there yet
//!    are waited for.
//! 3. The node's name is taken in the store. If the store is away, the node goes on with what it remembers.
//! 4. The sockets are opened, and the kernel is reconciled with the journal. Routes of local pods are wanted again before
//!    anything is deleted.
//! 5. BGP starts, with the forwarding bit where the kernel has kept our routes over the restart.
//! 6. All tasks start, and ADD is served. (The sockets are open since 4: who asks in between waits for the answer.)

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use store::StateDir;
use types::config::Config;

use crate::api::sockets::Sockets;
use crate::api::status::Owners;
use crate::cluster;
use crate::cni::recovery::recover;
use crate::node::readiness::{Part, Readiness};
use crate::policy;
use crate::tasks::Tasks;

mod rooms;
mod steps;

use rooms::Prepared;
use steps::{Host, Membership, OwnState};

/// Runs the agent until it is told to end or cannot go on.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let tracker = TaskTracker::new();
    let cancel = CancellationToken::new();
    // Held until the agent ends: the folder is no other agent's meanwhile.
    let state_dir = StateDir::lock(&config.state_dir)?;
    let work = async {
        let tasks = prepare(config, &state_dir, &tracker, &cancel).await?;
        let failed = tasks.start(&tracker, &cancel)?;
        Err(failed.await)
    };
    tokio::select! {
        outcome = work => outcome,
        () = terminated() => {
            // No NOTIFICATION, no withdrawal: peers and kernel keep what they have until the next start.
            info!("the agent ends; the kernel keeps forwarding");
            Ok(())
        }
    }
}

/// Steps 1 to 5, and what all tasks are made of.
async fn prepare(
    config: Config,
    state_dir: &StateDir,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<Tasks> {
    let readiness = Readiness::new();
    let own = OwnState::read(&config, state_dir).await?;
    let mut host = Host::look(&config, &own, &readiness).await?;
    let membership = Membership::enter(&config, state_dir, &own).await?;

    let routes = cluster::tasks::routes(&config, &host.addresses)?;
    let acl = policy::tasks::acl(&config)?;
    let (ipam, pools) = steps::ipam(&config, &own, &membership, tracker, cancel).await?;

    let sockets = Sockets::open(&config).await?;
    acl.node_addresses(host.addresses.clone()).await;
    recover(&config, host.kernel.as_mut(), &ipam, &routes, &acl).await?;
    readiness.ready(Part::Routes);

    let (bgp, outputs) = bgp::start(host.speaker(&config), tracker, cancel.clone());
    let (identities, kubernetes) = steps::watch_kubernetes(&config, &membership.cache, tracker).await?;
    let owners = Owners { ipam, routes, acl, bgp };
    let prepared =
        Prepared { config, own, host, membership, owners, pools, sockets, outputs, identities, kubernetes, readiness };
    Ok(prepared.into_tasks(tracker))
}

/// SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
