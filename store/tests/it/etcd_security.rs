//! Who may speak with etcd: certificates, users and roles.

use std::path::{Path, PathBuf};

use etcd_client::{Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use store::{Etcd, Store, StoreError, Write};
use tempfile::TempDir;
use types::config::{ClientCertificate, Credentials, EtcdSettings, EtcdTls, Password};

use crate::server::{Server, ServerTls};
use crate::watching::{TEST_TIME_LIMIT, Watching, key, put, values};

/// An authority, with a folder for what it signs.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "manx test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for `name` at 127.0.0.1, and its key.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |suffix: &str| self.folder.path().join(format!("{name}{suffix}"));
        std::fs::write(file(".pem"), certificate.pem()).unwrap();
        std::fs::write(file(".key"), key.serialize_pem()).unwrap();
        (file(".pem"), file(".key"))
    }
}

#[tokio::test]
async fn certificates_let_in_whom_they_should_and_errors_say_what_is_wrong_with_them() {
    let authority = Authority::new();
    let (cert, key_file) = authority.sign("server");
    let tls = ServerTls { ca: authority.ca(), cert, key: key_file };
    let Some(server) = Server::start_with(Some(tls)).await else { return };
    let (cert, key) = authority.sign("node-1");
    let settings = |ca, client| EtcdSettings::new([server.url()], Some(EtcdTls { ca, client })).unwrap();
    let good = ClientCertificate { cert: cert.clone(), key };
    let store = Etcd::connect(settings(authority.ca(), Some(good.clone())).into()).await.unwrap();
    until_there(&store).await;
    put(&store, "a/1", "1").await;
    assert_eq!(Watching::in_sync(&store, "a/").await.state, values(&[("a/1", "1")]));

    let refusal =
        async |settings: EtcdSettings| Etcd::connect(settings.into()).await.unwrap().probe().await.unwrap_err();
    let stranger = Authority::new();
    let error = refusal(settings(stranger.ca(), Some(good))).await.to_string();
    assert!(error.contains(&server.url()) && error.contains("invalid peer certificate"), "{error}");
    let error = refusal(settings(authority.ca(), None)).await.to_string();
    assert!(error.contains(&server.url()), "{error}");

    let swapped = ClientCertificate { cert, key: stranger.sign("other").1 };
    let error = Etcd::connect(settings(authority.ca(), Some(swapped.clone())).into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Config { .. }), "{error}");
    assert!(names(&error, Some(&swapped.cert)) && names(&error, Some(&swapped.key)), "{error}");
}

#[tokio::test]
async fn a_wrong_password_or_a_missing_permission_is_refused_by_the_users_name() {
    let Some(server) = Server::start().await else { return };
    let mut operator = server.operator().await;
    for (user, role) in [("root", "root"), ("manx", "node")] {
        operator.user_add(user, "right", None).await.unwrap();
        operator.role_add(role).await.unwrap();
        operator.user_grant_role(user, role).await.unwrap();
    }
    let own = Permission::new(PermissionType::Readwrite, "/manx/v1/own/").with_prefix();
    operator.role_grant_permission("node", own).await.unwrap();
    // `probe` reads this key.
    operator.role_grant_permission("node", Permission::read("/manx/v1/version")).await.unwrap();
    operator.auth_enable().await.unwrap();

    let settings = |password: &str| settings_of(&server, "manx", password);
    let error = Etcd::connect(settings("wrong").into()).await.unwrap().probe().await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("refused user \"manx\": ") && error.to_string().contains(&server.url()),
        "{error}"
    );

    let nobody = Etcd::connect(EtcdSettings::new([server.url()], None).unwrap().into()).await.unwrap();
    let error = nobody.get(&key("own/1")).await.unwrap_err().to_string();
    assert!(error.contains("refused this client (no etcd.username is set)"), "{error}");

    let store = Etcd::connect(settings("right").into()).await.unwrap();
    put(&store, "own/1", "1").await;
    let mut watching = Watching::in_sync(&store, "own/").await;
    put(&store, "own/2", "2").await;
    watching.until_said("own/2=2").await;
    let error = store.get(&key("others/1")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { user, .. } if user == "user \"manx\""), "{error}");
}

#[tokio::test]
async fn a_watch_and_a_session_of_a_user_survive_that_etcd_forgets_its_tokens() {
    let Some(mut server) = Server::start().await else { return };
    let mut operator = server.operator().await;
    operator.user_add("root", "right", None).await.unwrap();
    operator.role_add("root").await.unwrap();
    operator.user_grant_role("root", "root").await.unwrap();
    operator.auth_enable().await.unwrap();
    let store = Etcd::connect(settings_of(&server, "root", "right").into()).await.unwrap();
    put(&store, "a/1", "1").await;
    let mut watching = Watching::in_sync(&store, "a/").await;
    server.restart().await;
    until_there(&store).await;
    put(&store, "a/2", "2").await;
    watching.until_state(&values(&[("a/1", "1"), ("a/2", "2")])).await;
}

#[tokio::test]
async fn a_node_writes_its_own_keys_and_those_that_all_nodes_share_and_no_other_nodes() {
    let authority = Authority::new();
    let (cert, key_file) = authority.sign("server");
    let tls = ServerTls { ca: authority.ca(), cert, key: key_file };
    let Some(server) = Server::start_with(Some(tls)).await else { return };
    let client = async |name: &str| Etcd::connect(certified(&authority, &server, name).into()).await.unwrap();
    let root = client("root").await;
    until_there(&root).await;
    store::check_schema(&root).await.unwrap();
    // Twice: a node more is a call more.
    for _ in 0..2 {
        for node in ["node-1", "node-2"] {
            root.confine(&node.parse().unwrap()).await.unwrap();
        }
    }
    root.enable_authentication().await.unwrap();
    root.enable_authentication().await.unwrap();

    let node = client("node-1").await;
    store::check_schema(&node).await.unwrap();
    for own in ["nodes/node-1/registration", "blocks/10.0.0.0-26", "borrowed/10.0.0.1", "elected/holder"] {
        put(&node, own, "mine").await;
    }
    let session = node.session(TEST_TIME_LIMIT).await.unwrap();
    let write = Write::Put { key: key("nodes/node-1/alive"), value: b"me".to_vec(), session: Some(session.id()) };
    node.transact(Vec::new(), vec![write]).await.unwrap();

    put(&root, "nodes/node-2/registration", "theirs").await;
    put(&root, "resources/IPPool/a", "theirs").await;
    for others in ["nodes/node-2/registration", "nodes/node-10/registration", "resources/IPPool/a", "version", "other"]
    {
        for write in [Write::put(key(others), b"stolen".to_vec()), Write::Delete { key: key(others) }] {
            let error = node.transact(Vec::new(), vec![write]).await.unwrap_err();
            assert!(matches!(error, StoreError::Refused { .. }), "{others}: {error}");
        }
    }
    // All of ours is read, and nothing else of this etcd.
    assert_eq!(node.get(&key("nodes/node-2/registration")).await.unwrap().unwrap().value, b"theirs");
    assert_eq!(Watching::in_sync(&node, "resources/").await.state, values(&[("resources/IPPool/a", "theirs")]));
    let mut beside = certified(&authority, &server, "node-1");
    beside.prefix = "/other/".parse().unwrap();
    let error = Etcd::connect(beside.into()).await.unwrap().get(&key("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");

    // The authority's certificate alone is not enough.
    let error = client("node-3").await.get(&key("version")).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
}

/// A client with a certificate of that name.
fn certified(authority: &Authority, server: &Server, name: &str) -> EtcdSettings {
    let (cert, key) = authority.sign(name);
    let tls = EtcdTls { ca: authority.ca(), client: Some(ClientCertificate { cert, key }) };
    EtcdSettings::new([server.url()], Some(tls)).unwrap()
}

/// A client with this name and password.
fn settings_of(server: &Server, username: &str, password: &str) -> EtcdSettings {
    let mut settings = EtcdSettings::new([server.url()], None).unwrap();
    settings.user = Some(Credentials { username: username.to_owned(), password: Password::new(password) });
    settings
}

/// A server that was just started may not answer yet.
async fn until_there(store: &Etcd) {
    let coming = async {
        while let Err(error) = store.probe().await {
            assert!(error.is_transient(), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TEST_TIME_LIMIT, coming).await.unwrap();
}

fn names(error: &StoreError, path: Option<&Path>) -> bool {
    error.to_string().contains(&path.unwrap().display().to_string())
}
