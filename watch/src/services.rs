//! Services and EndpointSlices, and what is kept of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use serde_json::Value;
use types::{AddressCondition, EndpointSlice, Family, Namespaced, Requested, Service};

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
    type Key = Namespaced;
    type Value = Service;
    const RESOURCE: Resource = Resource::Services;

    fn path() -> String {
        path_of::<core::Service>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn key(namespace: &str, name: &str) -> Namespaced {
        Namespaced::new(namespace, name)
    }

    fn read(_: &Namespaced, object: Value) -> Result<Service, serde_json::Error> {
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
    type Key = Namespaced;
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

    fn key(namespace: &str, name: &str) -> Namespaced {
        Namespaced::new(namespace, name)
    }

    fn read(key: &Namespaced, object: Value) -> Result<EndpointSlice, serde_json::Error> {
        let SliceObject { metadata, address_type, endpoints } = serde_json::from_value(object)?;
        let name = metadata.labels.and_then(|labels| labels.service_name);
        // Unknown readiness is to be taken as ready (the API's words for `conditions.ready`).
        let ready = endpoints
            .into_iter()
            .flatten()
            .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
        let nodes: BTreeSet<String> = ready.filter_map(|endpoint| endpoint.node_name).collect();
        Ok(EndpointSlice {
            service: name.map(|name| Namespaced::new(key.namespace.clone(), name)),
            family: address_type.as_deref().and_then(family),
            ready_nodes: nodes.into_iter().collect(),
        })
    }

    fn incarnation(_: &EndpointSlice) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::{Content, Object};

    fn read<K: Kind>(object: Value) -> K::Value {
        match serde_json::from_value::<Object<K>>(object).unwrap().content {
            Content::Read(_, value) => value,
            other => panic!("{other:?}"),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_is_read_with_its_addresses_and_what_it_asks_for() {
        let service = read::<Services>(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {
                    "projectcalico.org/loadBalancerIPs": "[\"203.0.113.7\", \"2001:db8::7\"]",
                    "projectcalico.org/ipv6pools": "[\"six\"]",
                },
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerIP": "203.0.113.7", "ipFamilies": ["IPv4", "IPv6"],
                "clusterIPs": ["10.96.0.7", "fd00:96::7"], "externalIPs": ["198.51.100.7"],
                "externalTrafficPolicy": "Local",
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.7", "ipMode": "VIP" }] }, "conditions": [
                { "type": "other", "status": "False" },
                { "type": "manx.io/LoadBalancerAddresses", "status": "True", "reason": "Assigned", "message": "m" },
            ]},
        }));
        assert!(service.is_load_balancer && service.is_local && service.class.is_none());
        assert_eq!(service.cluster_ips, [address("10.96.0.7"), address("fd00:96::7")]);
        assert_eq!(
            (service.external_ips, service.ingress),
            (vec![address("198.51.100.7")], vec![address("203.0.113.7")])
        );
        assert_eq!(service.families, Family::ALL);
        assert_eq!(service.requested.addresses, [address("203.0.113.7"), address("2001:db8::7")]);
        assert_eq!(service.requested.pools, [(Family::Ipv6, vec!["six".to_owned()])]);
        assert_eq!(service.said.map(|said| (said.is_met, said.reason)), Some((true, "Assigned".to_owned())));
    }

    #[test]
    fn a_service_that_is_headless_external_or_being_deleted_has_nothing_to_serve() {
        let named = |fields: Value, spec: Value| {
            let mut metadata = json!({ "name": "web", "namespace": "shop" });
            metadata.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            read::<Services>(json!({ "metadata": metadata, "spec": spec, "status": { "loadBalancer": {} } }))
        };
        assert!(named(json!({}), json!({ "clusterIPs": ["None"], "clusterIP": "None" })).cluster_ips.is_empty());
        let external = json!({ "type": "ExternalName", "externalIPs": ["198.51.100.7"], "clusterIPs": ["10.96.0.1"] });
        let external = named(json!({}), external);
        assert!(external.external_ips.is_empty() && external.cluster_ips.is_empty());
        let deleted = named(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), json!({ "type": "LoadBalancer" }));
        assert!(!deleted.is_load_balancer);
    }

    #[test]
    fn a_request_that_cannot_be_read_is_said() {
        for (annotation, part) in [("203.0.113.7", "JSON list"), ("[\"web\"]", "not an address")] {
            let service = read::<Services>(json!({
                "metadata": {
                    "name": "web", "namespace": "shop", "annotations": { "projectcalico.org/loadBalancerIPs": annotation },
                },
            }));
            let problem = service.requested.problem.unwrap();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn the_nodes_of_ready_endpoints_are_read_and_unknown_readiness_is_ready() {
        let slice = read::<EndpointSlices>(json!({
            "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.0.0.1"], "nodeName": "b", "conditions": { "ready": true } },
                { "addresses": ["10.0.0.2"], "nodeName": "a", "conditions": {} },
                { "addresses": ["10.0.0.3"], "nodeName": "a" },
                { "addresses": ["10.0.0.4"], "nodeName": "c", "conditions": { "ready": false, "serving": true } },
                { "addresses": ["10.0.0.5"], "conditions": { "ready": true } },
            ],
        }));
        assert_eq!(slice.service, Some(Namespaced::new("shop", "web")));
        assert_eq!((slice.family, slice.ready_nodes), (Some(Family::Ipv4), vec!["a".to_owned(), "b".to_owned()]));
    }
}
