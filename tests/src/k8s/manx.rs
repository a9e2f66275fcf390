//! Manx in a cluster: deployed as a user deploys it, and spoken to as an operator does.

use std::fs;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use super::{Cluster, succeeded};
use crate::LabError;

/// The folder of manifests that Manx is deployed from.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// The Kubernetes namespace of Manx's own objects.
const MANX: &str = "manx-system";

/// The peers of Manx's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Peering {
    /// The nodes peer with their rack's router only; there is one AS per rack.
    #[default]
    RackAs,
    /// The nodes peer with their rack's router, which spreads the blocks through the fabric, and with each other; there
    /// is one AS for all.
    Mesh,
}

impl FromStr for Peering {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rack-as" => Ok(Self::RackAs),
            "mesh" => Ok(Self::Mesh),
            _ => Err(format!("{text:?} is neither rack-as nor mesh")),
        }
    }
}

impl Cluster {
    /// Deploys Manx as a user does (`kubectl apply -k manifests/`), and waits for its agents.
    pub fn deploy_manx(&self) -> Result<(), LabError> {
        self.kubectl(&["apply", "-k", MANIFESTS])?;
        self.wait_rollout("manx-system", "daemonset/manx-agent", Duration::from_secs(180)).map_err(|error| {
            LabError::Io {
                doing: format!("{error}\n{}", self.diagnosis("manx-system")),
                source: io::ErrorKind::TimedOut.into(),
            }
        })
    }

    /// The name of the agent's pod on a machine.
    pub fn agent_pod(&self, machine: &str) -> Result<String, LabError> {
        let node = format!("spec.nodeName={machine}");
        let line = [
            "get",
            "pods",
            "-n",
            MANX,
            "-l",
            "app.kubernetes.io/name=manx-agent",
            "--field-selector",
            &node,
            "-o",
            "name",
        ];
        let pods = self.kubectl(&line)?;
        let pod = pods.lines().next().and_then(|line| line.strip_prefix("pod/"));
        pod.map(str::to_owned).ok_or_else(|| LabError::NoSuchNode { what: "agent's pod on", name: machine.to_owned() })
    }

    /// Runs manxctl in the agent's container on a machine.
    pub fn manxctl(&self, machine: &str, words: &[&str]) -> Result<String, LabError> {
        let pod = self.agent_pod(machine)?;
        let line: Vec<&str> =
            ["exec", "-n", MANX, &pod, "-c", "agent", "--", "manxctl"].iter().chain(words).copied().collect();
        self.kubectl(&line)
    }

    /// Applies Manx's own resources: YAML or JSON.
    pub fn apply_resources(&self, resources: &str) -> Result<String, LabError> {
        let words =
            ["exec", "-i", "-n", MANX, "daemonset/manx-agent", "-c", "agent", "--", "manxctl", "apply", "-f", "-"];
        self.run_kubectl(&words, Some(resources)).and_then(|output| succeeded(&words, output))
    }

    /// Makes the nodes peer with their racks' routers.
    pub fn peer(&self, peering: Peering) -> Result<(), LabError> {
        if peering == Peering::RackAs {
            self.apply_file("no-mesh.yaml")?;
        }
        for machine in self.machines() {
            let rack = machine.node.spec().labels.get("rack").and_then(|rack| rack.parse::<u32>().ok());
            if let Some(rack) = rack.filter(|_| peering == Peering::RackAs) {
                let system = format!("projectcalico.org/ASNumber={}", 64700 + rack);
                self.kubectl(&["annotate", "--overwrite", "node", &machine.name(), &system])?;
            }
        }
        self.apply_file("peers.yaml")
    }

    /// Adds an IPv6 pool for pods that are made from now on: the manifests leave that to those who have a network for
    /// it.
    pub fn add_ipv6(&self) -> Result<(), LabError> {
        self.apply_file("pools.yaml")
    }

    /// Applies a file that lies beside the topology, in the folder of its name.
    fn apply_file(&self, name: &str) -> Result<(), LabError> {
        let path = self.options.topology.with_extension("").with_extension("").join(name);
        let text = fs::read_to_string(&path).map_err(LabError::io(path.display().to_string()))?;
        self.apply_resources(&text).map(drop)
    }
}
