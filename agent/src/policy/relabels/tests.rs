use super::*;
use crate::testing::{World, attached, labels, pod, soon, tier};

#[tokio::test]
async fn one_relabel_an_endpoint_is_under_way_the_last() {
    let world = World::new().await;
    let (_, web) = pod("a", "u1", tier("web"));
    let id = attached(&world, "aaa1", &web).await;
    let endpoint = world.ipam.endpoint(id.clone()).await.unwrap();
    world.fail_restores();
    let mut relabels = Relabels::default();
    let db = |version: &str| tier("db").into_iter().chain([("version".to_owned(), version.to_owned())]).collect();
    for version in ["1", "2", "3"] {
        relabels.begin(WorkloadEndpoint { labels: db(version), ..endpoint.clone() }, world.acl.clone());
        assert!(relabels.next().now_or_never().is_none());
        assert_eq!(relabels.0.len(), 1);
    }
    assert_eq!(labels(&world, &id).await, db("3"));
    world.filter.heal();
    let (done, outcome) = soon(relabels.next()).await;
    assert_eq!((done, outcome), (id, Ok(())));
    assert!(relabels.0.is_empty() && relabels.next().now_or_never().is_none());
}
