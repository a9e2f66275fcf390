//! How to reach the API server, and how long to wait for it.

use std::path::PathBuf;
use std::time::Duration;

use types::NodeName;

/// The settings of the watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// The kubeconfig to use, with its current context. None: the files that the variable `KUBECONFIG` names; where it
    /// is not set, the service account of the pod. `~/.kube/config` is never read: an agent is not a person.
    pub kubeconfig: Option<PathBuf>,
    /// The API server's URL, in place of the one in the kubeconfig or, for a service account, of
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`: those lead through a Service, so through kube-proxy.
    pub api_server: Option<String>,
    /// The folder that holds the service account: `token`, which may be replaced at any time, `ca.crt`, and `namespace`.
    pub service_account: PathBuf,
    /// The name of this node's Node object, which Pods are bound to.
    pub node_name: NodeName,
    /// A listing is read in pages of so many objects.
    pub page_size: u32,
    /// A watch on which nothing was heard for so long is given up, and goes on over a new connection. The API server
    /// sends a bookmark about every minute, so a healthy watch is never silent for the default of 90 s; a shorter time
    /// costs more requests and no event.
    pub silence: Duration,
    /// The API server ends a watch after so long (`timeoutSeconds`; up to a quarter less, so that they do not end
    /// together), which spreads the watches anew over several API servers.
    pub watch_timeout: Duration,
}

impl WatchConfig {
    /// The settings for a node, the others at their defaults.
    pub fn new(kubeconfig: Option<PathBuf>, node_name: NodeName) -> Self {
        Self {
            kubeconfig,
            api_server: None,
            service_account: PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount"),
            node_name,
            page_size: 500,
            silence: Duration::from_secs(90),
            watch_timeout: Duration::from_secs(600),
        }
    }
}
