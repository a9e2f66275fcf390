//! The four kinds that are always watched, and what is kept of each.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use serde::Deserialize;
use serde_json::{Map, Value};
use types::host_ports::{DeclaredPort, PodPorts};
use types::policy::{Labels, PolicyId, PolicyKind, Protocol};
use types::{EndpointPort, NamespacedName, Pod, PodRef};

use crate::object::Kind;
use crate::{Node, Resource};

/// The NetworkPolicies of all namespaces.
#[derive(Debug, Clone)]
pub(crate) enum NetworkPolicies {}

/// All Namespaces.
#[derive(Debug, Clone)]
pub(crate) enum Namespaces {}

/// The Pods bound to this node.
#[derive(Debug, Clone)]
pub(crate) enum Pods {}

/// This node's Node.
#[derive(Debug, Clone)]
pub(crate) enum Nodes {}

/// All Nodes, of which the names matter.
#[derive(Debug, Clone)]
pub(crate) enum AllNodes {}

/// The path of all objects of a type.
pub(crate) fn path_of<T: kube::Resource<DynamicType = ()>>() -> String {
    T::url_path(&(), None)
}

impl Kind for NetworkPolicies {
    type Key = PolicyId;
    type Value = Value;
    const RESOURCE: Resource = Resource::NetworkPolicies;

    fn path() -> String {
        path_of::<networking::NetworkPolicy>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn key(namespace: &str, name: &str) -> PolicyId {
        PolicyId { kind: PolicyKind::NetworkPolicy, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Never fails: what a policy means, and what becomes of one that makes no sense, is not decided here.
    fn read(_: &PolicyId, mut object: Value) -> Result<Self::Value, serde_json::Error> {
        let spec = object.get_mut("spec").map(Value::take).filter(|spec| !spec.is_null());
        // One that says nothing is one without anything in it, as it is where policies are in the store.
        Ok(spec.unwrap_or_else(|| Value::Object(Map::new())))
    }

    fn incarnation(_: &Self::Value) -> Option<&str> {
        None
    }
}

/// An object of which the labels matter.
#[derive(Deserialize)]
struct Labelled {
    metadata: LabelledMetadata,
}

#[derive(Deserialize)]
struct LabelledMetadata {
    labels: Option<Labels>,
}

fn labels(object: Value) -> Result<Labels, serde_json::Error> {
    serde_json::from_value(object).map(|object: Labelled| object.metadata.labels.unwrap_or_default())
}

impl Kind for Namespaces {
    type Key = String;
    type Value = Labels;
    const RESOURCE: Resource = Resource::Namespaces;

    fn path() -> String {
        path_of::<core::Namespace>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn key(_: &str, name: &str) -> String {
        name.to_owned()
    }

    fn read(_: &String, object: Value) -> Result<Labels, serde_json::Error> {
        labels(object)
    }

    fn incarnation(_: &Labels) -> Option<&str> {
        None
    }
}

impl Kind for Nodes {
    type Key = String;
    type Value = Node;
    const RESOURCE: Resource = Resource::Nodes;

    fn path() -> String {
        path_of::<core::Node>()
    }

    fn fields(node_name: &str) -> Option<String> {
        Some(format!("metadata.name={node_name}"))
    }

    fn key(_: &str, name: &str) -> String {
        name.to_owned()
    }

    fn read(_: &String, object: Value) -> Result<Node, serde_json::Error> {
        Node::read(object)
    }

    fn incarnation(_: &Node) -> Option<&str> {
        None
    }
}

impl Kind for AllNodes {
    type Key = String;
    type Value = ();
    const RESOURCE: Resource = Resource::AllNodes;

    fn path() -> String {
        path_of::<core::Node>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn key(_: &str, name: &str) -> String {
        name.to_owned()
    }

    fn read(_: &String, _: Value) -> Result<(), serde_json::Error> {
        Ok(())
    }

    fn incarnation(_: &()) -> Option<&str> {
        None
    }
}

/// A Pod as the API server has it, without all that is not used. The API leaves out empty fields or says null.
#[derive(Deserialize)]
struct PodObject {
    metadata: PodMetadata,
    spec: PodSpec,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
struct PodMetadata {
    uid: Option<String>,
    labels: Option<Labels>,
    annotations: Option<PodAnnotations>,
}

#[derive(Default, Deserialize)]
struct PodAnnotations {
    #[serde(rename = "kubernetes.io/config.hash")]
    config_hash: Option<String>,
    // `types::host_ports::WISH_ANNOTATION`.
    #[serde(rename = "manx.io/hostport")]
    host_ports: Option<String>,
    // `types::host_ports::GIVEN_ANNOTATION`.
    #[serde(rename = "manx.io/hostports")]
    given_host_ports: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    protocol: Option<Protocol>,
    container_port: u16,
    host_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: IpAddr,
}

impl Kind for Pods {
    type Key = NamespacedName;
    type Value = Pod;
    const RESOURCE: Resource = Resource::Pods;

    fn path() -> String {
        path_of::<core::Pod>()
    }

    fn fields(node_name: &str) -> Option<String> {
        Some(format!("spec.nodeName={node_name}"))
    }

    fn key(namespace: &str, name: &str) -> NamespacedName {
        NamespacedName::new(namespace, name)
    }

    fn read(key: &NamespacedName, object: Value) -> Result<Pod, serde_json::Error> {
        let PodObject { metadata, spec, status } = serde_json::from_value(object)?;
        let PodStatus { phase, pod_ips } = status.unwrap_or(PodStatus { phase: None, pod_ips: None });
        let annotations = metadata.annotations.unwrap_or_default();
        let ports = ports(spec.containers.unwrap_or_default(), spec.init_containers.unwrap_or_default());
        Ok(Pod {
            reference: PodRef { namespace: key.namespace.clone(), name: key.name.clone(), uid: metadata.uid },
            config_hash: annotations.config_hash,
            labels: metadata.labels.unwrap_or_default(),
            host_ports: host_ports((annotations.host_ports, annotations.given_host_ports), &ports),
            ports: named(ports),
            host_network: spec.host_network.unwrap_or_default(),
            finished: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
            addresses: pod_ips.into_iter().flatten().map(|address| address.ip).collect(),
        })
    }

    fn incarnation(pod: &Pod) -> Option<&str> {
        pod.reference.uid.as_deref()
    }
}

/// The ports of the containers that run beside each other: those of `containers`, and init containers that restart
/// (sidecars). A plain init container has ended before they listen.
fn ports(containers: Vec<Container>, init_containers: Vec<Container>) -> Vec<ContainerPort> {
    let sidecars = init_containers.into_iter().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    containers.into_iter().chain(sidecars).flat_map(|container| container.ports.unwrap_or_default()).collect()
}

/// What they say of host ports. What no host port comes of is left out: every node holds this of each of its pods.
fn host_ports((wish, told): (Option<String>, Option<String>), ports: &[ContainerPort]) -> PodPorts {
    let declared = ports.iter().map(|port| DeclaredPort {
        protocol: port.protocol.unwrap_or(Protocol::Tcp),
        container_port: port.container_port,
        // 0 is none.
        host_port: port.host_port.filter(|port| *port != 0),
    });
    let matter = declared.filter(|port| wish.is_some() || port.host_port.is_some());
    PodPorts { declared: matter.collect(), wish, told }
}

/// Those that have names.
fn named(ports: Vec<ContainerPort>) -> Vec<EndpointPort> {
    let named = ports.into_iter().filter_map(|port| {
        let protocol = port.protocol.unwrap_or(Protocol::Tcp);
        Some(EndpointPort { name: port.name?, protocol, port: port.container_port })
    });
    named.collect()
}

#[cfg(test)]
mod tests;
