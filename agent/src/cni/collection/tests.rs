use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::policy::pods::Identities;
use crate::testing::{World, attached, attachments, pod, tier};

fn collect(network: &str, valid: &[&EndpointId]) -> Collect {
    let valid = valid.iter().map(|id| (id.container.clone(), id.interface.clone())).collect::<BTreeSet<_>>();
    Collect { protocol: types::cni::PROTOCOL, network: network.parse().unwrap(), valid }
}

#[tokio::test]
async fn what_is_not_listed_of_the_network_goes_and_another_networks_pods_stay() {
    let world = World::new().await;
    let attachments = attachments(&world, Identities::Stated, Path::new("/nowhere"));
    let mut ids = Vec::new();
    for container in ["aaa1", "bbb2", "ccc3"] {
        ids.push(attached(&world, container, &pod(container, "u", tier("web")).1).await);
        world.wire(&ids[ids.len() - 1]);
    }
    attachments.collect(collect("other", &[])).await.unwrap();
    assert_eq!(world.ipam.endpoints().await.len(), 3);
    attachments.collect(collect("manx", &[&ids[1]])).await.unwrap();
    let left: Vec<_> = world.ipam.endpoints().await.into_iter().map(|endpoint| endpoint.id).collect();
    assert_eq!(left, [ids[1].clone()]);
    let mut kernel = world.kernel.clone();
    let parked = kernel::Kernel::link(&mut kernel, &ids[0].host_interface()).unwrap().unwrap();
    assert_eq!((parked.up, parked.group), (false, kernel::ours::LINK_GROUP));
    attachments.collect(collect("manx", &[])).await.unwrap();
    assert_eq!(world.ipam.endpoints().await, []);
}

#[tokio::test]
async fn one_that_cannot_be_taken_back_does_not_keep_the_others_and_is_named() {
    let world = World::new().await;
    let attachments = attachments(&world, Identities::Stated, Path::new("/nowhere"));
    for container in ["aaa1", "bbb2"] {
        let id = attached(&world, container, &pod(container, "u", tier("web")).1).await;
        world.wire(&id);
    }
    world.kernel.fail(kernel::fake::Operation::ChangeLink, 1, 28);
    let refused = attachments.collect(collect("manx", &[])).await.unwrap_err();
    assert!(refused.msg.starts_with("manx/"), "{refused}");
    assert!(refused.msg.contains("its link stays until the DEL of its pod"), "{refused}");
    assert_eq!(world.ipam.endpoints().await, []);
}
