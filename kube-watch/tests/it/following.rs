//! What is told while all goes well.

use std::sync::Arc;

use kube_watch::{WatchConfig, Watches};
use serde_json::json;
use types::NamespacedName;
use types::policy::{Labels, PolicyId, PolicyKind};

use crate::cluster::{TestedCluster, pods, policies};
use crate::picture::{Picture, Said};
use crate::server::Server;

pub(crate) fn policy_id(namespace: &str, name: &str) -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: namespace.to_owned(), name: name.to_owned() }
}

pub(crate) fn pod_name(namespace: &str, name: &str) -> NamespacedName {
    NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The settings of a node that asks through a port.
pub(crate) fn config_of(server: &Server, port: u16, node: &str) -> WatchConfig {
    WatchConfig::new(Some(server.admin(port)), node.parse().unwrap())
}

/// The shared server with a namespace for one test, and the watches of a node that bears the same name.
async fn started(namespace: &str) -> Option<(Arc<Server>, TestedCluster, Watches)> {
    let server = Server::shared().await?;
    let cluster = server.cluster().await;
    cluster.namespace(namespace, json!({ "team": namespace })).await;
    let watches = kube_watch::start(config_of(&server, server.port(), namespace)).await.unwrap();
    Some((server, cluster, watches))
}

#[tokio::test]
async fn a_policy_is_told_when_it_is_made_changed_and_deleted() {
    let Some((_server, cluster, watches)) = started("policy-life").await else { return };
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    let id = policy_id("policy-life", "p");
    cluster.policy("policy-life", "p", json!({ "podSelector": {} })).await;
    seen.until("made", |seen| seen.now.contains_key(&id)).await;
    assert_eq!(seen.now[&id]["policyTypes"], json!(["Ingress"]));
    let path = format!("{}/p", policies("policy-life"));
    cluster.patch(&path, json!({ "spec": { "policyTypes": ["Ingress", "Egress"] } })).await;
    seen.until("changed", |seen| seen.now[&id]["policyTypes"] == json!(["Ingress", "Egress"])).await;
    cluster.delete(&path).await;
    seen.until("deleted", |seen| seen.count(&Said::Delete(id.clone())) == 1).await;
    assert_eq!(seen.count(&Said::Restart), 1, "all of it on one watch");
}

#[tokio::test]
async fn a_namespace_is_told_with_its_labels() {
    let Some((_server, cluster, watches)) = started("labelled").await else { return };
    let mut seen = Picture::new(watches.namespaces);
    seen.in_sync(1).await;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let named = label("kubernetes.io/metadata.name", "labelled");
    assert_eq!(seen.now["labelled"], Labels::from([named.clone(), label("team", "labelled")]));
    cluster.patch("/api/v1/namespaces/labelled", json!({ "metadata": { "labels": { "team": "red" } } })).await;
    let wanted = Labels::from([named, label("team", "red")]);
    seen.until("relabelled", |seen| seen.now["labelled"] == wanted).await;
}

#[tokio::test]
async fn only_pods_bound_to_this_node_are_told_from_the_moment_they_are_bound() {
    let Some((_server, cluster, watches)) = started("bound").await else { return };
    let mut seen = Picture::new(watches.pods);
    seen.in_sync(1).await;
    cluster.pod("bound", "elsewhere", Some("another-node")).await;
    cluster.pod("bound", "unbound", None).await;
    let uid = cluster.pod("bound", "here", Some("bound")).await;
    let here = pod_name("bound", "here");
    seen.until("here", |seen| seen.now.contains_key(&here)).await;
    let pod = &seen.now[&here];
    assert_eq!(pod.reference.uid.as_ref(), Some(&uid));
    assert_eq!((pod.ports[0].name.as_str(), pod.ports[0].port, pod.finished), ("http", 80, false));
    let binding = json!({ "metadata": { "name": "unbound" }, "target": { "kind": "Node", "name": "bound" } });
    cluster.create(&format!("{}/unbound/binding", pods("bound")), binding).await;
    let late = pod_name("bound", "unbound");
    seen.until("bound", |seen| seen.now.contains_key(&late)).await;
    assert_eq!(seen.now.keys().collect::<Vec<_>>(), [&here, &late]);
}

#[tokio::test]
async fn a_pod_is_told_with_its_addresses_and_its_end() {
    let Some((_server, cluster, watches)) = started("phases").await else { return };
    let mut seen = Picture::new(watches.pods);
    cluster.pod("phases", "job", Some("phases")).await;
    let job = pod_name("phases", "job");
    seen.until("there", |seen| seen.now.contains_key(&job)).await;
    let status = format!("{}/job/status", pods("phases"));
    let running = json!({ "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }] });
    cluster.patch(&status, json!({ "status": running })).await;
    seen.until("addressed", |seen| seen.now[&job].addresses == ["10.0.0.7".parse::<std::net::IpAddr>().unwrap()]).await;
    assert!(!seen.now[&job].finished);
    cluster.patch(&status, json!({ "status": { "phase": "Succeeded" } })).await;
    seen.until("ended", |seen| seen.now[&job].finished).await;
}

#[tokio::test]
async fn a_pod_made_again_under_the_same_name_is_deleted_and_set_with_its_new_uid() {
    let Some((_server, cluster, watches)) = started("again").await else { return };
    let mut seen = Picture::new(watches.pods);
    seen.in_sync(1).await;
    let name = pod_name("again", "web-0");
    cluster.pod("again", "web-0", Some("again")).await;
    cluster.delete(&format!("{}/web-0", pods("again"))).await;
    let uid = cluster.pod("again", "web-0", Some("again")).await;
    let is_new =
        |seen: &Picture<_, types::Pod>| seen.now.get(&name).is_some_and(|pod| pod.reference.uid.as_ref() == Some(&uid));
    seen.until("again", is_new).await;
    assert_eq!(seen.count(&Said::Delete(name.clone())), 1);
    let place = |what: &Said<_>| seen.said.iter().rposition(|said| said == what);
    assert!(place(&Said::Delete(name.clone())) < place(&Said::Set(name.clone())));
}

#[tokio::test]
async fn the_node_is_told_with_its_labels_and_a_node_that_is_not_registered_is_none() {
    let Some((_server, cluster, watches)) = started("rack-7").await else { return };
    let (mut seen, mut seen_pods) = (Picture::new(watches.node), Picture::new(watches.pods));
    seen.in_sync(1).await;
    seen_pods.in_sync(1).await;
    assert!(seen.now.is_empty() && seen_pods.now.is_empty());
    let node = |name: &str| json!({ "metadata": { "name": name, "labels": { "rack": "7" } } });
    cluster.create("/api/v1/nodes", node("rack-8")).await;
    cluster.create("/api/v1/nodes", node("rack-7")).await;
    seen.until("registered", |seen| !seen.now.is_empty()).await;
    assert_eq!(seen.now.keys().collect::<Vec<_>>(), ["rack-7"]);
    assert_eq!(seen.now["rack-7"].labels["rack"], "7");
}

#[tokio::test]
async fn a_list_in_pages_is_in_sync_once_after_the_last_page() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("paged", json!({})).await;
    for number in 0..5 {
        cluster.policy("paged", &format!("p{number}"), json!({ "podSelector": {} })).await;
    }
    let config = WatchConfig { page_size: 2, ..config_of(&server, server.port(), "paged") };
    let watches = kube_watch::start(config).await.unwrap();
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    let listed = seen.now.keys().filter(|id| id.namespace == "paged").count();
    assert_eq!((listed, seen.count(&Said::Restart)), (5, 1));
}

#[tokio::test]
async fn a_watch_ends_with_its_receiver_and_all_of_them_when_they_are_closed() {
    let Some((_server, _cluster, watches)) = started("closing").await else { return };
    drop(watches.policies);
    let mut seen = Picture::new(watches.pods);
    seen.in_sync(1).await;
    tokio::time::timeout(crate::picture::TEST_TIME_LIMIT, watches.tasks.close()).await.expect("they end");
}
