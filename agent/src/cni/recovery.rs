//! What an earlier life of the agent left, at the start: DELs that ran without an agent, links without an endpoint, pods that
//! go on being served.

use ::cni::{parked_group, tombstone};
use anyhow::Context as _;
use felix::acl::Acl;
use felix::routes::Routes;
use ipam::Ipam;
use kernel::Kernel;
use tracing::{info, warn};

use types::config::Config;

use super::{links, tombstones};
use crate::policy::facts;

/// Brings journal and kernel together: what was released while no agent ran is released, what serves a pod is wanted.
pub(crate) async fn recover(
    config: &Config,
    kernel: &mut dyn Kernel,
    ipam: &Ipam,
    routes: &Routes,
    acl: &Acl,
) -> anyhow::Result<()> {
    let group = config.kernel.link_group;
    if let Err(error) = parked_group::write(&config.run_dir, group) {
        let folder = config.run_dir.display();
        warn!(%folder, %error, "the group of parked links cannot be left in the run folder; DELs without an agent use the one that is there");
    }
    for (id, path) in tombstones::list(&config.run_dir.join(types::cni::RELEASED)).context("tombstones")? {
        ipam.release(id).await?;
        tombstone::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    ipam.reconcile_kernel(links::serving(kernel, group)?).await?;
    let endpoints = ipam.endpoints().await;
    let interfaces = endpoints.iter().map(|endpoint| endpoint.host_interface.clone()).collect();
    let orphans = links::park_orphans(kernel, &interfaces, group)?;
    for endpoint in endpoints.iter().filter(|endpoint| !endpoint.is_wired_elsewhere()) {
        let attached = routes.attach(endpoint.host_interface.clone(), endpoint.addresses.clone()).await;
        if let Err(error) = attached {
            warn!(endpoint = %endpoint.id, %error, "the routes of a pod of this node are not in the kernel yet");
        }
    }
    routes.own_blocks(ipam.blocks().borrow().as_ref().clone()).await;
    routes.local_in_sync().await;
    for endpoint in &endpoints {
        if let Err(error) = acl.attach(endpoint.id.clone(), facts::of_endpoint(endpoint.clone())).await {
            warn!(endpoint = %endpoint.id, %error, "the policies of a pod of this node are not in force yet");
        }
    }
    acl.local_in_sync().await;
    // An earlier life may have ended between a release and this, and a tombstone never came to it.
    acl.forget(ipam.view().await.resting).await;
    info!(
        endpoints = endpoints.len(),
        orphans, "the pods in the journal are taken over, and links that belong to none of them are parked"
    );
    Ok(())
}
