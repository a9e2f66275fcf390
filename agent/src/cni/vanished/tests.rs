use std::path::Path;

use super::*;
use crate::policy::pods::Identities;
use crate::testing::{World, attached, attachments, pod, tier};

#[tokio::test]
async fn a_pod_that_goes_without_a_del_is_given_up_and_one_that_is_there_stays() {
    let world = World::new().await;
    let attachments = attachments(&world, Identities::Stated, Path::new("/nowhere"));
    let mut ids = Vec::new();
    for container in ["aaa1", "bbb2"] {
        let id = attached(&world, container, &pod(container, "u", tier("web")).1).await;
        world.wire(&id);
        ids.push(id);
    }
    look(&attachments).await;
    assert_eq!(world.ipam.endpoints().await.len(), 2);
    // A link that somebody took down is there.
    let index = |id: &types::EndpointId| {
        let mut kernel = world.kernel.clone();
        kernel::Kernel::link(&mut kernel, &id.host_interface()).unwrap().unwrap().index
    };
    world.kernel.set_link_up(index(&ids[0]), false);
    world.kernel.remove_link(index(&ids[1]));
    look(&attachments).await;
    let left: Vec<_> = world.ipam.endpoints().await.into_iter().map(|endpoint| endpoint.id).collect();
    assert_eq!(left, [ids[0].clone()]);
    assert!(world.acl.show(ids[1].clone()).await.is_none());
}

#[tokio::test]
async fn an_attachment_that_is_made_while_it_is_looked_stays() {
    let world = World::new().await;
    let attachments = attachments(&world, Identities::Stated, Path::new("/nowhere"));
    let id = attached(&world, "aaa1", &pod("a", "u", tier("web")).1).await;
    // The link comes between the look at all links and the look at this one.
    let name = id.host_interface();
    world.kernel.before(kernel::fake::Operation::Link, move |kernel| {
        kernel.add_link(name.as_str(), true);
    });
    look(&attachments).await;
    assert!(world.ipam.endpoint(id).await.is_some());
}
