//! A pod of a cluster as a place: probes run in its network namespace, beside its containers.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::process::Command;

use serde_json::Value;
use types::Family;

use super::Cluster;
use crate::LabError;
use crate::namespace::Namespace;
use crate::place::Place;

/// A pod that runs. It is this place as long as its first container is not started again.
#[derive(Debug)]
pub struct ClusterPod {
    name: String,
    addresses: Vec<IpAddr>,
    machine: Namespace,
    /// The pod's network namespace, as the machine sees it.
    inside: String,
    netns: File,
}

impl Cluster {
    /// Finds a pod whose first container runs.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<ClusterPod, LabError> {
        let missing = |what| LabError::NoSuchNode { what, name: format!("{namespace}/{name}") };
        let object = self.get(&["pod", "-n", namespace, name])?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let machine = self.lab.find_node(text("/spec/nodeName"))?;
        let container = text("/status/containerStatuses/0/containerID").trim_start_matches("containerd://");
        let tasks = machine.exec(&["ctr", "--namespace", "k8s.io", "tasks", "list"])?;
        let of_container = |line: &&str| !container.is_empty() && line.starts_with(container);
        let task = tasks.lines().find(of_container).ok_or_else(|| missing("running container of pod"))?;
        let process: u32 = task
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| missing("process of pod"))?;
        let inside = format!("/proc/{process}/ns/net");
        let netns = File::open(machine.path(&inside)).map_err(LabError::io(inside.clone()))?;
        let addresses = object.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
        let addresses = addresses.filter_map(|address| address["ip"].as_str()?.parse().ok()).collect();
        let name = format!("{}/{name}", machine.name());
        Ok(ClusterPod { name, addresses, machine: machine.namespace().clone(), inside, netns })
    }
}

impl ClusterPod {
    /// Its address of a family.
    ///
    /// # Panics
    /// If it has none: a mistake in the test, as all clusters have both.
    pub fn address(&self, family: Family) -> IpAddr {
        let of_family = |address: &&IpAddr| address.is_ipv4() == (family == Family::Ipv4);
        *self.addresses.iter().find(of_family).unwrap_or_else(|| panic!("{} has no {family:?}", self.name))
    }
}

impl Place for ClusterPod {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.machine.command("nsenter");
        command.arg(format!("--net={}", self.inside)).args(["--", program]);
        command
    }

    fn netns(&self) -> io::Result<File> {
        self.netns.try_clone()
    }
}
