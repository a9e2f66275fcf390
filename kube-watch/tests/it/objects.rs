//! Single objects, read and changed by who follows nothing.

use kube_watch::{Objects, WatchConfig, WriteError};
use serde_json::{Value, json};

use crate::server::Server;

const SECRETS: &str = "/api/v1/namespaces/single/secrets";
const LABEL: &str = "manx.io/single";

#[tokio::test]
async fn an_object_is_read_and_changed_only_in_the_version_that_a_patch_names() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("single", json!({})).await;
    cluster.create(SECRETS, json!({ "metadata": { "name": "empty" } })).await;
    let config = WatchConfig::new(Some(server.admin(server.port())), "n1".parse().unwrap());
    let mut objects = Objects::new(config).await.unwrap();

    let found = objects.get(SECRETS, "empty").await.unwrap().unwrap();
    assert_eq!(objects.get(SECRETS, "none").await.unwrap(), None);

    let version = found.pointer("/metadata/resourceVersion").unwrap();
    let filling = json!({ "metadata": { "resourceVersion": version }, "stringData": { "key": "value" } });
    objects.patch(SECRETS, "empty", &filling).await.unwrap();
    let filled = objects.get(SECRETS, "empty").await.unwrap().unwrap();
    assert_eq!(filled.pointer("/data/key").and_then(Value::as_str), Some("dmFsdWU="));
    for name in ["empty", "none"] {
        let error = objects.patch(SECRETS, name, &filling).await.unwrap_err();
        assert!(matches!(&error, WriteError::Outdated { object } if object.ends_with(name)), "{error}");
    }

    assert!(!objects.is_any_labelled(SECRETS, LABEL).await.unwrap());
    objects.patch(SECRETS, "empty", &json!({ "metadata": { "labels": { LABEL: "" } } })).await.unwrap();
    assert!(objects.is_any_labelled(SECRETS, LABEL).await.unwrap());
}
