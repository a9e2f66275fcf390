//! Services and EndpointSlices, and what is kept of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use serde_json::Value;
use types::{AddressCondition, EndpointSlice, Family, NamespacedName, Requested, Service};

use crate::Resource;
use crate::kinds::path_of;
use crate::object::Kind;

/// Services of all namespaces.
#[derive(Debug, Clone)]
pub(crate) enum Services {}

/// EndpointSlices of all namespaces, but for those of headless Services: nobody announces these.
#[derive(Debug, Clone)]
pub(crate) enum EndpointSlices {}

/// A Service as the API server has it, without all that is not used.
#[derive(Deserialize)]
struct ServiceObject {
    metadata: ServiceMetadata,
    spec: Option<ServiceSpec>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceMetadata {
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    annotations: Option<ServiceAnnotations>,
}

#[derive(Default, Deserialize)]
struct ServiceAnnotations {
    #[serde(rename = "projectcalico.org/loadBalancerIPs")]
    load_balancer_ips: Option<String>,
    #[serde(rename = "projectcalico.org/ipv4pools")]
    ipv4_pools: Option<String>,
    #[serde(rename = "projectcalico.org/ipv6pools")]
    ipv6_pools: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    r#type: Option<String>,
    load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    ip_families: Option<Vec<String>>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    external_traffic_policy: Option<String>,
    ports: Option<Vec<ServicePort>>,
    health_check_node_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    node_port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    load_balancer: Option<LoadBalancerStatus>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Default, Deserialize)]
struct LoadBalancerStatus {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize)]
struct Ingress {
    ip: Option<String>,
    hostname: Option<String>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

impl Kind for Services {
    type Key = NamespacedName;
    type Value = Service;
    const RESOURCE: Resource = Resource::Services;

    fn path() -> String {
        path_of::<core::Service>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn key(namespace: &str, name: &str) -> NamespacedName {
        NamespacedName::new(namespace, name)
    }

    fn read(_: &NamespacedName, object: Value) -> Result<Service, serde_json::Error> {
        let ServiceObject { metadata, spec, status } = serde_json::from_value(object)?;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let ingress = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default();
        let kind = spec.r#type.as_deref().unwrap_or("ClusterIP");
        let is_external_name = kind == "ExternalName";
        let said = status.conditions.into_iter().flatten().find(|condition| condition.r#type == AddressCondition::TYPE);
        let requested = requested(spec.load_balancer_ip, metadata.annotations.unwrap_or_default());
        Ok(Service {
            uid: metadata.uid.unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
            created: metadata.creation_timestamp.unwrap_or_default(),
            is_load_balancer: kind == "LoadBalancer" && metadata.deletion_timestamp.is_none(),
            class: spec.load_balancer_class,
            families: spec.ip_families.iter().flatten().filter_map(|name| family(name)).collect(),
            // A Service of this type may have kept fields of an earlier one; none of them is served.
            cluster_ips: if is_external_name { Vec::new() } else { addresses(spec.cluster_ips) },
            external_ips: if is_external_name { Vec::new() } else { addresses(spec.external_ips) },
            has_ingress_hostname: ingress.iter().any(|entry| entry.hostname.is_some()),
            ingress: addresses(Some(ingress.into_iter().filter_map(|entry| entry.ip).collect())),
            is_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            node_ports: node_ports(spec.ports, spec.health_check_node_port),
            requested,
            said: said.map(|condition| AddressCondition {
                is_met: condition.status == "True",
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
            }),
        })
    }

    fn incarnation(_: &Service) -> Option<&str> {
        None
    }
}

/// The ports that it has on every node, whatever their protocol.
fn node_ports(ports: Option<Vec<ServicePort>>, health_check: Option<u16>) -> BTreeSet<u16> {
    let ports = ports.into_iter().flatten().filter_map(|port| port.node_port);
    ports.chain(health_check).filter(|port| *port != 0).collect()
}

/// Addresses; what is none (`None` of a headless Service) is left out.
fn addresses(texts: Option<Vec<String>>) -> Vec<IpAddr> {
    texts.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

fn family(name: &str) -> Option<Family> {
    match name {
        "IPv4" => Some(Family::Ipv4),
        "IPv6" => Some(Family::Ipv6),
        _ => None,
    }
}

/// What a Service asks for. What cannot be read is said, and not taken for a wish that was never made.
fn requested(load_balancer_ip: Option<String>, annotations: ServiceAnnotations) -> Requested {
    let ServiceAnnotations { load_balancer_ips, ipv4_pools, ipv6_pools } = annotations;
    let mut problem = None;
    let mut list = |key: &str, text: Option<String>| -> Vec<String> {
        let Some(text) = text else { return Vec::new() };
        serde_json::from_str(&text).unwrap_or_else(|_| {
            problem = Some(format!("the annotation projectcalico.org/{key} is not a JSON list of texts: {text}"));
            Vec::new()
        })
    };
    let annotated = list("loadBalancerIPs", load_balancer_ips);
    let pools = [(Family::Ipv4, list("ipv4pools", ipv4_pools)), (Family::Ipv6, list("ipv6pools", ipv6_pools))];
    let mut addresses = Vec::new();
    for text in load_balancer_ip.into_iter().filter(|text| !text.is_empty()).chain(annotated) {
        match text.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_) => problem = Some(format!("{text:?} is requested, which is not an address")),
        }
    }
    Requested { addresses, pools: pools.into_iter().filter(|(_, names)| !names.is_empty()).collect(), problem }
}

/// The label by which an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceObject {
    metadata: SliceMetadata,
    address_type: Option<String>,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct SliceMetadata {
    labels: Option<SliceLabels>,
}

#[derive(Deserialize)]
struct SliceLabels {
    #[serde(rename = "kubernetes.io/service-name")]
    service_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    node_name: Option<String>,
    conditions: Option<EndpointConditions>,
}

#[derive(Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
}

impl Kind for EndpointSlices {
    type Key = NamespacedName;
    type Value = EndpointSlice;
    const RESOURCE: Resource = Resource::EndpointSlices;

    fn path() -> String {
        path_of::<discovery::EndpointSlice>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn labels() -> Option<String> {
        Some(format!("!service.kubernetes.io/headless,{SERVICE_NAME}"))
    }

    fn key(namespace: &str, name: &str) -> NamespacedName {
        NamespacedName::new(namespace, name)
    }

    fn read(key: &NamespacedName, object: Value) -> Result<EndpointSlice, serde_json::Error> {
        let SliceObject { metadata, address_type, endpoints } = serde_json::from_value(object)?;
        let name = metadata.labels.and_then(|labels| labels.service_name);
        // Unknown readiness is to be taken as ready (the API's words for `conditions.ready`).
        let ready = endpoints
            .into_iter()
            .flatten()
            .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
        let nodes: BTreeSet<String> = ready.filter_map(|endpoint| endpoint.node_name).collect();
        Ok(EndpointSlice {
            service: name.map(|name| NamespacedName::new(key.namespace.clone(), name)),
            family: address_type.as_deref().and_then(family),
            ready_nodes: nodes.into_iter().collect(),
        })
    }

    fn incarnation(_: &EndpointSlice) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests;
