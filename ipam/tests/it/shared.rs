//! Nodes that share a store, which answers late, not at all, or with conflicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::{IpamConfig, ReserveError};
use store::{Memory, Store, keys};
use tokio::task::JoinSet;
use types::{BlockClaim, Prefix};

use crate::node::{TestNode, config, eventually, id, pool, published, request};

/// Who owns which block, as the store has it.
async fn claims(store: &Memory) -> BTreeMap<Prefix, String> {
    let listing = store.list(&keys::blocks()).await.unwrap();
    let claim = |entry: &store::Entry| {
        let Ok(keys::Subject::Block(block)) = keys::subject(&entry.key) else { panic!("{}", entry.key) };
        (block, store::decode::<BlockClaim>(&entry.key, &entry.value).unwrap().owner.to_string())
    };
    listing.entries.iter().map(claim).collect()
}

#[tokio::test]
async fn a_block_is_claimed_before_the_first_add_and_endpoints_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let pools = [pool("v4", "10.0.0.0/16", 26), pool("v6", "fd00::/64", 122)];
    let node = TestNode::start(config("n1"), Some(&store), &folder.path().join("journal.db"), &pools).await;
    let blocks = node.blocks(2).await;
    let owned: BTreeMap<Prefix, String> = blocks.iter().map(|block| (*block, "n1".to_owned())).collect();
    assert_eq!(claims(&store).await, owned);

    let addresses = node.add("a").await.unwrap();
    eventually("the endpoint is published", async || published(&store, "n1").await.get("a") == Some(&addresses)).await;
    node.del("a").await.unwrap();
    eventually("its release is published", async || published(&store, "n1").await.is_empty()).await;
    node.kill().await;
}

#[tokio::test]
async fn an_add_waits_for_the_claim_of_a_slow_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    store.set_delay(Duration::from_millis(100));
    let pools = [pool("v4", "10.0.0.0/16", 26)];
    let node = TestNode::start(config("n1"), Some(&store), &folder.path().join("journal.db"), &pools).await;
    assert_eq!(node.add("a").await.unwrap().len(), 1);
    node.kill().await;
}

#[tokio::test]
async fn add_and_del_work_from_own_blocks_while_the_store_is_away_and_are_published_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let pools = [pool("v4", "10.0.0.0/30", 30)];
    let node = TestNode::start(config("n1"), Some(&store), &folder.path().join("journal.db"), &pools).await;
    node.blocks(1).await;
    let gone = node.add("gone").await.unwrap();
    eventually("the endpoint is published", async || published(&store, "n1").await.len() == 1).await;
    store.set_available(false);
    node.del("gone").await.unwrap();
    for container in ["a", "b", "c"] {
        assert_ne!(node.add(container).await.unwrap(), gone);
    }
    // The cool-down is zero: only the missing acknowledgement keeps the address out of use.
    let quick = node.ipam.view().await.own[0].blocks[0].clone();
    assert_eq!((quick.in_use, quick.resting, quick.free), (3, 1, 0));
    let refused = node.add("d").await.unwrap_err();
    assert!(matches!(refused, ReserveError::Exhausted { .. }), "{refused}");

    store.set_available(true);
    eventually("all of it is published", async || {
        let published = published(&store, "n1").await;
        published.keys().map(String::as_str).collect::<Vec<_>>() == ["a", "b", "c"]
    })
    .await;
    eventually("the address is free", async || node.ipam.view().await.own[0].blocks[0].free == 1).await;
    assert_eq!(node.add("d").await.unwrap(), gone);
    node.kill().await;
}

#[tokio::test]
async fn an_add_that_no_claim_helps_in_time_says_what_is_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    store.set_available(false);
    let pools = [pool("v4", "10.0.0.0/16", 32)];
    let quick = IpamConfig { claim_wait: Duration::from_millis(50), ..config("n1") };
    let node = TestNode::start(quick, Some(&store), &folder.path().join("journal.db"), &pools).await;
    let error = node.add("a").await.unwrap_err().to_string();
    assert!(error.ends_with("the datastore has not answered since the agent started"), "{error}");
    store.set_available(true);
    node.blocks(1).await;
    node.add("a").await.unwrap();
    node.blocks(2).await;
    store.set_available(false);
    node.add("b").await.unwrap();
    let error = node.add("c").await.unwrap_err().to_string();
    assert!(error.ends_with("memory unavailable: switched off"), "{error}");
    node.kill().await;
}

#[tokio::test]
async fn a_del_ends_an_add_that_still_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    store.set_available(false);
    let patient = IpamConfig { claim_wait: Duration::from_secs(600), ..config("n1") };
    let pools = [pool("v4", "10.0.0.0/16", 26)];
    let node = TestNode::start(patient, Some(&store), &folder.path().join("journal.db"), &pools).await;
    // Polled in this order, hence asked in this order.
    let (add, again, del) = tokio::join!(
        biased;
        node.ipam.reserve(id("a"), request("a")),
        node.ipam.reserve(id("a"), request("a")),
        node.ipam.release(id("a")),
    );
    assert_eq!(add, Err(ReserveError::Released(id("a"))));
    assert_eq!(again, Err(ReserveError::UnderWay(id("a"))));
    assert_eq!(del, Ok(None));
    node.kill().await;
}

#[tokio::test]
async fn an_add_that_nobody_waits_for_any_more_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    store.set_available(false);
    let patient = IpamConfig { claim_wait: Duration::from_secs(600), ..config("n1") };
    let pools = [pool("v4", "10.0.0.0/32", 32)];
    let node = TestNode::start(patient, Some(&store), &folder.path().join("journal.db"), &pools).await;
    let abandoned = node.ipam.reserve(id("a"), request("a"));
    assert!(tokio::time::timeout(Duration::from_millis(5), abandoned).await.is_err());
    store.set_available(true);
    assert_eq!(node.add("b").await.unwrap(), ["10.0.0.0"]);
    node.kill().await;
}

#[tokio::test]
async fn a_restart_while_the_store_is_away_serves_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (store, journal) = (Memory::new(), folder.path().join("journal.db"));
    let pools = [pool("v4", "10.0.0.0/16", 26)];
    let node = TestNode::start(config("n1"), Some(&store), &journal, &pools).await;
    let blocks = node.blocks(1).await;
    let kept = node.add("kept").await.unwrap();
    store.set_available(false);
    let unpublished = node.add("unpublished").await.unwrap();
    node.kill().await;

    let node = TestNode::start(config("n1"), Some(&store), &journal, &pools).await;
    assert_eq!(node.blocks(1).await, blocks);
    let fresh = node.add("fresh").await.unwrap();
    assert!(fresh != kept && fresh != unpublished);
    node.del("kept").await.unwrap();
    store.set_available(true);
    let expected = BTreeMap::from([("unpublished".to_owned(), unpublished), ("fresh".to_owned(), fresh)]);
    eventually("the store shows what is", async || published(&store, "n1").await == expected).await;
    assert_eq!(claims(&store).await.len(), 1);
    node.kill().await;
}

#[tokio::test]
async fn a_reinstalled_node_takes_its_blocks_back_and_cleans_up_what_it_had_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let pools = [pool("v4", "10.0.0.0/16", 26)];
    let node = TestNode::start(config("n1"), Some(&store), &folder.path().join("old.db"), &pools).await;
    let blocks = node.blocks(1).await;
    node.add("a").await.unwrap();
    eventually("the endpoint is published", async || published(&store, "n1").await.len() == 1).await;
    node.kill().await;

    let node = TestNode::start(config("n1"), Some(&store), &folder.path().join("new.db"), &pools).await;
    assert_eq!(node.blocks(1).await, blocks);
    eventually("the old endpoint is gone", async || published(&store, "n1").await.is_empty()).await;
    assert_eq!(claims(&store).await.len(), 1);
    node.kill().await;
}

#[tokio::test]
async fn a_store_that_was_wiped_is_told_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let pools = [pool("v4", "10.0.0.0/16", 26)];
    let node = TestNode::start(config("n1"), Some(&store), &folder.path().join("journal.db"), &pools).await;
    let blocks = node.blocks(1).await;
    let addresses = node.add("a").await.unwrap();
    eventually("the endpoint is published", async || published(&store, "n1").await.len() == 1).await;
    store.wipe();
    eventually("the endpoint is published again", async || published(&store, "n1").await.get("a") == Some(&addresses))
        .await;
    eventually("the block is claimed again", async || claims(&store).await.into_keys().eq(blocks.clone())).await;
    node.kill().await;
}

/// Six nodes share a pool that is just large enough, while the store fails in every way that it knows: no block has two
/// owners, and no address is given out while it is in use elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_a_failing_store_never_own_a_block_twice_nor_give_an_address_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let pools = [pool("v4", "10.0.0.0/25", 29), pool("v6", "fd00::/121", 125)];
    let in_use: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut nodes = Vec::new();
    for number in 0..6 {
        let name = format!("n{number}");
        let quick = IpamConfig { claim_wait: Duration::from_millis(20), ..config(&name) };
        let journal = folder.path().join(format!("{name}.db"));
        nodes.push(Arc::new(TestNode::start(quick, Some(&store), &journal, &pools).await));
    }
    let mut pods = JoinSet::new();
    for (number, node) in nodes.iter().enumerate() {
        for pod in 0..4 {
            let (node, in_use) = (Arc::clone(node), Arc::clone(&in_use));
            pods.spawn(async move {
                let container = format!("n{number}p{pod}");
                let mut added = 0;
                for _ in 0..40 {
                    let Ok(addresses) = node.add(&container).await else { continue };
                    added += 1;
                    for address in &addresses {
                        assert!(in_use.lock().unwrap().insert(address.clone()), "{address} has two owners");
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    for address in &addresses {
                        in_use.lock().unwrap().remove(address);
                    }
                    assert_eq!(node.del(&container).await, Some(addresses));
                }
                added
            });
        }
    }
    let trouble = {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0_u32.. {
                store.conflict_next(round % 3);
                store.lose_next_replies(round % 2);
                store.set_available(round % 4 != 3);
                if round % 5 == 4 {
                    store.compact();
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        })
    };
    let added: u32 = pods.join_all().await.into_iter().sum();
    assert!(added > 100, "only {added} ADDs succeeded");
    trouble.abort();
    let _ = trouble.await;
    store.set_available(true);
    store.conflict_next(0);
    store.lose_next_replies(0);

    let owned: Vec<Prefix> =
        nodes.iter().flat_map(|node| node.ipam.blocks().borrow().iter().copied().collect::<Vec<_>>()).collect();
    let distinct: BTreeSet<Prefix> = owned.iter().copied().collect();
    assert_eq!(distinct.len(), owned.len(), "a block has two owners");
    for (number, node) in nodes.iter().enumerate() {
        let name = format!("n{number}");
        eventually("the store shows no endpoint any more", async || published(&store, &name).await.is_empty()).await;
        eventually("the store and the node agree on its blocks", async || {
            let own = node.ipam.blocks().borrow().as_ref().clone();
            claims(&store).await.into_iter().filter(|(_, owner)| *owner == name).map(|(block, _)| block).eq(own)
        })
        .await;
    }
    for node in nodes {
        Arc::into_inner(node).unwrap().kill().await;
    }
}
