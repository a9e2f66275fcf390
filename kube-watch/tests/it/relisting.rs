//! History that is lost: killed, compacted and replaced API servers.

use std::collections::BTreeSet;

use kube_watch::{Resource, WatchConfig};
use serde_json::json;

use crate::cluster::{pods, policies};
use crate::following::{config_of, pod_name, policy_id};
use crate::picture::{Picture, Said, status_of};
use crate::server::Server;
use crate::wire::Wire;

#[tokio::test]
async fn nothing_is_said_while_the_api_server_is_away_and_all_that_changed_when_it_is_back() {
    let Some(mut server) = Server::start().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("away", json!({})).await;
    cluster.policy("away", "stays", json!({ "podSelector": {} })).await;
    let mut watches = kube_watch::start(config_of(&server, server.port(), "away")).await.unwrap();
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    let resource = Resource::NetworkPolicies;
    status_of(&mut watches.status, resource, |watch| watch.connected_since.is_some()).await;
    let said = seen.said.len();

    server.kill();
    status_of(&mut watches.status, resource, |watch| watch.connected_since.is_none()).await;
    let failed = |watch: &kube_watch::WatchStatus| watch.last_failure.as_ref().map(|failure| failure.at);
    let first = failed(&status_of(&mut watches.status, resource, |_| true).await);
    status_of(&mut watches.status, resource, |watch| failed(watch) > first).await;
    assert!(seen.is_quiet() && seen.said.len() == said, "{:?}", seen.said);

    server.run().await;
    server.cluster().await.policy("away", "new", json!({ "podSelector": {} })).await;
    seen.until("new", |seen| seen.now.contains_key(&policy_id("away", "new"))).await;
    assert!(seen.now.contains_key(&policy_id("away", "stays")));
    assert_eq!(seen.count(&Said::Delete(policy_id("away", "stays"))), 0);
}

#[tokio::test]
async fn after_compaction_everything_is_listed_again_and_what_vanished_is_gone_at_in_sync_not_before() {
    let Some(mut server) = Server::start().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("lost", json!({})).await;
    for name in ["stays", "vanishes"] {
        cluster.policy("lost", name, json!({ "podSelector": {} })).await;
        cluster.pod("lost", name, Some("lost")).await;
    }
    let wire = Wire::to(server.port()).await;
    let watches = kube_watch::start(config_of(&server, wire.port(), "lost")).await.unwrap();
    let (mut seen, mut seen_pods) = (Picture::new(watches.policies), Picture::new(watches.pods));
    seen.in_sync(1).await;
    seen_pods.in_sync(1).await;

    wire.cut();
    cluster.delete(&format!("{}/vanishes", policies("lost"))).await;
    cluster.delete(&format!("{}/vanishes", pods("lost"))).await;
    cluster.delete(&format!("{}/stays", pods("lost"))).await;
    let uid = cluster.pod("lost", "stays", Some("lost")).await;
    server.compact().await;
    wire.mend();

    seen.until("listing", |seen| seen.count(&Said::Restart) == 2).await;
    assert!(seen.now.contains_key(&policy_id("lost", "vanishes")), "a listing that begins takes nothing away");
    seen.until("listed", |seen| seen.count(&Said::Set(policy_id("lost", "stays"))) == 2).await;
    assert!(seen.now.contains_key(&policy_id("lost", "vanishes")), "nor does one that is not complete");
    seen.in_sync(2).await;
    assert_eq!(seen.now.keys().collect::<Vec<_>>(), [&policy_id("lost", "stays")]);
    assert_eq!(seen.count(&Said::Delete(policy_id("lost", "vanishes"))), 0);

    seen_pods.in_sync(2).await;
    let stays = pod_name("lost", "stays");
    assert_eq!(seen_pods.now.keys().collect::<Vec<_>>(), [&stays]);
    assert_eq!(seen_pods.now[&stays].reference.uid, Some(uid));
    assert_eq!(seen_pods.count(&Said::Delete(stays)), 1, "another pod under the same name");
}

#[tokio::test]
async fn a_listing_whose_continuation_has_expired_begins_again_and_is_never_in_sync_half() {
    let Some(mut server) = Server::start().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("half", json!({})).await;
    let names: BTreeSet<String> = (0..400).map(|number| format!("p{number}")).collect();
    for name in &names {
        cluster.policy("half", name, json!({ "podSelector": {} })).await;
    }
    // The reader does not read, so the watch stops within the third page.
    let config = WatchConfig { page_size: 100, ..config_of(&server, server.port(), "half") };
    let mut watches = kube_watch::start(config).await.unwrap();
    let full = async {
        while watches.policies.len() < watches.policies.max_capacity() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::picture::TEST_TIME_LIMIT, full).await.expect("so much is listed");
    cluster.delete(&format!("{}/p0", policies("half"))).await;
    server.compact().await;

    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    assert!(seen.count(&Said::Restart) >= 2, "it began again");
    let there: BTreeSet<String> = seen.now.keys().map(|id| id.name.clone()).collect();
    let wanted: BTreeSet<String> = names.into_iter().filter(|name| name != "p0").collect();
    assert_eq!(there, wanted);
    let fared = status_of(&mut watches.status, Resource::NetworkPolicies, |watch| watch.listings > 0).await;
    assert_eq!(fared.listings, 1);
    assert_eq!(fared.last_failure, None, "an expired continuation is none, and nothing else made it begin again");
}

#[tokio::test]
async fn a_server_whose_history_went_back_is_believed_and_listed_anew() {
    let Some(mut server) = Server::start().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("before", json!({})).await;
    for number in 0..200 {
        cluster.policy("before", &format!("p{number}"), json!({ "podSelector": {} })).await;
    }
    let wire = Wire::to(server.port()).await;
    let watches = kube_watch::start(config_of(&server, wire.port(), "restored")).await.unwrap();
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;
    wire.cut();
    server.replace().await;
    wire.mend();
    seen.in_sync(2).await;
    assert!(seen.now.is_empty());
    let cluster = server.cluster().await;
    cluster.namespace("after", json!({})).await;
    cluster.policy("after", "p", json!({ "podSelector": {} })).await;
    seen.until("after", |seen| seen.now.contains_key(&policy_id("after", "p"))).await;
}
