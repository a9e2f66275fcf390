//! The node's addresses of type InternalIP: asked of the API server at the start, and remembered for the time when it is away.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use kube_watch::{Node, WatchConfig, WatchError};
use store::{Journal, JournalWrite, RowKind};
use tracing::{info, warn};

use super::kubernetes::access;
use types::backoff::Backoff;
use types::config::{Config, DetectionMethod};

/// The journal's key for the addresses by which Kubernetes last knew the node.
const INTERNAL_ADDRESSES: &str = "internal-addresses";

/// How long the API server may take to say them at the start, where they are remembered; where not, it is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The shortest and the longest delay between two attempts to ask.
const ASK_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The node's addresses of type InternalIP, where the configuration asks for them: from the API server, and while that is
/// away as they were. At a node's first start the API server is waited for.
pub(crate) async fn find(config: &Config, journal: &Journal) -> anyhow::Result<Vec<IpAddr>> {
    let detection = &config.address_detection;
    let methods = [&detection.ipv4, &detection.ipv6];
    let Some(access) = access(config).filter(|_| methods.contains(&&DetectionMethod::KubernetesInternalIp)) else {
        return Ok(Vec::new());
    };
    let row = journal.value(RowKind::Meta, INTERNAL_ADDRESSES).await?;
    let remembered: Option<Vec<IpAddr>> = row.and_then(|row| serde_json::from_slice(&row).ok());
    let asked = match remembered {
        None => Some(ask(access).await?),
        Some(_) => tokio::time::timeout(ANSWER_WAIT, ask(access)).await.ok().transpose()?,
    };
    let Some(addresses) = asked else {
        warn!("the API server does not answer; this node's address is taken to be what it was");
        return Ok(remembered.unwrap_or_default());
    };
    if remembered.as_ref() != Some(&addresses)
        && let Err(error) = remember(&addresses, journal).await
    {
        // A full disk is no reason not to serve the pods that there are.
        warn!(
            error = format!("{error:#}"),
            "this node's address is not remembered for the time when the API server is away"
        );
    }
    Ok(addresses)
}

/// Remembers by which addresses Kubernetes knows the node.
pub(crate) async fn remember(addresses: &[IpAddr], journal: &Journal) -> anyhow::Result<()> {
    let row = serde_json::to_vec(addresses).context("addresses")?;
    Ok(journal.commit(vec![JournalWrite::put(RowKind::Meta, INTERNAL_ADDRESSES, row)]).await?)
}

/// Asks until there is an answer and a Node object with an address: the kubelet registers it.
async fn ask(access: WatchConfig) -> anyhow::Result<Vec<IpAddr>> {
    let mut backoff = Backoff::new(ASK_DELAYS.0, ASK_DELAYS.1, u64::from(std::process::id()));
    loop {
        match kube_watch::node(access.clone()).await {
            Ok(Some(Node { addresses, .. })) if !addresses.is_empty() => return Ok(addresses),
            Ok(Some(_)) => info!(node = %access.node_name, "this node's Node object has no InternalIP yet"),
            Ok(None) => info!(node = %access.node_name, "there is no Node object of this node's name yet"),
            Err(error @ WatchError::Config { .. }) => return Err(error.into()),
            Err(error) => warn!(%error, "the API server has not said this node's address yet"),
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}
