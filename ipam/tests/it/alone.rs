//! A node without a shared store: its journal is all there is.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::{IpamConfig, IpamError, ReserveError, StartError};
use store::{Journal, JournalWrite, RowKind};

use crate::node::{TestNode, config, id, pool, request, texts};

#[tokio::test]
async fn an_add_gets_an_address_of_each_family_and_a_del_gives_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let pools = [pool("v4", "10.0.0.0/24", 26), pool("v6", "fd00::/112", 122)];
    let node = TestNode::start(config("n1"), None, &folder.path().join("journal.db"), &pools).await;
    assert_eq!(node.blocks(2).await.len(), 2);
    let addresses = node.add("a").await.unwrap();
    assert_eq!(addresses.len(), 2);
    assert_eq!(node.ipam.endpoints().await.len(), 1);
    assert_eq!(node.add("a").await, Err(ReserveError::AlreadyAttached(id("a"))));

    assert_eq!(node.del("a").await, Some(addresses.clone()));
    assert_eq!(node.del("a").await, None);
    assert_ne!(node.add("a").await.unwrap(), addresses, "the same addresses at once");
    let view = node.ipam.view().await;
    assert_eq!((view.pools.len(), view.blocks.len(), view.addresses.len()), (2, 2, 2));
    let text = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<ipam::View>(&text).unwrap(), view);
    node.kill().await;
}

#[tokio::test]
async fn a_restart_in_the_same_boot_keeps_endpoints_and_blocks_and_forgets_what_was_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let pools = [pool("v4", "10.0.0.0/29", 30)];
    let node = TestNode::start(config("n1"), None, &journal, &pools).await;
    let kept = node.add("kept").await.unwrap();
    node.add("gone").await.unwrap();
    node.del("gone").await.unwrap();
    node.ipam.reserve(id("reserved"), request("reserved")).await.unwrap();
    let blocks = node.blocks(1).await;
    node.kill().await;

    let node = TestNode::start(config("n1"), None, &journal, &[]).await;
    assert_eq!(node.blocks(1).await, blocks, "own blocks are known before any source has spoken");
    let endpoints: Vec<_> = node.ipam.endpoints().await.iter().map(texts).collect();
    assert_eq!(endpoints, std::slice::from_ref(&kept));
    assert!(node.ipam.endpoint(id("reserved")).await.is_none());
    node.set_pools(&pools).await;
    let mut given = BTreeSet::from_iter(kept);
    for container in ["a", "b", "c"] {
        assert!(given.insert(node.add(container).await.unwrap().concat()), "an address twice");
    }
    node.kill().await;
}

#[tokio::test]
async fn another_boot_releases_all_endpoints() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let pools = [pool("v4", "10.0.0.0/29", 29)];
    let node = TestNode::start(config("n1"), None, &journal, &pools).await;
    node.add("a").await.unwrap();
    node.kill().await;
    for _ in 0..2 {
        let rebooted = IpamConfig { boot_id: "another".to_owned(), ..config("n1") };
        let node = TestNode::start(rebooted, None, &journal, &pools).await;
        assert!(node.ipam.endpoints().await.is_empty());
        assert_eq!(node.blocks(1).await.len(), 1);
        node.kill().await;
    }
}

#[tokio::test]
async fn a_cool_down_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let pools = [pool("v4", "10.0.0.0/32", 32)];
    let slow = || IpamConfig { cool_down: Duration::from_secs(3_600), ..config("n1") };
    let node = TestNode::start(slow(), None, &journal, &pools).await;
    node.add("a").await.unwrap();
    node.del("a").await.unwrap();
    node.kill().await;

    let node = TestNode::start(slow(), None, &journal, &pools).await;
    let error = node.add("b").await.unwrap_err();
    let expected = "pool v4: 1 block here with 1 addresses, 0 in use, 1 resting; every block of them is claimed";
    assert!(error.to_string().ends_with(expected), "{error}");
    node.kill().await;
}

#[tokio::test]
async fn endpoints_whose_interface_is_gone_are_released_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let pools = [pool("v4", "10.0.0.0/24", 26)];
    let node = TestNode::start(config("n1"), None, &folder.path().join("journal.db"), &pools).await;
    for container in ["a", "b", "c"] {
        node.add(container).await.unwrap();
    }
    let present = BTreeSet::from([id("b").host_interface(), "eth0".parse().unwrap()]);
    let released = node.ipam.reconcile_kernel(present).await.unwrap();
    assert_eq!(released.iter().map(|endpoint| endpoint.id.clone()).collect::<Vec<_>>(), [id("a"), id("c")]);
    assert_eq!(node.ipam.endpoints().await.len(), 1);
    node.kill().await;
}

#[tokio::test]
async fn when_the_journal_fails_an_add_is_refused_and_a_del_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let pools = [pool("v4", "10.0.0.0/24", 26)];
    let node = TestNode::start(config("n1"), None, &folder.path().join("journal.db"), &pools).await;
    let addresses = node.add("a").await.unwrap();
    node.ipam.reserve(id("b"), request("b")).await.unwrap();
    node.journal.close().await;
    let error = node.ipam.commit(id("b")).await.unwrap_err();
    assert!(matches!(&error, IpamError::Journal { id: of, .. } if *of == id("b")), "{error}");
    assert!(error.to_string().contains("manx/b/eth0 cannot be journalled: "), "{error}");
    assert_eq!(node.ipam.endpoints().await.len(), 1);
    assert!(node.del("b").await.is_some());
    assert_eq!(node.del("a").await, Some(addresses));
    node.kill().await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_understood_is_an_error_that_names_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path().join("journal.db")).unwrap();
    let newer = br#"{"version":2,"spec":{}}"#.to_vec();
    journal.commit(vec![JournalWrite::put(RowKind::Endpoint, "manx/a/eth0", newer)]).await.unwrap();
    let (_pools, source) = tokio::sync::mpsc::channel(1);
    let tracker = tokio_util::task::TaskTracker::new();
    let started = ipam::start(config("n1"), None, journal, source, &tracker, Default::default()).await;
    let Err(StartError::Row(error)) = started else { panic!("{started:?}") };
    assert!(error.to_string().starts_with("journal: endpoint/manx/a/eth0: value version 2"), "{error}");
}
