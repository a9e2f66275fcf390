use super::*;
use crate::policy::pods::Identities;
use crate::testing::{World, attached, attachments, id, pod, tier};

#[tokio::test]
async fn a_tombstone_that_an_add_has_made_good_meanwhile_does_not_end_the_new_life() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let attachments = attachments(&world, Identities::Stated, folder.path());
    let id = attached(&world, "aaa1", &pod("a", "u1", tier("web")).1).await;
    tombstone::write(folder.path(), &id).unwrap();
    let found = list(folder.path()).unwrap();
    assert_eq!(found.len(), 1);
    make_good(&attachments, &id).await;
    assert!(world.is_gone(&id).await);
    let id = attached(&world, "aaa1", &pod("a", "u2", tier("web")).1).await;
    consume(&attachments, found).await;
    assert_eq!(world.ipam.endpoint(id).await.unwrap().pod.uid.as_deref(), Some("u2"));
}

#[tokio::test]
async fn a_tombstone_is_made_good_in_the_attachments_turn() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let attachments = attachments(&world, Identities::Stated, folder.path());
    let id = attached(&world, "aaa1", &pod("a", "u1", tier("web")).1).await;
    tombstone::write(folder.path(), &id).unwrap();
    let turn = attachments.turns.at(&id.host_interface()).await;
    let mut consumed = Box::pin(consume(&attachments, list(folder.path()).unwrap()));
    assert!(futures::poll!(consumed.as_mut()).is_pending());
    assert!(world.ipam.endpoint(id.clone()).await.is_some());
    drop(turn);
    consumed.await;
    assert!(world.is_gone(&id).await);
    assert_eq!(list(folder.path()).unwrap(), []);
}

#[tokio::test]
async fn a_tombstone_in_the_way_of_another_networks_attachment_is_its_own_attachments() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let attachments = attachments(&world, Identities::Stated, folder.path());
    let gone = attached(&world, "aaa1", &pod("a", "u1", tier("web")).1).await;
    tombstone::write(folder.path(), &gone).unwrap();
    let other = "other/aaa1/eth0".parse().unwrap();
    make_good(&attachments, &other).await;
    assert!(world.is_gone(&id("aaa1")).await);
}
