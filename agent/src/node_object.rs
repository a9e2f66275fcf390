//! What the agent does for its node in Kubernetes' eyes: finds its address there, puts the CNI configuration in place, sets
//! the condition NetworkUnavailable and takes the startup taint off.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ::watch::{Node, WatchConfig, WatchError, Writer};
use anyhow::Context as _;
use store::{Journal, JournalWrite, RowKind};
use tracing::{info, warn};

use types::backoff::Backoff;
use types::cni::CONFLIST;
use types::config::{Config, DetectionMethod, KubernetesAccess};
use types::{ClusterId, NodeName, Registration};

/// A taint that keeps pods off a node that has no network yet, if whoever registers nodes puts it there.
pub(crate) const STARTUP_TAINT: &str = "manx.io/agent-not-ready";

/// Annotations of a Node that operators know: the fields `bgp.asNumber` and `bgp.routeReflectorClusterID` of a Node of
/// `projectcalico.org/v3`, which win.
const AS_NUMBER: &str = "projectcalico.org/ASNumber";
const CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";

/// So long a node may be unready before it is given no more pods: a restart of etcd is no reason.
pub(crate) const DAMPING: Duration = Duration::from_secs(30);

/// The journal's key for the addresses by which Kubernetes last knew the node.
const INTERNAL_ADDRESSES: &str = "internal-addresses";

/// How long the API server may take to say them at the start, where they are remembered; where not, it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Delays between attempts to ask.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The access to the API server that the configuration says, where it says any.
pub(crate) fn access(config: &Config) -> Option<WatchConfig> {
    let kubeconfig = match config.kubernetes.as_ref()? {
        KubernetesAccess::InCluster => None,
        KubernetesAccess::Kubeconfig(path) => Some(path.clone()),
    };
    Some(WatchConfig::new(kubeconfig, config.node_name.clone()))
}

/// The node's addresses of type InternalIP, where they are asked for: from the API server, and while that is away as they
/// were. At a node's first start it is waited for.
pub(crate) async fn internal_addresses(config: &Config, journal: &Journal) -> anyhow::Result<Vec<IpAddr>> {
    let detection = &config.address_detection;
    let methods = [&detection.ipv4, &detection.ipv6];
    let Some(access) = access(config).filter(|_| methods.contains(&&DetectionMethod::KubernetesInternalIp)) else {
        return Ok(Vec::new());
    };
    let row = journal.value(RowKind::Meta, INTERNAL_ADDRESSES).await?;
    let remembered: Option<Vec<IpAddr>> = row.and_then(|row| serde_json::from_slice(&row).ok());
    let asked = match remembered {
        None => Some(ask(access).await?),
        Some(_) => tokio::time::timeout(PATIENCE, ask(access)).await.ok().transpose()?,
    };
    let Some(addresses) = asked else {
        warn!("the API server does not answer; this node's address is taken to be what it was");
        return Ok(remembered.unwrap_or_default());
    };
    if remembered.as_ref() != Some(&addresses)
        && let Err(error) = remember_internal(&addresses, journal).await
    {
        // A full disk is no reason not to serve the pods that there are.
        warn!(error = format!("{error:#}"), "the node's address is not remembered");
    }
    Ok(addresses)
}

/// Asks until there is an answer and a Node object with an address: the kubelet registers it.
async fn ask(access: WatchConfig) -> anyhow::Result<Vec<IpAddr>> {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, u64::from(std::process::id()));
    loop {
        match ::watch::node(access.clone()).await {
            Ok(Some(Node { addresses, .. })) if !addresses.is_empty() => return Ok(addresses),
            Ok(Some(_)) => info!(node = %access.node_name, "its Node object has no InternalIP yet"),
            Ok(None) => info!(node = %access.node_name, "there is no Node object of this name yet"),
            Err(error @ WatchError::Config { .. }) => return Err(error.into()),
            Err(error) => warn!(%error, "the node's address is not known yet"),
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}

/// Remembers by which addresses Kubernetes knows the node.
pub(crate) async fn remember_internal(addresses: &[IpAddr], journal: &Journal) -> anyhow::Result<()> {
    let row = serde_json::to_vec(addresses).context("addresses")?;
    Ok(journal.commit(vec![JournalWrite::put(RowKind::Meta, INTERNAL_ADDRESSES, row)]).await?)
}

/// The registration, with what Kubernetes knows of the node.
pub(crate) fn registration(own: &Registration, node: &Node) -> Registration {
    fn read<T: FromStr>(node: &Node, key: &str) -> Option<T> {
        let value = node.annotations.get(key)?;
        value.parse().inspect_err(|_| warn!(key, value, "an annotation of the Node object that makes no sense")).ok()
    }
    Registration {
        as_number: read(node, AS_NUMBER),
        cluster_id: read(node, CLUSTER_ID).map(ClusterId),
        labels: node.labels.clone(),
        ..own.clone()
    }
}

/// What is to be written into the Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// The condition NetworkUnavailable, with words for people.
    NetworkUnavailable(bool, String),
    /// The startup taint goes.
    RemoveTaint,
}

/// What there is to write for a node in this state: whether its pods have a network, and if not, why.
pub(crate) fn wanted(node: &Node, network: &Network) -> Option<Write> {
    match network {
        Network::NotYet => None,
        Network::Available if node.network_unavailable != Some(false) => {
            Some(Write::NetworkUnavailable(false, "Manx serves pods on this node".to_owned()))
        }
        Network::Available => node.taints.iter().any(|key| key == STARTUP_TAINT).then_some(Write::RemoveTaint),
        Network::Unavailable(why) if node.network_unavailable != Some(true) => {
            Some(Write::NetworkUnavailable(true, why.clone()))
        }
        Network::Unavailable(_) => None,
    }
}

/// Whether pods of this node have a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// The agent has started just now: it is left as it was.
    NotYet,
    /// It is ready, or was until just now.
    Available,
    /// It has not been ready for long, and why.
    Unavailable(String),
}

impl Write {
    /// Writes it.
    pub(crate) async fn carry_out(&self, writer: &mut Writer, node: &NodeName) -> Result<(), ::watch::WriteError> {
        match self {
            Self::NetworkUnavailable(is, why) => writer.put_network_unavailable(node.as_str(), *is, why).await,
            Self::RemoveTaint => writer.remove_taint(node.as_str(), STARTUP_TAINT).await,
        }
    }
}

/// Puts the CNI configuration into the folder, unless it is there: the runtime sees it whole or not at all. It stays when
/// the agent ends: an upgrade looks like the end from inside.
pub(crate) fn put_conflist(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(CONFLIST);
    let text = conflist();
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(path);
    }
    std::fs::create_dir_all(folder)?;
    // The runtime reads `.conflist`, `.conf` and `.json`.
    let aside = folder.join(format!(".{CONFLIST}.new"));
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, &path)?;
    Ok(path)
}

/// Another network's configuration that the runtime takes before ours: it takes the first by name.
pub(crate) fn first_of_others(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let read = |name: &String| [".conflist", ".conf", ".json"].iter().any(|end| name.ends_with(end));
    names.filter(|name| !name.starts_with('.') && read(name) && name.as_str() < CONFLIST).min()
}

fn conflist() -> String {
    let text = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "manx",
        "plugins": [{ "type": "manx" }, { "type": "portmap", "capabilities": { "portMappings": true } }],
    });
    format!("{text:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_gets_ready_is_said_to_have_a_network_and_loses_the_taint_after_that() {
        let fresh = Node { taints: vec!["other".to_owned(), STARTUP_TAINT.to_owned()], ..Node::default() };
        assert_eq!(wanted(&fresh, &Network::NotYet), None);
        assert!(matches!(wanted(&fresh, &Network::Available), Some(Write::NetworkUnavailable(false, _))));
        let said = Node { network_unavailable: Some(false), ..fresh };
        assert_eq!(wanted(&said, &Network::Available), Some(Write::RemoveTaint));
        let done = Node { taints: vec!["other".to_owned()], ..said };
        assert_eq!(wanted(&done, &Network::Available), None);
        let why = Network::Unavailable("no block".to_owned());
        assert_eq!(wanted(&done, &why), Some(Write::NetworkUnavailable(true, "no block".to_owned())));
        assert_eq!(wanted(&Node { network_unavailable: Some(true), ..done }, &why), None);
    }

    #[test]
    fn labels_and_known_annotations_of_the_node_are_registered_and_nonsense_is_left_out() {
        let annotated = |asn: &str| Node {
            labels: [("rack".to_owned(), "1".to_owned())].into(),
            annotations: [(AS_NUMBER.to_owned(), asn.to_owned()), (CLUSTER_ID.to_owned(), "10.0.0.1".to_owned())]
                .into(),
            ..Node::default()
        };
        let own = Registration { agent_version: "1".to_owned(), ..Registration::default() };
        let registered = registration(&own, &annotated("64601"));
        assert_eq!(registered.as_number.map(types::Asn::number), Some(64_601));
        assert_eq!(registered.cluster_id, Some(ClusterId([10, 0, 0, 1].into())));
        assert_eq!(registered.labels["rack"], "1");
        assert_eq!(registration(&own, &annotated("many")).as_number, None);
    }

    #[test]
    fn the_configuration_is_put_once_and_others_before_it_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("net.d");
        let path = put_conflist(&into).unwrap();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(put_conflist(&into).unwrap(), path);
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "what is there stays");
        assert_eq!(first_of_others(&into), None);
        for name in ["05-other.conflist", "99-last.conf", "00-readme.txt"] {
            std::fs::write(into.join(name), "{}").unwrap();
        }
        assert_eq!(first_of_others(&into).as_deref(), Some("05-other.conflist"));
        std::fs::write(&path, "{}").unwrap();
        put_conflist(&into).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"portmap\""), "another content is replaced");
    }
}
