//! Services and EndpointSlices, told and written.

use std::net::IpAddr;
use std::sync::Arc;

use kube_watch::{Resource, Watches, WriteError};
use serde_json::{Value, json};
use types::{AddressCondition, Family, NamespacedName};

use crate::cluster::TestedCluster;
use crate::following::config_of;
use crate::picture::{Picture, status_of};
use crate::server::Server;

async fn started(namespace: &str) -> Option<(Arc<Server>, TestedCluster, Watches)> {
    let server = Server::shared().await?;
    let cluster = server.cluster().await;
    cluster.namespace(namespace, json!({})).await;
    let watches = kube_watch::start(config_of(&server, server.port(), namespace)).await.unwrap();
    Some((server, cluster, watches))
}

fn services(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services")
}

fn slices(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

fn load_balancer(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "annotations": { "projectcalico.org/loadBalancerIPs": "[\"203.0.113.7\"]" } },
        "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{ "port": 80 }] },
    })
}

fn met(reason: &str) -> AddressCondition {
    AddressCondition { is_met: true, reason: reason.to_owned(), message: "it has them".to_owned() }
}

#[tokio::test]
async fn a_service_is_told_and_its_addresses_are_written_to_the_version_that_was_told() {
    let Some((_server, cluster, watches)) = started("services").await else { return };
    let mut seen = Picture::new(watches.tasks.services());
    seen.in_sync(1).await;
    let web = NamespacedName::new("services", "web");
    cluster.create(&services("services"), load_balancer("web")).await;
    seen.until("made", |seen| seen.now.contains_key(&web)).await;
    let made = seen.now[&web].clone();
    assert!(made.is_load_balancer && made.is_local && made.ingress.is_empty() && made.said.is_none());
    assert_eq!((made.families.as_slice(), made.cluster_ips.len()), ([Family::Ipv4].as_slice(), 1));
    let wanted: IpAddr = [203, 0, 113, 7].into();
    assert_eq!(made.requested.addresses, [wanted]);

    let mut writer = watches.tasks.writer();
    let said = met("Assigned");
    let version = writer.put_addresses(&web, &made.version, &[wanted], Some(&said)).await.unwrap();
    seen.until("addressed", |seen| seen.now[&web].ingress == [wanted]).await;
    assert_eq!(seen.now[&web].version, version);
    assert_eq!(seen.now[&web].said, Some(said.clone()));
    // Somebody who has not seen that does not undo it.
    let late = writer.put_addresses(&web, &made.version, &[], None).await;
    assert!(matches!(late, Err(WriteError::Outdated { .. })), "{late:?}");

    // Others' conditions stay.
    let status = format!("{}/web/status", services("services"));
    let others = json!({
        "type": "other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let ours = json!({
        "type": AddressCondition::TYPE, "status": "True", "reason": "Assigned", "message": "it has them",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let version = seen.now[&web].version.clone();
    cluster.patch(&status, json!({ "status": { "conditions": [ours, others] } })).await;
    seen.until("changed", |seen| seen.now[&web].version != version).await;
    let version = seen.now[&web].version.clone();
    writer.put_addresses(&web, &version, &[], None).await.unwrap();
    seen.until("released", |seen| seen.now[&web].ingress.is_empty()).await;
    assert_eq!(seen.now[&web].said, None);
    let stored = cluster.get(&format!("{}/web", services("services"))).await;
    assert_eq!(stored["status"]["conditions"][0]["type"], "other");

    cluster.delete(&format!("{}/web", services("services"))).await;
    seen.until("deleted", |seen| !seen.now.contains_key(&web)).await;
    let gone = writer.put_addresses(&web, &version, &[wanted], None).await;
    assert!(matches!(gone, Err(WriteError::Outdated { .. })), "{gone:?}");
}

#[tokio::test]
async fn the_nodes_of_a_services_ready_endpoints_are_told_and_headless_services_are_not() {
    let Some((_server, cluster, watches)) = started("slices").await else { return };
    let mut seen = Picture::new(watches.tasks.endpoint_slices());
    seen.in_sync(1).await;
    let slice = |name: &str, ready: bool| {
        json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "nodeName": "node1", "conditions": { "ready": ready } }],
        })
    };
    let mut headless = slice("headless", true);
    headless["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
    cluster.create(&slices("slices"), headless).await;
    cluster.create(&slices("slices"), slice("web-1", true)).await;
    let web = NamespacedName::new("slices", "web-1");
    seen.until("made", |seen| seen.now.contains_key(&web)).await;
    assert_eq!(seen.now[&web].service, Some(NamespacedName::new("slices", "web")));
    assert_eq!(seen.now[&web].ready_nodes, ["node1"]);
    assert!(seen.now.keys().all(|key| key.name != "headless"));
    cluster.patch(&format!("{}/web-1", slices("slices")), slice("web-1", false)).await;
    seen.until("unready", |seen| seen.now[&web].ready_nodes.is_empty()).await;
}

#[tokio::test]
async fn a_watch_that_is_begun_anew_fares_as_the_new_one_does() {
    let Some((_server, _cluster, watches)) = started("anew").await else { return };
    let mut status = watches.status.clone();
    assert!(!status.borrow().watches.contains_key(&Resource::Services));
    drop(watches.tasks.services());
    let mut seen = Picture::new(watches.tasks.services());
    seen.in_sync(1).await;
    status_of(&mut status, Resource::Services, |watch| watch.connected_since.is_some() && watch.listings == 1).await;
    drop(seen);
    let gone = status.wait_for(|status| !status.watches.contains_key(&Resource::Services));
    tokio::time::timeout(crate::picture::TEST_TIME_LIMIT, gone).await.expect("it has nothing to say").unwrap();
}
