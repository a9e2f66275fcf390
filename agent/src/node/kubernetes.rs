//! The API server, as the rooms share it: how it is reached, who follows watches of their own, and this node's Node object.

use std::sync::Arc;
use std::time::Duration;

use kube_watch::{Node, WatchConfig};
use tokio::sync::{mpsc, watch};

use types::Update;
use types::config::{Config, KubernetesAccess};
use types::update::Mirror;

/// How long the API server may be silent at the start before what is remembered of it counts.
pub(crate) const API_SERVER_WAIT: Duration = Duration::from_secs(2);

/// The API server, for what is asked of it beside the watches that always run.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    /// Begins watches and makes writers.
    pub(crate) tasks: Arc<kube_watch::Tasks>,
    /// This node's Node object, an empty one where there is none; nothing before that is known.
    pub(crate) node: watch::Receiver<Option<Node>>,
}

/// The access to the API server that the configuration says, where it says any.
pub(crate) fn access(config: &Config) -> Option<WatchConfig> {
    let kubeconfig = match config.kubernetes.as_ref()? {
        KubernetesAccess::InCluster => None,
        KubernetesAccess::Kubeconfig(path) => Some(path.clone()),
    };
    Some(WatchConfig::new(kubeconfig, config.node_name.clone()))
}

/// Keeps this node's Node object for those who need it. The updates are of that one object.
pub(crate) async fn follow_node(mut updates: mpsc::Receiver<Update<String, Node>>, to: watch::Sender<Option<Node>>) {
    let mut known = Mirror::new();
    while let Some(update) = updates.recv().await {
        known.apply(update);
        // A listing under way may still name it.
        if !known.is_listing() {
            to.send_replace(Some(known.entries().values().next().cloned().unwrap_or_default()));
        }
    }
}
