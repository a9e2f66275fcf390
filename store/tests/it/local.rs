//! The store of a node without etcd: the common behaviour, and what it keeps across restarts.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use store::{Local, Store, Write};
use tempfile::TempDir;

use crate::behaviour::behaves_as_a_store;
use crate::watching::{Watching, delete, key, put, values};

async fn open() -> Option<(Arc<dyn Store>, TempDir)> {
    let scratch = tempfile::tempdir().unwrap();
    Some((Arc::new(Local::open(scratch.path().join("local.db")).unwrap()), scratch))
}

behaves_as_a_store!(open());

#[tokio::test]
async fn entries_versions_and_incarnation_survive_a_restart_and_sessions_do_not() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("local.db");
    let store = Local::open(&file).unwrap();
    put(&store, "a/1", "1").await;
    put(&store, "a/2", "2").await;
    delete(&store, "a/2").await;
    let session = store.session(Duration::from_secs(3600)).await.unwrap();
    let write = Write::Put { key: key("a/3"), value: vec![], session: Some(session.id()) };
    store.transact(vec![], vec![write]).await.unwrap();
    let before = store.list(&key("a/")).await.unwrap();
    store.close().await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let store = Local::open(&file).unwrap();
    let after = store.list(&key("a/")).await.unwrap();
    assert_eq!(after.entries[..], before.entries[..1]);
    assert_eq!(after.incarnation, before.incarnation);
    assert!(after.version > before.version, "the session's entry was deleted");
    let mut watching = Watching::in_sync(&store, "a/").await;
    put(&store, "a/4", "4").await;
    watching.until_state(&values(&[("a/1", "1"), ("a/4", "4")])).await;
}

#[tokio::test]
async fn a_dropped_session_expires_after_its_time_to_live() {
    let (store, _scratch) = open().await.unwrap();
    let session = store.session(Duration::from_millis(50)).await.unwrap();
    let write = Write::Put { key: key("a/1"), value: b"v".to_vec(), session: Some(session.id()) };
    store.transact(vec![], vec![write]).await.unwrap();
    let mut watching = Watching::in_sync(&*store, "a/").await;
    assert_eq!(watching.state.len(), 1);
    drop(session);
    watching.until_state(&values(&[])).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("local.db");
    std::fs::write(&file, vec![b'x'; 8192]).unwrap();
    let error = Local::open(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: damaged: ", file.display())), "{error}");
}
