//! Makes a client from files and variables. They are read anew whenever a client is made, so that certificates and tokens
//! that rotate are followed.

use std::collections::BTreeMap;
use std::path::Path;

use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::{Client, Config};

use crate::error::chain;
use crate::{WatchConfig, WatchError};

/// The name of everything in a kubeconfig that we write ourselves.
const SERVICE_ACCOUNT: &str = "service-account";

/// A client, and the URL of the API server it asks.
pub(crate) async fn client(config: &WatchConfig) -> Result<(Client, String), WatchError> {
    let (source, kubeconfig) = kubeconfig(config)?;
    let in_error = |error: &dyn std::error::Error| WatchError::Config { key: source.clone(), what: chain(error) };
    let proxied =
        kubeconfig.clusters.iter().any(|named| named.cluster.as_ref().is_some_and(|it| it.proxy_url.is_some()));
    let from_service_account = kubeconfig.current_context.as_deref() == Some(SERVICE_ACCOUNT);
    let mut access = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| in_error(&error))?;
    if let Some(url) = &config.api_server {
        access.cluster_url = url
            .parse()
            .map_err(|error| WatchError::Config { key: "api_server".to_owned(), what: format!("{url:?}: {error}") })?;
    }
    if !proxied {
        // kube takes HTTPS_PROXY from the environment; that is for the world outside, not for the way to our own cluster.
        access.proxy_url = None;
    }
    if from_service_account {
        // Read again every minute, as the token file is; without it a rotated CA would be noticed only at a failure.
        access.root_cert_file = Some(config.service_account.join("ca.crt"));
    }
    // The default retries up to 15 times by itself, in silence, with delays up to 1,000 s.
    access.default_retry = false;
    let server = access.cluster_url.to_string();
    let client = Client::try_from(access).map_err(|error| in_error(&error))?;
    Ok((client, server))
}

/// The kubeconfig in force, and where it comes from.
fn kubeconfig(config: &WatchConfig) -> Result<(String, Kubeconfig), WatchError> {
    if let Some(path) = &config.kubeconfig {
        let key = path.display().to_string();
        return read(&key, Kubeconfig::read_from(path)).map(|read| (key, read));
    }
    let key = "KUBECONFIG";
    if let Some(found) = read(key, Kubeconfig::from_env())? {
        return Ok((key.to_owned(), found));
    }
    service_account(config)
}

fn read<T>(key: &str, read: Result<T, KubeconfigError>) -> Result<T, WatchError> {
    read.map_err(|error| WatchError::Config { key: key.to_owned(), what: chain(&error) })
}

/// A service account, said as a kubeconfig, so that one path of kube reads both. kube's own (`Config::incluster`) has its
/// paths fixed, and its errors do not name them.
fn service_account(config: &WatchConfig) -> Result<(String, Kubeconfig), WatchError> {
    let folder = &config.service_account;
    let server = match &config.api_server {
        Some(url) => url.clone(),
        None => format!("https://{}", in_cluster_authority()?),
    };
    let (ca, token) = (readable(folder, "ca.crt")?, readable(folder, "token")?);
    let cluster = Cluster { server: Some(server), certificate_authority: Some(ca), ..Cluster::default() };
    let user = AuthInfo { token_file: Some(token), ..AuthInfo::default() };
    let context = Context {
        cluster: SERVICE_ACCOUNT.to_owned(),
        user: Some(SERVICE_ACCOUNT.to_owned()),
        // A token that is put together by hand may have none beside it; only Secrets need it.
        namespace: std::fs::read_to_string(folder.join("namespace")).ok().map(|name| name.trim().to_owned()),
        ..Context::default()
    };
    let name = || SERVICE_ACCOUNT.to_owned();
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), other: BTreeMap::new() }],
        auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), other: BTreeMap::new() }],
        contexts: vec![NamedContext { name: name(), context: Some(context), other: BTreeMap::new() }],
        current_context: Some(name()),
        ..Kubeconfig::default()
    };
    Ok((folder.display().to_string(), kubeconfig))
}

/// Host and port of the Service in front of the API servers, as the kubelet tells every pod.
fn in_cluster_authority() -> Result<String, WatchError> {
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    // An IPv6 address is bracketed in a URL (RFC 3986 section 3.2.2).
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn variable(name: &str) -> Result<String, WatchError> {
    std::env::var(name).map_err(|_| WatchError::Config {
        key: name.to_owned(),
        what: "not set, so this is no pod of a cluster; without a service account a kubeconfig is needed".to_owned(),
    })
}

/// The path of a file of the service account, which can be read.
fn readable(folder: &Path, name: &str) -> Result<String, WatchError> {
    let path = folder.join(name);
    let key = path.display().to_string();
    match std::fs::read(&path) {
        Ok(content) if content.is_empty() => Err(WatchError::Config { key, what: "is empty".to_owned() }),
        Ok(_) => Ok(key),
        Err(error) => Err(WatchError::Config { key, what: error.to_string() }),
    }
}
