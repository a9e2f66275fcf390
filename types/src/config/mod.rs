//! The agent's settings as checked values; `manxctl` uses some of them too.
//!
//! This is the vocabulary alone: what a setting can be, in which unit, and what it is where nobody sets it. How the settings are
//! read from `/etc/manx/agent.yaml` and from the environment is the crate `config`. A range that is written here is the only
//! place of that range: felix and store take these types.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::host_ports::PortRange;
use crate::resource::IpPoolSpec;
use crate::{NodeName, Prefix};

mod detection;
mod etcd;
mod marks;
mod policy;

pub use detection::{AddressDetection, DetectionMethod};
pub use etcd::{ClientCertificate, Credentials, EtcdSettings, EtcdTls, KeyPrefix, Password};
pub use marks::{KernelMarks, MarkMask};
pub use policy::{EndpointToHost, IptablesVariant, NatOutgoingExclusions, PolicySettings};

/// The settings of one node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `nodeName`: this node's name. By default the host's name, in lower case.
    pub node_name: NodeName,
    /// `etcd.*`: how the datastore is reached. By default none: the node works alone.
    pub etcd: Option<EtcdSettings>,
    /// `addressDetection.*`: how the node finds the addresses that it peers from.
    pub address_detection: AddressDetection,
    /// `bgp.listenPort`: the TCP port of this node's speaker, 1 to 65535. By default that of BGPConfiguration, else 179.
    pub listen_port: Option<u16>,
    /// `bgp.importPrefixes`: what is accepted from peers beside the pools. `0.0.0.0/0` and `::/0` mean the default route alone.
    /// By default nothing.
    pub import_prefixes: Vec<Prefix>,
    /// `bgp.restartTime`: how long peers keep this node's routes while the agent restarts (RFC 4724 section 3). In whole
    /// seconds, 1 to 4095. By default 120 seconds.
    pub restart_time: Duration,
    /// `initialPools`: written as IPPools when there is no pool at all. By default none.
    pub initial_pools: Vec<IpPoolSpec>,
    /// `mtu`: the MTU of pods' interfaces in octets, 1280 (RFC 8200 section 5) to 65535. By default the smallest of the interfaces
    /// that carry BGP next hops.
    pub mtu: Option<u32>,
    /// `coolDown`: how long a released address rests before it is given out again; 0 is allowed. By default 30 seconds.
    pub cool_down: Duration,
    /// `reclaimGrace`: how long the blocks of a deleted node stay its own, at least 1 second; a node that etcd does not confirm
    /// gives out addresses for half as long. By default 24 hours.
    pub reclaim_grace: Duration,
    /// `stateDir`: the folder of what outlives the agent. By default `/var/lib/manx`.
    pub state_dir: PathBuf,
    /// `runDir`: the folder of sockets and tombstones. By default `/run/manx`.
    pub run_dir: PathBuf,
    /// `healthAddress`: the address and TCP port where health and metrics are served. By default `127.0.0.1:9179`.
    pub health_address: SocketAddr,
    /// `kernel.*`: the numbers that mark what is ours.
    pub kernel: KernelMarks,
    /// `kubernetes`: where policies, namespaces and this node's pods come from. By default none: they come from the store.
    pub kubernetes: Option<KubernetesAccess>,
    /// `cniConfDir`: the folder where the agent puts the CNI configuration when it can serve ADD. By default none: it puts it
    /// nowhere.
    pub cni_conf_dir: Option<PathBuf>,
    /// `cniBinDir`: the folder in which the runtime finds the CNI binary, which the agent looks after. By default none: it does not.
    pub cni_bin_dir: Option<PathBuf>,
    /// `hostPorts.range`: the host's ports that pods are given when they ask for any; both ends from 1024 to 65535. By default none:
    /// a pod that asks is refused.
    pub host_ports: Option<PortRange>,
    /// `policy.*`: how policies are enforced.
    pub policy: PolicySettings,
}

/// `kubernetes`: how the API server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesAccess {
    /// `in-cluster`: by the service account that a pod is given.
    InCluster,
    /// By a kubeconfig at this path.
    Kubeconfig(PathBuf),
}

/// A setting that cannot be used. The key says where to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {problem}")]
pub struct ConfigError {
    /// The key; `(file)` for the file as a whole.
    pub key: Cow<'static, str>,
    /// What is wrong with the value.
    pub problem: String,
}

impl ConfigError {
    /// The error that says what is wrong with the value of a key.
    pub fn new(key: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}
