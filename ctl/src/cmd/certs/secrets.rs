//! `manxctl certs secrets`: what the Job of the etcd for trying out (manifests/components/etcd) tells the API server.

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::Context as _;
use kube_watch::{Objects, WatchConfig};
use serde_json::{Value, json};
use types::ResourceName;

use super::authority::{Authority, Certificate, Subject, Validity};
use super::{CA, CERTIFICATE, KEY};
use crate::cli::CertsSecrets;
use crate::render;

/// The Secrets of this etcd and of its clients.
const SERVER_SECRET: &str = "manx-etcd-server";
const CLIENT_SECRET: &str = "manx-etcd-client";

/// Marks the node that this etcd is bound to.
const ETCD_LABEL: &str = "manx.io/etcd";

/// The API server's path of Node objects.
const NODES: &str = "/api/v1/nodes";

/// Fills the Secrets, unless they are filled, and marks the node, unless one is marked.
pub(crate) async fn fill(args: &CertsSecrets) -> anyhow::Result<()> {
    // This Job's pod asks as its service account.
    let mut server = Objects::new(WatchConfig::new(None, args.node.clone())).await?;
    let of_server = secret(&mut server, &args.namespace, SERVER_SECRET).await?;
    let of_client = secret(&mut server, &args.namespace, CLIENT_SECRET).await?;
    if is_filled(&of_server) && is_filled(&of_client) {
        render::say("the Secrets are filled")?;
    } else {
        // Both are made anew, as they are good together only: the authority's key is not kept, so that nobody can sign a
        // third certificate.
        let validity = Validity { now: SystemTime::now(), days: args.days };
        let (authority, _) = Authority::new(validity)?;
        for (name, found, subject) in [
            (SERVER_SECRET, of_server, Subject::Server(places(args.address, args.namespace.as_str()))),
            (CLIENT_SECRET, of_client, Subject::Client("manx".to_owned())),
        ] {
            let made = authority.sign(&subject, validity)?;
            server.patch(&secrets_of(&args.namespace), name, &filling(&found, authority.certificate(), &made)).await?;
            render::say(&format!("Secret {name}: filled"))?;
        }
    }
    // The node is marked last: etcd starts there, and needs the Secrets to start.
    if !server.is_any_labelled(NODES, ETCD_LABEL).await? {
        let label = json!({ "metadata": { "labels": { ETCD_LABEL: "" } } });
        server.patch(NODES, args.node.as_str(), &label).await?;
        render::say(&format!("node {}: is where etcd runs", args.node))?;
    }
    Ok(())
}

/// A Secret of the namespace, which is there since before this is run.
async fn secret(server: &mut Objects, namespace: &ResourceName, name: &str) -> anyhow::Result<Value> {
    let found = server.get(&secrets_of(namespace), name).await?;
    found.with_context(|| format!("there is no Secret {name} in namespace {namespace}"))
}

/// The API server's path of a namespace's Secrets.
fn secrets_of(namespace: &ResourceName) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

/// All names and addresses by which clients may reach etcd.
fn places(address: IpAddr, namespace: &str) -> Vec<String> {
    let service = ["etcd".to_owned(), format!("etcd.{namespace}"), format!("etcd.{namespace}.svc")];
    let own = [address.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    own.into_iter().chain(service).collect()
}

/// Whether a Secret has a certificate, its key and its authority's certificate.
fn is_filled(secret: &Value) -> bool {
    let filled = |key: &str| {
        secret.get("data").and_then(|data| data.get(key)).and_then(Value::as_str).is_some_and(|it| !it.is_empty())
    };
    [CA, CERTIFICATE, KEY].into_iter().all(filled)
}

/// The patch that puts a certificate into a Secret, if it is still as it was found: of two Jobs that fill it, one is
/// refused.
fn filling(found: &Value, ca: &str, made: &Certificate) -> Value {
    json!({
        "metadata": { "resourceVersion": found.pointer("/metadata/resourceVersion") },
        "stringData": { CA: ca, CERTIFICATE: made.certificate, KEY: made.key },
    })
}

#[cfg(test)]
mod tests;
