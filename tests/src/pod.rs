//! Pods: network namespaces of their own in a node, plugged in by CNI.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use types::{EndpointPort, Family};

use crate::LabError;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::place::Place;
use crate::runtime::{Attachment, Runtime, addresses, cached};

/// The pod's interface, as Kubernetes' runtimes name it.
const INTERFACE: &str = "eth0";

/// The namespace of pods that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// Describes a pod to be made: what its runtime tells the CNI plugins of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`: the UID of the Pod object, where there is Kubernetes.
    pub uid: Option<String>,
    /// `args.cni.labels`.
    pub labels: BTreeMap<String, String>,
    /// `args.cni["manx.io/ports"]`.
    pub ports: Vec<EndpointPort>,
}

impl PodSpec {
    /// Describes a pod of the namespace `default`, without labels and named ports.
    pub fn new(name: &str) -> Self {
        Self::in_namespace(DEFAULT_NAMESPACE, name)
    }

    /// Describes a pod without labels and named ports.
    pub fn in_namespace(namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name, uid: None, labels: BTreeMap::new(), ports: Vec::new() }
    }

    /// Gives the pod one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Makes the pod the one of this Pod object.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }

    /// Gives the pod one more named port.
    #[must_use]
    pub fn port(mut self, port: EndpointPort) -> Self {
        self.ports.push(port);
        self
    }

    /// What the lab calls it on its node, and its network namespace in `/run/netns`: the name, behind that of its
    /// namespace unless that is `default`.
    pub fn sandbox(&self) -> String {
        match self.namespace.as_str() {
            DEFAULT_NAMESPACE => self.name.clone(),
            namespace => format!("{namespace}.{}", self.name),
        }
    }

    /// A fresh attachment, with the arguments that Kubernetes' runtimes give.
    fn attachment(&self) -> Attachment {
        let named = [("K8S_POD_NAMESPACE", self.namespace.as_str()), ("K8S_POD_NAME", self.name.as_str())];
        let uid = self.uid.as_deref().map(|uid| ("K8S_POD_UID", uid));
        let args = [("IgnoreUnknown", "1")].into_iter().chain(named).chain(uid);
        let mut cni_args = Map::new();
        if !self.labels.is_empty() {
            cni_args.insert("labels".to_owned(), json!(self.labels));
        }
        if !self.ports.is_empty() {
            cni_args.insert("manx.io/ports".to_owned(), json!(self.ports));
        }
        Attachment {
            container: new_container_id(),
            netns: Some(netns_path(&self.sandbox())),
            interface: INTERFACE.to_owned(),
            args: args.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            capabilities: Map::new(),
            cni_args,
        }
    }
}

/// A pod's network namespace before it is plugged in: with `lo` alone. Processes may run in it already.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The node that the pod is on.
    node: Namespace,
    /// The description of the pod.
    spec: PodSpec,
}

impl Sandbox {
    /// Makes the namespace.
    pub(crate) fn create(node: &Node, spec: PodSpec) -> Result<Self, LabError> {
        let name = spec.sandbox();
        node.exec(&["ip", "netns", "add", &name])?;
        let sandbox = Self { node: node.namespace().clone(), spec };
        if let Err(error) = node.exec(&["ip", "-n", &name, "link", "set", "lo", "up"]) {
            sandbox.delete()?;
            return Err(error);
        }
        Ok(sandbox)
    }

    /// Calls ADD, and DEL if that fails, as runtimes do. The namespace stays.
    pub(crate) fn plug(&self, runtime: &Runtime) -> Result<Pod, LabError> {
        let attachment = self.spec.attachment();
        let result = runtime.add(&attachment).inspect_err(|_| {
            // If DEL fails too, the error of the ADD is the one to tell.
            let _ = runtime.del(&attachment);
        })?;
        Ok(Pod::of(self.node.clone(), &self.spec.sandbox(), attachment, result))
    }

    /// Removes the namespace of a pod that is not plugged in.
    pub fn delete(&self) -> Result<(), LabError> {
        delete_netns(&self.node, &self.spec.sandbox())
    }

    /// The description of the pod.
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// What a runtime calls ADD with for it, of a new container each time: for tests that look between ADD and DEL.
    pub fn attachment(&self) -> Attachment {
        self.spec.attachment()
    }
}

impl Place for Sandbox {
    fn name(&self) -> String {
        format!("{}/{}", self.node.name(), self.spec.sandbox())
    }

    fn command(&self, program: &str) -> Command {
        command_in(&self.node, &self.spec.sandbox(), program)
    }

    fn netns(&self) -> io::Result<File> {
        File::open(self.node.root().join("run/netns").join(self.spec.sandbox()))
    }
}

/// A pod that has been plugged in. Cheap enough to clone; it stays until it is unplugged or the lab ends.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The node that the pod is on.
    node: Namespace,
    /// Its sandbox's name, also its namespace's in the node's `/run/netns`.
    name: String,
    /// The attachment that ADD was called for.
    pub attachment: Attachment,
    /// The answer of the ADD.
    pub result: Value,
    /// The addresses in that answer.
    addresses: Vec<IpAddr>,
}

impl Pod {
    /// Makes the namespace and calls ADD; if that fails, DEL, and the namespace goes again.
    pub(crate) fn create(node: &Node, spec: PodSpec) -> Result<Self, LabError> {
        let runtime = node.runtime()?;
        let sandbox = Sandbox::create(node, spec)?;
        let pod = sandbox.plug(&runtime);
        if pod.is_err() {
            sandbox.delete()?;
        }
        pod
    }

    /// Finds a pod that another process plugged in, by what its runtime cached.
    pub(crate) fn find(node: &Node, name: &str) -> Result<Self, LabError> {
        let netns = netns_path(name);
        let cached =
            cached(node.namespace()).into_iter().find(|cached| cached.attachment.netns.as_ref() == Some(&netns));
        let cached = cached.ok_or_else(|| LabError::NoSuchNode { what: "pod", name: name.to_owned() })?;
        Ok(Self::of(node.namespace().clone(), name, cached.attachment, cached.result))
    }

    fn of(node: Namespace, name: &str, attachment: Attachment, result: Value) -> Self {
        let addresses = addresses(&result);
        Self { node, name: name.to_owned(), attachment, result, addresses }
    }

    /// Calls DEL, removes the namespace, and calls DEL once more without it, as containerd does.
    pub(crate) fn remove(self, runtime: &Runtime) -> Result<(), LabError> {
        runtime.del(&self.attachment)?;
        delete_netns(&self.node, &self.name)?;
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
        command_in(&self.node, &self.name, program)
    }

    fn netns(&self) -> io::Result<File> {
        File::open(self.node.root().join("run/netns").join(&self.name))
    }
}

fn command_in(node: &Namespace, sandbox: &str, program: &str) -> Command {
    let mut command = node.command("nsenter");
    command.arg(format!("--net={}", netns_path(sandbox))).args(["--", program]);
    command
}

fn delete_netns(node: &Namespace, sandbox: &str) -> Result<(), LabError> {
    let deleted = node.command("ip").args(["netns", "delete", sandbox]).output();
    let deleted = deleted.map_err(LabError::io(format!("removing the namespace of {sandbox}")))?;
    if deleted.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        place: node.name().to_owned(),
        command: format!("ip netns delete {sandbox}"),
        status: deleted.status.to_string(),
        output: String::from_utf8_lossy(&deleted.stderr).trim().to_owned(),
    })
}

fn netns_path(sandbox: &str) -> String {
    format!("/run/netns/{sandbox}")
}

/// A container id that no other container of any lab has.
fn new_container_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos:024x}{:08x}{:08x}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
