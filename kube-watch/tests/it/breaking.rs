//! A connection that breaks.

use std::time::Duration;

use kube_watch::{Resource, WatchConfig, WatchError};
use serde_json::json;

use crate::cluster::{pods, policies};
use crate::following::{config_of, pod_name, policy_id};
use crate::picture::{Picture, Said, status_of};
use crate::server::Server;
use crate::wire::Wire;

#[tokio::test]
async fn a_watch_that_breaks_goes_on_where_it_was_without_listing_again() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("broken", json!({})).await;
    cluster.policy("broken", "old", json!({ "podSelector": {} })).await;
    let wire = Wire::to(server.port()).await;
    let mut watches = kube_watch::start(config_of(&server, wire.port(), "broken")).await.unwrap();
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    status_of(&mut watches.status, Resource::NetworkPolicies, |watch| watch.connected_since.is_some()).await;

    wire.cut();
    cluster.delete(&format!("{}/old", policies("broken"))).await;
    cluster.policy("broken", "new", json!({ "podSelector": {} })).await;
    let lost = status_of(&mut watches.status, Resource::NetworkPolicies, |watch| watch.connected_since.is_none()).await;
    assert!(matches!(lost.last_failure.unwrap().error, WatchError::Unavailable { .. }));
    let unlisted = watches.status.borrow().unlisted();
    assert!(!unlisted.iter().any(|reason| reason.contains("networkpolicies")), "what was listed once stays known");

    wire.mend();
    seen.until("new", |seen| seen.now.contains_key(&policy_id("broken", "new"))).await;
    assert_eq!(seen.count(&Said::Delete(policy_id("broken", "old"))), 1);
    assert_eq!(seen.count(&Said::Restart), 1);
    let mended =
        status_of(&mut watches.status, Resource::NetworkPolicies, |watch| watch.connected_since.is_some()).await;
    assert_eq!(mended.listings, 1);
}

#[tokio::test]
async fn a_connection_that_went_dead_without_a_word_is_noticed() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("dead", json!({})).await;
    let wire = Wire::to(server.port()).await;
    let silence = Duration::from_secs(1);
    let watches = kube_watch::start(WatchConfig { silence, ..config_of(&server, wire.port(), "dead") }).await.unwrap();
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    cluster.policy("dead", "first", json!({ "podSelector": {} })).await;
    seen.until("first", |seen| seen.now.contains_key(&policy_id("dead", "first"))).await;
    wire.freeze();
    cluster.policy("dead", "second", json!({ "podSelector": {} })).await;
    seen.until("second", |seen| seen.now.contains_key(&policy_id("dead", "second"))).await;
    assert_eq!(seen.count(&Said::Restart), 1);
}

#[tokio::test]
async fn a_watch_that_the_server_ends_goes_on_without_listing_again() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("ended", json!({})).await;
    let watch_timeout = Duration::from_secs(1);
    let config = WatchConfig { watch_timeout, ..config_of(&server, server.port(), "ended") };
    let mut watches = kube_watch::start(config).await.unwrap();
    let mut seen = Picture::new(watches.pods);
    seen.in_sync(1).await;
    for number in 0..4 {
        let name = format!("p{number}");
        cluster.pod("ended", &name, Some("ended")).await;
        seen.until("there", |seen| seen.now.contains_key(&pod_name("ended", &name))).await;
        // Longer than a watch lasts.
        tokio::time::sleep(watch_timeout).await;
    }
    cluster.delete(&format!("{}/p0", pods("ended"))).await;
    seen.until("gone", |seen| !seen.now.contains_key(&pod_name("ended", "p0"))).await;
    assert_eq!(seen.count(&Said::Restart), 1);
    let fared = status_of(&mut watches.status, Resource::Pods, |_| true).await;
    assert_eq!(fared.last_failure, None, "an end that was asked for is no failure");
}
