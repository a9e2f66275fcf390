//! Pods: network namespaces of their own in a node, plugged in by CNI.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use types::Family;

use crate::LabError;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::place::Place;
use crate::runtime::{Attachment, Runtime, cached};

/// The pod's interface, as Kubernetes' runtimes name it.
const INTERFACE: &str = "eth0";

/// A pod that has been plugged in. Cheap enough to clone; it stays until it is unplugged or the lab ends.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The node it is on.
    node: Namespace,
    /// Its name, also its namespace's in the node's `/run/netns`.
    name: String,
    /// What ADD was called with.
    pub attachment: Attachment,
    /// What ADD answered.
    pub result: Value,
    /// The addresses in that answer.
    addresses: Vec<IpAddr>,
}

impl Pod {
    /// Makes the namespace and calls ADD; if that fails, DEL, and the namespace goes again.
    pub(crate) fn create(node: &Node, name: &str) -> Result<Self, LabError> {
        let runtime = node.runtime()?;
        node.exec(&["ip", "netns", "add", name])?;
        let pod = node.exec(&["ip", "-n", name, "link", "set", "lo", "up"]).and_then(|_| {
            let attachment = new_attachment(name);
            let result = runtime.add(&attachment).inspect_err(|_| {
                // As runtimes do; the ADD's own error is the one to tell.
                let _ = runtime.del(&attachment);
            })?;
            Ok(Self::of(node.namespace().clone(), name, attachment, result))
        });
        if pod.is_err() {
            node.exec(&["ip", "netns", "delete", name])?;
        }
        pod
    }

    /// A pod that another process plugged in, by what its runtime cached.
    pub(crate) fn find(node: &Node, name: &str) -> Result<Self, LabError> {
        let netns = netns_path(name);
        let cached =
            cached(node.namespace()).into_iter().find(|cached| cached.attachment.netns.as_ref() == Some(&netns));
        let cached = cached.ok_or_else(|| LabError::NoSuchNode { what: "pod", name: name.to_owned() })?;
        Ok(Self::of(node.namespace().clone(), name, cached.attachment, cached.result))
    }

    fn of(node: Namespace, name: &str, attachment: Attachment, result: Value) -> Self {
        let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
        let texts = ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next());
        let addresses = texts.filter_map(|text| text.parse().ok()).collect();
        Self { node, name: name.to_owned(), attachment, result, addresses }
    }

    /// Calls DEL, removes the namespace, and calls DEL once more without it, as containerd does.
    pub(crate) fn remove(self, runtime: &Runtime) -> Result<(), LabError> {
        runtime.del(&self.attachment)?;
        let deleted = self.node.command("ip").args(["netns", "delete", &self.name]).output();
        let deleted = deleted.map_err(LabError::io(format!("removing the namespace of {}", self.name())))?;
        if !deleted.status.success() {
            return Err(LabError::Command {
                place: self.node.name().to_owned(),
                command: format!("ip netns delete {}", self.name),
                status: deleted.status.to_string(),
                output: String::from_utf8_lossy(&deleted.stderr).trim().to_owned(),
            });
        }
        Ok(runtime.del(&Attachment { netns: None, ..self.attachment })?)
    }

    /// The addresses that ADD gave it.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first address of a family.
    ///
    /// # Panics
    /// If it has none: every network of the lab is dual-stack.
    pub fn address(&self, family: Family) -> IpAddr {
        let found = self.addresses.iter().copied().find(|address| Family::of(*address) == family);
        let Some(found) = found else { panic!("pod {} has no {family} address: {}", self.name(), self.result) };
        found
    }
}

impl Place for Pod {
    fn name(&self) -> String {
        format!("{}/{}", self.node.name(), self.name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.node.command("nsenter");
        command.arg(format!("--net={}", netns_path(&self.name))).args(["--", program]);
        command
    }

    fn netns(&self) -> io::Result<File> {
        File::open(self.node.root().join("run/netns").join(&self.name))
    }
}

fn netns_path(pod: &str) -> String {
    format!("/run/netns/{pod}")
}

/// A fresh attachment for a pod, with the arguments that Kubernetes' runtimes give.
fn new_attachment(pod: &str) -> Attachment {
    let args = [("IgnoreUnknown", "1"), ("K8S_POD_NAMESPACE", "default"), ("K8S_POD_NAME", pod)];
    Attachment {
        container: new_container_id(),
        netns: Some(netns_path(pod)),
        interface: INTERFACE.to_owned(),
        args: args.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        capabilities: Map::new(),
    }
}

/// An id that no other container of any lab has.
fn new_container_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos:024x}{:08x}{:08x}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
