//! kube-proxy, the real one, on any node of a lab.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::assets::Assets;
use super::network::PODS;
use super::pki;
use crate::LabError;
use crate::node::Node;
use crate::place::Place;
use crate::wait::wait_for;

const SERVICE: &str = "kube-proxy";

/// The folder of its settings and its kubeconfig, on its node.
const FOLDER: &str = "/var/lib/kube-proxy";

/// The port on which it serves its metrics.
const METRICS: u16 = 10249;

/// The metric that says when it last finished carrying out changes, per address family; 0 at first.
const LAST_ROUND: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{";

/// The means by which kube-proxy carries services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyMode {
    /// iptables
    #[default]
    Iptables,
    /// nftables
    Nftables,
}

impl ProxyMode {
    const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl FromStr for ProxyMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [Self::Iptables, Self::Nftables];
        let found = modes.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| format!("{text:?} is neither iptables nor nftables"))
    }
}

/// The kube-proxy of a node.
#[derive(Debug, Clone, Copy)]
pub struct KubeProxy<'a> {
    node: &'a Node,
}

impl<'a> KubeProxy<'a> {
    /// The kube-proxy of a node that was started before.
    pub const fn on(node: &'a Node) -> Self {
        Self { node }
    }

    /// Starts kube-proxy on a node, as the user of this kubeconfig (a file of that node), and waits until it has
    /// carried out once what it was told.
    pub fn start(node: &'a Node, kubeconfig: &Path, mode: ProxyMode) -> Result<Self, LabError> {
        let proxy = Self::launch(node, kubeconfig, mode)?;
        proxy.wait_ready(Duration::from_secs(60))?;
        Ok(proxy)
    }

    pub(crate) fn launch(node: &'a Node, kubeconfig: &Path, mode: ProxyMode) -> Result<Self, LabError> {
        let program = Assets::one(SERVICE)?;
        let settings = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": kubeconfig },
            "mode": mode.name(),
            // kube-proxy masquerades what comes from no pod on its way to a service's own address.
            "clusterCIDR": PODS.join(","),
            "hostnameOverride": node.name(),
            "bindAddress": "0.0.0.0",
            "healthzBindAddress": "0.0.0.0:10256",
            "metricsBindAddress": format!("127.0.0.1:{METRICS}"),
            // These are settings of the whole kernel, which does not belong to the lab.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        });
        pki::write(&node.path(&format!("{FOLDER}/settings.json")), &settings.to_string())?;
        let mut command = node.command(&program.display().to_string());
        command.arg(format!("--config={FOLDER}/settings.json"));
        node.start_service(SERVICE, command)?;
        Ok(Self { node })
    }

    /// Waits until kube-proxy has carried out what the API server had said when it started.
    pub fn wait_ready(self, within: Duration) -> Result<(), LabError> {
        let address = SocketAddr::from(([127, 0, 0, 1], METRICS));
        wait_for(&format!("kube-proxy on {}", self.node.name()), within, || {
            self.node.check_service(SERVICE).map_err(|error| error.to_string())?;
            let answer = self.node.http_get(address, "/metrics").map_err(|error| error.to_string())?;
            let rounds = answer.body.lines().filter(|line| line.starts_with(LAST_ROUND));
            let rounds: Vec<bool> = rounds.map(|line| !line.ends_with(" 0")).collect();
            if !rounds.is_empty() && rounds.iter().all(|done| *done) {
                Ok(())
            } else {
                Err(format!("rounds: {rounds:?}"))
            }
        })
    }

    /// Ends kube-proxy. The rules that it made stay.
    pub fn stop(self, signal: Signal) -> Result<(), LabError> {
        self.node.end_service(SERVICE, signal)
    }
}
