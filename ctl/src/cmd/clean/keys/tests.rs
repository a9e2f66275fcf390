use super::*;
use store::Memory;
use types::Registration;

async fn cluster() -> Memory {
    let store = Memory::new();
    let alive = |instance: &str| store::encode(&Alive { instance: instance.to_owned() });
    let claim = |owner: &str| store::encode(&BlockClaim { owner: owner.parse().unwrap() });
    let registration = || store::encode(&Registration::default());
    let entries = [
        ("nodes/one/alive", alive("journal/boot/1")),
        ("nodes/one/registration", registration()),
        ("nodes/one/endpoints/manx/a/eth0", b"{}".to_vec()),
        ("nodes/one.example/registration", registration()),
        ("nodes/two/registration", registration()),
        ("blocks/10.42.0.0-26", claim("one")),
        ("blocks/10.42.0.64-26", claim("two")),
        ("elected/gone/one", b"{}".to_vec()),
        ("resources/IPPool/pool", b"{}".to_vec()),
    ];
    for (key, value) in entries {
        store.transact(Vec::new(), vec![Write::put(Key::new(key).unwrap(), value)]).await.unwrap();
    }
    store
}

async fn left(store: &Memory) -> Vec<String> {
    let mut left = Vec::new();
    for prefix in ["nodes/", "blocks/", "elected/", "resources/"] {
        let listing = store.list(&Key::new(prefix).unwrap()).await.unwrap();
        left.extend(listing.entries.into_iter().map(|entry| entry.key.to_string()));
    }
    left
}

#[tokio::test]
async fn a_nodes_keys_go_and_no_others() {
    let store = cluster().await;
    let node: NodeName = "one".parse().unwrap();
    assert_eq!(remove(&store, &node, "/boot/1").await.unwrap().len(), 5);
    assert_eq!(
        left(&store).await,
        ["nodes/one.example/registration", "nodes/two/registration", "blocks/10.42.0.64-26", "resources/IPPool/pool"]
    );
    assert!(remove(&store, &node, "/boot/1").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_another_machine_has_taken_over_keeps_all_that_is_under_it() {
    let store = cluster().await;
    let before = left(&store).await;
    let error = remove(&store, &"one".parse().unwrap(), "/boot/2").await.unwrap_err();
    assert!(error.to_string().contains("name one"), "{error}");
    assert_eq!(left(&store).await, before);
}
