//! Who we are to the API server, and how we know that it is ours.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube_watch::{Resource, WatchConfig, WatchError};
use serde_json::json;

use crate::cluster::TestedCluster;
use crate::following::policy_id;
use crate::picture::{Picture, Said, TEST_TIME_LIMIT, status_of};
use crate::server::{Server, url};
use crate::wire::Wire;

/// The folder of a service account, as the kubelet mounts it.
fn mount(folder: &Path, ca: &Path, token: &str) {
    std::fs::copy(ca, folder.join("ca.crt")).unwrap();
    std::fs::write(folder.join("token"), token).unwrap();
}

/// The settings of an agent in a pod, whose service account lies in a folder.
fn in_cluster(folder: &Path, port: u16, node: &str) -> WatchConfig {
    WatchConfig {
        api_server: Some(url(port)),
        service_account: folder.to_owned(),
        ..WatchConfig::new(None, node.parse().unwrap())
    }
}

#[tokio::test]
async fn a_service_account_whose_token_is_replaced_goes_on_where_it_was() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("rotated", json!({})).await;
    cluster.service_account("rotated", "agent-rotated", true).await;
    let first = cluster.token("rotated", "agent-rotated", "first").await;
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), &server.ca(), &first);
    let wire = Wire::to(server.port()).await;
    let mut watches = kube_watch::start(in_cluster(folder.path(), wire.port(), "rotated")).await.unwrap();
    let mut seen = Picture::new(watches.policies);
    seen.in_sync(1).await;

    wire.cut();
    cluster.delete("/api/v1/namespaces/rotated/secrets/first").await;
    let with_first = TestedCluster::of(&server.kubeconfig(server.port(), &json!({ "token": first }))).await;
    let refused = async {
        // The API server remembers for 10 s that a token was good.
        while with_first.knows_us().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(TEST_TIME_LIMIT, refused).await.expect("the first token ends");
    wire.mend();
    let unknown = |error: &WatchError| matches!(error, WatchError::Refused { unknown: true, .. });
    status_of(&mut watches.status, Resource::NetworkPolicies, |watch| {
        watch.last_failure.as_ref().is_some_and(|failure| unknown(&failure.error))
    })
    .await;

    let second = cluster.token("rotated", "agent-rotated", "second").await;
    mount(folder.path(), &server.ca(), &second);
    cluster.policy("rotated", "p", json!({ "podSelector": {} })).await;
    seen.until("there", |seen| seen.now.contains_key(&policy_id("rotated", "p"))).await;
    assert_eq!(seen.count(&Said::Restart), 1);
}

#[tokio::test]
async fn an_account_without_the_right_to_read_is_told_what_it_lacks_and_goes_on_once_it_has_it() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("denied", json!({})).await;
    cluster.service_account("denied", "agent-denied", false).await;
    let token = cluster.token("denied", "agent-denied", "token").await;
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), &server.ca(), &token);
    let mut watches = kube_watch::start(in_cluster(folder.path(), server.port(), "denied")).await.unwrap();
    let fared = status_of(&mut watches.status, Resource::NetworkPolicies, |watch| watch.last_failure.is_some()).await;
    let WatchError::Refused { what, unknown: false, .. } = fared.last_failure.unwrap().error else { panic!() };
    assert!(what.contains("agent-denied") && what.contains("networkpolicies"), "{what}");
    let unlisted = watches.status.borrow().unlisted();
    assert!(
        unlisted.iter().any(|reason| reason.starts_with("networkpolicies not listed yet: https://")),
        "{unlisted:?}"
    );

    cluster.allow("denied", "agent-denied").await;
    Picture::new(watches.policies).in_sync(1).await;
    Picture::new(watches.namespaces).in_sync(1).await;
    Picture::new(watches.pods).in_sync(1).await;
    Picture::new(watches.node).in_sync(1).await;
    assert!(watches.status.borrow().unlisted().is_empty());
}

#[tokio::test]
async fn a_server_whose_certificate_is_of_another_ca_is_told_nothing_and_named() {
    let Some(server) = Server::shared().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (ca, key) = (folder.path().join("other.crt"), folder.path().join("other.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "1"]);
    let made = openssl.arg("-out").arg(&ca).arg("-keyout").arg(&key).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    mount(folder.path(), &ca, "no-token");
    let mut watches = kube_watch::start(in_cluster(folder.path(), server.port(), "deceived")).await.unwrap();
    let fared = status_of(&mut watches.status, Resource::Namespaces, |watch| watch.last_failure.is_some()).await;
    let error = fared.last_failure.unwrap().error;
    let WatchError::Unavailable { server: named, what, .. } = &error else { panic!("{error:?}") };
    assert!(named.starts_with(&url(server.port())), "{named}");
    assert!(what.contains("invalid peer certificate"), "{what}");

    // The right CA, put in place of the wrong one, is noticed without a restart.
    let cluster = server.cluster().await;
    cluster.namespace("deceived", json!({})).await;
    cluster.service_account("deceived", "agent-deceived", true).await;
    let token = cluster.token("deceived", "agent-deceived", "token").await;
    mount(folder.path(), &server.ca(), &token);
    Picture::new(watches.namespaces).in_sync(1).await;
}

#[tokio::test]
async fn without_settings_the_environment_names_a_kubeconfig_or_else_the_service_in_front_of_the_servers() {
    let Some(server) = Server::shared().await else { return };
    let cluster = server.cluster().await;
    cluster.namespace("environment", json!({})).await;
    cluster.service_account("environment", "agent-environment", true).await;
    let token = cluster.token("environment", "agent-environment", "token").await;
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), &server.ca(), &token);
    // Variables belong to a process: each environment is one of its own, which runs the test below.
    let says = async |variables: &[(&str, &str)]| {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args(["access::in_an_environment", "--exact", "--ignored", "--nocapture"]);
        child.env(SERVICE_ACCOUNT, folder.path()).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
        let output = child.envs(variables.iter().copied()).kill_on_drop(true).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let port = server.port().to_string();
    let pod = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", port.as_str())];
    assert!(says(&pod).await.contains("in sync"));
    let kubeconfig = server.admin(server.port()).display().to_string();
    // Found first, so that the other is not asked.
    let both =
        [("KUBECONFIG", kubeconfig.as_str()), ("KUBERNETES_SERVICE_HOST", "none"), ("KUBERNETES_SERVICE_PORT", "1")];
    assert!(says(&both).await.contains("in sync"));
    assert!(says(&[]).await.contains("KUBERNETES_SERVICE_HOST: not set"));
}

/// Where the test below finds a service account.
const SERVICE_ACCOUNT: &str = "MANX_TEST_SERVICE_ACCOUNT";

#[tokio::test]
#[ignore = "run by the test above, in environments of its making"]
async fn in_an_environment() {
    let Some(folder) = std::env::var_os(SERVICE_ACCOUNT) else { return };
    let config = WatchConfig { service_account: folder.into(), ..WatchConfig::new(None, "n1".parse().unwrap()) };
    match kube_watch::start(config).await {
        Ok(watches) => {
            Picture::new(watches.namespaces).in_sync(1).await;
            println!("in sync");
        }
        Err(error) => println!("{error}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_said_at_once_with_the_file_or_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = async |config: WatchConfig| match kube_watch::start(config).await {
        Err(WatchError::Config { key, what }) => (key, what),
        other => panic!("{other:?}"),
    };
    let path = folder.path().join("kubeconfig");
    let with_file = || WatchConfig::new(Some(path.clone()), "n1".parse().unwrap());
    assert_eq!(refused(with_file()).await.0, path.display().to_string());
    std::fs::write(&path, "clusters: [{name: c, cluster: {server: 'https://[::1]:6443'}}]").unwrap();
    let (key, what) = refused(with_file()).await;
    assert!(key == path.display().to_string() && what.contains("current context"), "{what}");
    let dangling = json!({
        "clusters": [{ "name": "c", "cluster": { "server": "https://[::1]:6443", "certificate-authority": "ca.crt" } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c" } }],
        "current-context": "x",
    });
    std::fs::write(&path, dangling.to_string()).unwrap();
    let (_, what) = refused(with_file()).await;
    assert!(what.contains(&folder.path().join("ca.crt").display().to_string()), "{what}");

    let account = in_cluster(folder.path(), 6443, "n1");
    assert_eq!(refused(account.clone()).await.0, folder.path().join("ca.crt").display().to_string());
    std::fs::write(folder.path().join("ca.crt"), "no certificate").unwrap();
    assert_eq!(refused(account.clone()).await.0, folder.path().join("token").display().to_string());
    std::fs::write(folder.path().join("token"), "t").unwrap();
    let (_, what) = refused(account).await;
    assert!(what.contains("certificate"), "{what}");
}
