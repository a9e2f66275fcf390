//! The store in etcd: the common behaviour against a real one, and its failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use store::{Etcd, EtcdConfig, Store, StoreError, Write};
use types::config::EtcdSettings;

use crate::behaviour::behaves_as_a_store;
use crate::server::{Server, Wire, free_port};
use crate::watching::{TEST_TIME_LIMIT, Watching, delete, key, put, values};

/// A store in the shared server, under a prefix of its own.
async fn open() -> Option<(Arc<dyn Store>, Arc<Server>)> {
    static OPENED: AtomicU32 = AtomicU32::new(0);
    let server = Server::shared().await?;
    let mut settings = EtcdSettings::new([server.url()], None).unwrap();
    settings.prefix = format!("/manx-{}/v1/", OPENED.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    let store = Etcd::connect(settings.into()).await.unwrap();
    Some((Arc::new(store), server))
}

behaves_as_a_store!(open());

async fn connect(url: String) -> Etcd {
    Etcd::connect(EtcdSettings::new([url], None).unwrap().into()).await.unwrap()
}

#[tokio::test]
async fn a_watch_resumes_without_a_restart_when_etcd_was_killed_and_comes_back() {
    let Some(mut server) = Server::start().await else { return };
    let store = connect(server.url()).await;
    put(&store, "a/1", "1").await;
    let mut watching = Watching::in_sync(&store, "a/").await;
    for round in 0..2 {
        server.kill();
        let error = store.get(&key("a/1")).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable { endpoints, .. } if endpoints.contains(&server.url())));
        server.restart().await;
        put_when_back(&store, "a/2", &format!("{round}")).await;
        watching.until_said(&format!("a/2={round}")).await;
        delete(&store, "a/2").await;
        watching.until_state(&values(&[("a/1", "1")])).await;
    }
    assert_eq!(watching.restarts(), 1);
}

#[tokio::test]
async fn a_watch_that_missed_a_compaction_lists_anew() {
    let Some(server) = Server::start().await else { return };
    let wire = Wire::to(server.port()).await;
    let (cut_off, direct) = (connect(wire.url()).await, connect(server.url()).await);
    put(&direct, "a/1", "1").await;
    put(&direct, "a/2", "2").await;
    let mut watching = Watching::in_sync(&cut_off, "a/").await;
    wire.cut();
    delete(&direct, "a/1").await;
    put(&direct, "a/3", "3").await;
    put(&direct, "a/4", "4").await;
    let mut operator = server.operator().await;
    let now = operator.get("x", None).await.unwrap().header().unwrap().revision();
    operator.compact(now, None).await.unwrap();
    wire.mend();
    watching.until_state(&values(&[("a/2", "2"), ("a/3", "3"), ("a/4", "4")])).await;
    assert_eq!(watching.restarts(), 2);
    put(&direct, "a/5", "5").await;
    watching.until_said("a/5=5").await;
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_when_its_connection_was_cut() {
    let Some(server) = Server::start().await else { return };
    let wire = Wire::to(server.port()).await;
    let (cut_off, direct) = (connect(wire.url()).await, connect(server.url()).await);
    let mut watching = Watching::in_sync(&cut_off, "a/").await;
    put(&direct, "a/1", "1").await;
    watching.until_said("a/1=1").await;
    wire.cut();
    let writes = vec![Write::put(key("a/2"), b"2".to_vec()), Write::delete(key("a/1"))];
    direct.transact(vec![], writes).await.unwrap();
    wire.mend();
    watching.until_state(&values(&[("a/2", "2")])).await;
    assert_eq!(watching.said, ["restart", "in sync", "a/1=1", "a/2=2", "-a/1"]);
}

#[tokio::test]
async fn a_cluster_whose_revision_went_back_is_listed_anew() {
    let Some(mut server) = Server::start().await else { return };
    let store = connect(server.url()).await;
    for number in 0..5 {
        put(&store, &format!("a/{number}"), "old").await;
    }
    let before = store.list(&key("a/")).await.unwrap();
    let mut watching = Watching::in_sync(&store, "a/").await;
    server.replace().await;
    put_when_back(&store, "a/new", "new").await;
    watching.until_state(&values(&[("a/new", "new")])).await;
    assert!(watching.restarts() >= 2);
    assert!(store.list(&key("a/")).await.unwrap().version < before.version);
}

#[tokio::test]
async fn a_session_outlives_its_time_to_live_while_kept_and_is_lost_when_etcd_stays_away() {
    let Some(mut server) = Server::start().await else { return };
    let store = connect(server.url()).await;
    let session = store.session(Duration::from_secs(2)).await.unwrap();
    let write = Write::Put { key: key("nodes/a/alive"), value: b"me".to_vec(), session: Some(session.id()) };
    store.transact(vec![], vec![write]).await.unwrap();
    // Twice its time to live, which is what is to be outlived.
    assert!(tokio::time::timeout(Duration::from_secs(4), session.lost()).await.is_err());
    assert!(store.get(&key("nodes/a/alive")).await.unwrap().is_some());
    server.kill();
    tokio::time::timeout(TEST_TIME_LIMIT, session.lost()).await.unwrap();
}

#[tokio::test]
async fn a_session_that_etcd_has_let_expire_is_lost_and_so_are_its_entries() {
    let Some(server) = Server::start().await else { return };
    let store = connect(server.url()).await;
    let session = store.session(Duration::from_secs(2)).await.unwrap();
    let write = Write::Put { key: key("nodes/a/alive"), value: b"me".to_vec(), session: Some(session.id()) };
    store.transact(vec![], vec![write]).await.unwrap();
    let mut operator = server.operator().await;
    let lease = operator.leases().await.unwrap().leases()[0].id();
    operator.lease_revoke(lease).await.unwrap();
    tokio::time::timeout(TEST_TIME_LIMIT, session.lost()).await.unwrap();
    assert_eq!(store.get(&key("nodes/a/alive")).await.unwrap(), None);
    session.end().await.unwrap();
}

#[tokio::test]
async fn a_dropped_session_expires_with_its_entries() {
    let Some((store, _server)) = open().await else { return };
    let session = store.session(Duration::from_secs(1)).await.unwrap();
    let write = Write::Put { key: key("nodes/a/alive"), value: b"me".to_vec(), session: Some(session.id()) };
    store.transact(vec![], vec![write]).await.unwrap();
    let mut watching = Watching::in_sync(&*store, "nodes/").await;
    drop(session);
    watching.until_said("-nodes/a/alive").await;
}

#[tokio::test]
async fn endpoints_that_do_not_answer_are_named_with_the_reason_of_each() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let _listening = &silent;
    let closed = format!("http://127.0.0.1:{}", free_port());
    let timeout = Duration::from_millis(300);
    let settings = EtcdSettings::new([closed.clone(), silent.clone()], None).unwrap();
    let config = EtcdConfig { settings, timeout };
    let store = Etcd::connect(config).await.unwrap();
    for error in [
        store.probe().await.unwrap_err(),
        store.get(&key("a/1")).await.unwrap_err(),
        store.transact(vec![], vec![Write::delete(key("a/1"))]).await.unwrap_err(),
        store.session(Duration::from_secs(5)).await.unwrap_err(),
    ] {
        let StoreError::Unavailable { endpoints, what } = &error else { panic!("{error}") };
        assert_eq!(*endpoints, format!("etcd at {closed}, {silent}"));
        assert!(what.contains(&closed) && what.contains("Connection refused"), "{what}");
        assert!(what.contains(&silent), "{what}");
    }
}

#[tokio::test]
async fn a_dead_member_does_not_keep_the_others_from_answering() {
    let Some(server) = Server::start().await else { return };
    let closed = format!("http://127.0.0.1:{}", free_port());
    let store = Etcd::connect(EtcdSettings::new([closed, server.url()], None).unwrap().into()).await.unwrap();
    put(&store, "a/1", "1").await;
    assert_eq!(store.get(&key("a/1")).await.unwrap().unwrap().value, b"1");
    assert_eq!(Watching::in_sync(&store, "a/").await.state.len(), 1);
}

#[tokio::test]
async fn a_store_opened_before_etcd_is_there_works_once_it_is() {
    let Some(mut server) = Server::start().await else { return };
    server.kill();
    let store = connect(server.url()).await;
    let mut watching = Watching::new(&store, "a/");
    assert!(store.probe().await.unwrap_err().is_transient());
    server.restart().await;
    put_when_back(&store, "a/1", "1").await;
    watching.until_state(&values(&[("a/1", "1")])).await;
}

/// The first transactions after etcd has come back may still find it away.
async fn put_when_back(store: &Etcd, text: &str, value: &str) {
    let coming_back = async {
        loop {
            match store.transact(vec![], vec![Write::put(key(text), value.as_bytes().to_vec())]).await {
                Ok(outcome) => return assert!(outcome.is_committed()),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TEST_TIME_LIMIT, coming_back).await.unwrap();
}
