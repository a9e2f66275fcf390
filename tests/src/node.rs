//! A node of a running lab: its namespaces and the services in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;
use types::Family;

use crate::agent::Agent;
use crate::etcd::Etcd;
use crate::frr::Frr;
use crate::namespace::Namespace;
use crate::place::Place;
use crate::process::Service;
use crate::runtime::Runtime;
use crate::topology::{NodeSpec, Role};
use crate::{LabError, Pod, PodSpec, Sandbox};

/// A node: a router, a Manx node, etcd or a plain host.
#[derive(Debug)]
pub struct Node {
    /// The node's namespaces, in which commands run.
    namespace: Namespace,
    /// The topology's entry of the node.
    spec: NodeSpec,
    /// The node's addresses on the management network, IPv4 first.
    management: [IpAddr; 2],
    /// The folder of the logs of the node's services.
    logs: PathBuf,
    /// The services that run in the node now, by the program's name.
    services: Mutex<BTreeMap<String, Service>>,
    /// The node's pods by name.
    pods: Mutex<BTreeMap<String, Pod>>,
}

impl Node {
    pub(crate) fn new(namespace: Namespace, spec: NodeSpec, management: [IpAddr; 2], logs: &Path) -> Self {
        let (services, pods) = (Mutex::default(), Mutex::default());
        Self { namespace, spec, management, logs: logs.to_owned(), services, pods }
    }

    /// The node's namespaces.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The topology's entry of the node.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// What the lab runs in the node.
    pub fn role(&self) -> Role {
        self.spec.role
    }

    /// The node's address on the management network.
    pub fn management_address(&self, family: Family) -> IpAddr {
        let [ipv4, ipv6] = self.management;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }

    /// A file of the node, as the host reaches it. (An absolute symbolic link on the way leads to the host's.)
    pub fn path(&self, inside: &str) -> PathBuf {
        self.namespace.root().join(inside.trim_start_matches('/'))
    }

    /// Its Manx agent.
    ///
    /// # Panics
    /// If this is not a Manx node: a mistake in the test.
    pub fn agent(&self) -> Agent<'_> {
        self.require(Role::Manx);
        Agent { node: self }
    }

    /// Its FRR.
    ///
    /// # Panics
    /// If this is not an FRR node: a mistake in the test.
    pub fn frr(&self) -> Frr<'_> {
        self.require(Role::Frr);
        Frr { node: self }
    }

    /// Its etcd.
    ///
    /// # Panics
    /// If this is not an etcd node: a mistake in the test.
    pub fn etcd(&self) -> Etcd<'_> {
        self.require(Role::Etcd);
        Etcd { node: self }
    }

    fn require(&self, role: Role) {
        assert!(self.spec.role == role, "{} is {:?}, not {role:?}", self.name(), self.spec.role);
    }

    /// Runs the commands that the topology has for it.
    pub(crate) fn configure(&self) -> Result<(), LabError> {
        let lines = self.spec.exec.iter();
        lines
            .map(|words| words.iter().map(String::as_str).collect::<Vec<_>>())
            .try_for_each(|words| self.exec(&words).map(drop))
    }

    /// A container runtime for this node: runs the CNI plugins of its `/etc/cni/net.d`.
    pub fn runtime(&self) -> Result<Runtime, LabError> {
        Runtime::of(self)
    }

    /// Makes a pod: a network namespace of its own, plugged in by the CNI plugins.
    pub fn plug(&self, name: &str) -> Result<Pod, LabError> {
        self.plug_pod(PodSpec::new(name))
    }

    /// Makes a pod of any namespace, with labels and named ports. It is found again by [`PodSpec::sandbox`].
    pub fn plug_pod(&self, spec: PodSpec) -> Result<Pod, LabError> {
        let name = spec.sandbox();
        let pod = Pod::create(self, spec)?;
        self.pods().insert(name, pod.clone());
        Ok(pod)
    }

    /// Makes a pod's network namespace, and does not plug it in: [`Node::plug_sandbox`] does.
    pub fn sandbox(&self, spec: PodSpec) -> Result<Sandbox, LabError> {
        Sandbox::create(self, spec)
    }

    /// Plugs in a pod whose namespace is there. If that fails, the namespace stays.
    pub fn plug_sandbox(&self, sandbox: &Sandbox) -> Result<Pod, LabError> {
        let pod = sandbox.plug(&self.runtime()?)?;
        self.pods().insert(sandbox.spec().sandbox(), pod.clone());
        Ok(pod)
    }

    /// Unplugs a pod and removes its namespace.
    pub fn unplug(&self, name: &str) -> Result<(), LabError> {
        let pod = self.find_pod(name)?;
        pod.remove(&self.runtime()?)?;
        self.pods().remove(name);
        Ok(())
    }

    /// A pod that is plugged in, by this process or another.
    pub fn find_pod(&self, name: &str) -> Result<Pod, LabError> {
        let known = self.pods().get(name).cloned();
        known.map_or_else(|| Pod::find(self, name), Ok)
    }

    pub(crate) fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a program in the background under a name until [`Node::end_service`] or the lab's end.
    pub fn start_service(&self, service: &str, command: Command) -> Result<(), LabError> {
        let mut services = self.services();
        if services.get_mut(service).is_some_and(|running| running.check().is_ok()) {
            return Err(LabError::Io {
                doing: format!("starting {service} on {}", self.name()),
                source: io::ErrorKind::AlreadyExists.into(),
            });
        }
        let started = Service::start(format!("{service} on {}", self.name()), command, &self.log(service))?;
        services.insert(service.to_owned(), started);
        Ok(())
    }

    /// Ends a service with a signal and waits until it is gone. It is no error if the service does not run.
    pub fn end_service(&self, service: &str, signal: Signal) -> Result<(), LabError> {
        let running = self.services().remove(service);
        running.map_or(Ok(()), |running| running.end(signal))
    }

    /// Sends a service a signal.
    pub fn signal_service(&self, service: &str, signal: Signal) -> Result<(), LabError> {
        let services = self.services();
        let running = services.get(service);
        running.ok_or_else(|| LabError::NoSuchNode { what: "service", name: service.to_owned() })?.signal(signal)
    }

    /// Ends all services with SIGKILL.
    pub(crate) fn end_services(&self) -> Result<(), LabError> {
        let services = std::mem::take(&mut *self.services());
        services.into_values().try_for_each(|service| service.end(Signal::SIGKILL))
    }

    /// Whether a service runs; the error quotes its last words.
    pub fn check_service(&self, service: &str) -> Result<(), LabError> {
        let mut services = self.services();
        let running = services.get_mut(service);
        running.ok_or_else(|| LabError::NoSuchNode { what: "service", name: service.to_owned() })?.check()
    }

    /// The process of a service, as the host sees it.
    pub fn service_process(&self, service: &str) -> Option<crate::ProcessId> {
        self.services().get(service).map(Service::process)
    }

    /// The file that a service's output goes to.
    pub fn log(&self, service: &str) -> PathBuf {
        self.logs.join(format!("{}-{service}.log", self.name()))
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place for Node {
    fn name(&self) -> String {
        self.namespace.name().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    fn netns(&self) -> io::Result<File> {
        self.namespace.netns()
    }
}
