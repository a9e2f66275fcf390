//! `manxctl certs`: certificates for etcd, and what etcd lets their owners do.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::certs::{Authority, Certificate, Subject, Validity};
use crate::cli::{Certs, CertsCommand, CertsMake, CertsRoles, CertsSecrets, Place};
use crate::datastore;
use crate::render;

/// The files of everybody who speaks with etcd, in a folder or a Secret: as those of type kubernetes.io/tls have them.
const CA: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The Secrets of the etcd for trying out (manifests/components/etcd).
const SERVER_SECRET: &str = "manx-etcd-server";
const CLIENT_SECRET: &str = "manx-etcd-client";

/// Marks the node that this etcd is bound to.
const ETCD_LABEL: &str = "manx.io/etcd";

/// etcd's user that may do all, and so the owner of its certificate.
const ROOT: &str = "root";

pub(crate) async fn run(place: &Place, args: Certs) -> anyhow::Result<()> {
    match args.command {
        CertsCommand::Make(args) => make(&args),
        CertsCommand::Roles(args) => roles(place, args).await,
        CertsCommand::Secrets(args) => secrets(&args).await,
    }
}

/// Makes what is not there yet.
fn make(args: &CertsMake) -> anyhow::Result<()> {
    let validity = Validity { now: SystemTime::now(), days: args.days };
    let folder = args.dir.join("ca");
    let authority = match (read(&folder.join(CA))?, read(&folder.join("ca.key"))?) {
        (Some(certificate), Some(key)) => {
            let read = Authority::read(&Certificate { certificate, key });
            read.with_context(|| format!("{} (keys are read as PKCS #8)", folder.display()))?
        }
        (None, None) => {
            let (authority, own) = Authority::new(validity)?;
            make_folder(&folder)?;
            write(&folder.join("ca.key"), &own.key)?;
            write(&folder.join(CA), &own.certificate)?;
            render::say(&format!("{}: a new authority", folder.display()))?;
            authority
        }
        _ => anyhow::bail!("{}: of ca.crt and ca.key one is missing", folder.display()),
    };
    let server = (!args.server.is_empty()).then(|| ("server", Subject::Server(args.server.clone())));
    let names = std::iter::once(ROOT).chain(args.clients.iter().map(|name| name.as_str()));
    for (name, subject) in server.into_iter().chain(names.map(|name| (name, Subject::Client(name.to_owned())))) {
        let folder = args.dir.join(name);
        if folder.join(CERTIFICATE).exists() {
            render::say(&format!("{}: is there", folder.display()))?;
            continue;
        }
        let made = authority.sign(&subject, validity).with_context(|| name.to_owned())?;
        make_folder(&folder)?;
        write(&folder.join(CA), authority.certificate())?;
        write(&folder.join(KEY), &made.key)?;
        // Last, as its being there says that all is.
        write(&folder.join(CERTIFICATE), &made.certificate)?;
        render::say(&format!("{}: made", folder.display()))?;
    }
    Ok(())
}

/// Tells etcd what nodes may do.
async fn roles(place: &Place, args: CertsRoles) -> anyhow::Result<()> {
    let config = datastore::etcd_config(place)?.context("no etcd is configured (MANX_ETCD_ENDPOINTS)")?;
    let etcd = store::Etcd::connect(config).await?;
    // What no node may write: the layout's version.
    store::check_schema(&etcd).await?;
    for node in &args.nodes {
        etcd.confine(node).await?;
        render::say(&format!("{node}: writes its own keys, blocks, borrowed and elected; reads all of Manx"))?;
    }
    if args.enable {
        etcd.enable_authentication().await?;
        render::say("etcd's authentication is on: a client is the user that its certificate names")?;
    }
    Ok(())
}

/// Fills the Secrets of the etcd for trying out, unless they are filled.
async fn secrets(args: &CertsSecrets) -> anyhow::Result<()> {
    let server = ApiServer::of_this_pod()?;
    let path = |name: &str| format!("/api/v1/namespaces/{}/secrets/{name}", args.namespace);
    let (of_server, of_client) = (server.get(&path(SERVER_SECRET)).await?, server.get(&path(CLIENT_SECRET)).await?);
    if is_filled(&of_server) && is_filled(&of_client) {
        render::say("the Secrets are filled")?;
    } else {
        // Both anew: they are good together only. The authority's key is not kept, so there will be no third.
        let validity = Validity { now: SystemTime::now(), days: args.days };
        let (authority, _) = Authority::new(validity)?;
        for (name, found, subject) in [
            (SERVER_SECRET, of_server, Subject::Server(places(args.address, args.namespace.as_str()))),
            (CLIENT_SECRET, of_client, Subject::Client("manx".to_owned())),
        ] {
            let made = authority.sign(&subject, validity)?;
            server.patch(&path(name), &filling(&found, authority.certificate(), &made)).await?;
            render::say(&format!("Secret {name}: filled"))?;
        }
    }
    // The node last: etcd starts there, and the Secrets are what it starts with.
    let marked = server.get(&format!("/api/v1/nodes?labelSelector={}", ETCD_LABEL.replace('/', "%2F"))).await?;
    if marked.get("items").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let label = json!({ "metadata": { "labels": { ETCD_LABEL: "" } } });
        server.patch(&format!("/api/v1/nodes/{}", args.node), &label).await?;
        render::say(&format!("node {}: is where etcd runs", args.node))?;
    }
    Ok(())
}

/// All that etcd may be asked by.
fn places(address: IpAddr, namespace: &str) -> Vec<String> {
    let service = ["etcd".to_owned(), format!("etcd.{namespace}"), format!("etcd.{namespace}.svc")];
    let own = [address.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    own.into_iter().chain(service).collect()
}

fn is_filled(secret: &Value) -> bool {
    let filled = |key: &str| {
        secret.get("data").and_then(|data| data.get(key)).and_then(Value::as_str).is_some_and(|it| !it.is_empty())
    };
    [CA, CERTIFICATE, KEY].into_iter().all(filled)
}

/// What makes a Secret hold a certificate, if it is still as it was found: of two that fill it, one is refused.
fn filling(found: &Value, ca: &str, made: &Certificate) -> Value {
    json!({
        "metadata": { "resourceVersion": found.pointer("/metadata/resourceVersion") },
        "stringData": { CA: ca, CERTIFICATE: made.certificate, KEY: made.key },
    })
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Keys lie in it.
fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mode = if path.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(dir: &Path, clients: &[&str]) -> CertsMake {
        let clients = clients.iter().map(|name| name.parse().unwrap()).collect();
        CertsMake { dir: dir.to_owned(), server: vec!["10.0.0.1".to_owned(), "etcd.test".to_owned()], days: 1, clients }
    }

    #[test]
    fn a_node_more_is_signed_by_the_same_authority_and_what_was_made_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("pki");
        let text = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
        make(&args(&dir, &["node-1"])).unwrap();
        let (authority, first) = (text("ca/ca.crt"), text("node-1/tls.crt"));
        make(&args(&dir, &["node-1", "node-2"])).unwrap();
        assert_eq!((text("ca/ca.crt"), text("node-1/tls.crt")), (authority.clone(), first));
        for owner in ["server", "root", "node-1", "node-2"] {
            assert_eq!(text(&format!("{owner}/ca.crt")), authority);
            let key = fs::metadata(dir.join(owner).join(KEY)).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600);
        }
        fs::remove_file(dir.join("ca/ca.key")).unwrap();
        let error = make(&args(&dir, &[])).unwrap_err().to_string();
        assert!(error.contains("one is missing"), "{error}");
    }

    #[test]
    fn a_secret_is_filled_when_it_has_all_three() {
        assert!(!is_filled(&json!({ "metadata": {} })));
        assert!(!is_filled(&json!({ "data": { CA: "x", CERTIFICATE: "x", KEY: "" } })));
        assert!(is_filled(&json!({ "data": { CA: "x", CERTIFICATE: "x", KEY: "x" } })));
    }

    #[test]
    fn a_secret_is_filled_only_as_it_was_found() {
        let made = Certificate { certificate: "cert".to_owned(), key: "key".to_owned() };
        let patch = filling(&json!({ "metadata": { "resourceVersion": "7" } }), "ca", &made);
        assert_eq!(patch.pointer("/metadata/resourceVersion"), Some(&json!("7")));
        assert_eq!(patch.pointer("/stringData/ca.crt"), Some(&json!("ca")));
    }
}
