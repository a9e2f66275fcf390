//! Events on Nodes: made, changed, taken back.

use serde_json::{Value, json};

use crate::following::config_of;
use crate::server::Server;

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test]
async fn a_warning_of_a_node_is_one_event_that_changes_and_goes_again() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.create("/api/v1/nodes", json!({ "metadata": { "name": "warned" } })).await;
    let watches = kube_watch::start(config_of(&server, server.port(), "warned")).await.unwrap();
    let mut writer = watches.tasks.writer();
    let seen = async || {
        let list = cluster.get(EVENTS).await;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events.into_iter().filter(|event| event["involvedObject"]["name"] == "warned").collect::<Vec<Value>>()
    };
    // There is none to take back yet.
    writer.end_warning_of_node("warned").await.unwrap();
    for message in ["the binary is gone", "the binary cannot be run"] {
        writer.warn_of_node("warned", "CNIConfiguration", message).await.unwrap();
        let events = seen().await;
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(
            (&event["message"], &event["type"], &event["reason"]),
            (&json!(message), &json!("Warning"), &json!("CNIConfiguration"))
        );
        assert_eq!(event["involvedObject"]["kind"], "Node");
    }
    for _ in 0..2 {
        writer.end_warning_of_node("warned").await.unwrap();
        assert!(seen().await.is_empty());
    }
}
