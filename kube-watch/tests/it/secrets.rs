//! Single Secrets, by their names.

use kube_watch::{Resource, WatchConfig, WatchError};
use serde_json::{Value, json};
use types::{ResourceName, SessionPassword};

use crate::cluster::TestedCluster;
use crate::picture::{Picture, status_of};
use crate::server::{Server, url};

/// A Secret as an administrator writes it.
fn secret(name: &str, rack1: &str) -> Value {
    json!({ "metadata": { "name": name }, "stringData": { "rack1": rack1, "long": "x".repeat(81) } })
}

/// Lets an account follow Secrets of these names in its own namespace, and no others.
async fn allow_secrets(cluster: &TestedCluster, namespace: &str, account: &str, names: &[&str]) {
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let rule =
        json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["list", "watch"] });
    cluster.create(&format!("{rbac}/roles"), json!({ "metadata": { "name": account }, "rules": [rule] })).await;
    let binding = json!({
        "metadata": { "name": account },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account },
        "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": account }],
    });
    cluster.create(&format!("{rbac}/rolebindings"), binding).await;
}

#[tokio::test]
async fn a_secret_is_followed_by_its_name_with_the_right_to_it_alone() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("passwords", json!({})).await;
    cluster.service_account("passwords", "agent-passwords", true).await;
    allow_secrets(&cluster, "passwords", "agent-passwords", &["bgp-secrets"]).await;
    let token = cluster.token("passwords", "agent-passwords", "token").await;
    let secrets = "/api/v1/namespaces/passwords/secrets";
    cluster.create(secrets, secret("others", "not ours")).await;
    // The same name in another namespace is another Secret.
    cluster.create("/api/v1/namespaces/default/secrets", secret("bgp-secrets", "elsewhere")).await;

    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(server.ca(), folder.path().join("ca.crt")).unwrap();
    std::fs::write(folder.path().join("token"), token).unwrap();
    std::fs::write(folder.path().join("namespace"), "passwords\n").unwrap();
    let config = WatchConfig {
        api_server: Some(url(server.port())),
        service_account: folder.path().to_owned(),
        ..WatchConfig::new(None, "n1".parse().unwrap())
    };
    let mut watches = kube_watch::start(config).await.unwrap();
    let name = |name: &str| ResourceName::new(name).unwrap();
    let mut seen = Picture::new(watches.tasks.secret(&name("bgp-secrets")));
    seen.in_sync(1).await;
    assert!(seen.now.is_empty(), "there is none yet");
    let password = |text: &str| Some(Ok(SessionPassword::new(text.as_bytes()).unwrap()));
    let rack1 = |seen: &Picture<String, kube_watch::Secret>| seen.now.get("bgp-secrets")?.get("rack1").cloned();
    cluster.create(secrets, secret("bgp-secrets", "one\n")).await;
    seen.until("there", |seen| rack1(seen) == password("one")).await;
    let long = seen.now["bgp-secrets"]["long"].clone().unwrap_err().to_string();
    assert!(long.contains("81 octets") && !long.contains("xx"), "{long}");
    cluster.patch(&format!("{secrets}/bgp-secrets"), json!({ "stringData": { "rack1": "two" } })).await;
    seen.until("rotated", |seen| rack1(seen) == password("two")).await;
    cluster.delete(&format!("{secrets}/bgp-secrets")).await;
    seen.until("gone", |seen| seen.now.is_empty()).await;
    assert!(!format!("{:?}", seen.now).contains("two"));

    let mut others = watches.tasks.secret(&name("others"));
    let refused = |watch: &kube_watch::WatchStatus| {
        let failure = watch.last_failure.as_ref().map(|failure| &failure.error);
        matches!(failure, Some(WatchError::Refused { what, .. }) if what.contains("secrets"))
    };
    status_of(&mut watches.status, Resource::Secrets, refused).await;
    assert!(others.try_recv().is_err());
}
