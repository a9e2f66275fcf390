use std::net::TcpListener;

use types::Pod;

use super::*;
use crate::testing::{World, attached, id, pod, soon, tier};

/// A task that gives out of a range, with what it was made of.
struct Bed {
    world: World,
    folder: tempfile::TempDir,
    journal: Journal,
}

impl Bed {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal.db")).unwrap();
        Self { world: World::new().await, folder, journal }
    }

    fn start(&self, range: Option<&str>) -> (HostPorts, impl Future<Output = ()> + use<>) {
        let mapped = self.folder.path().join("mapped");
        let range = range.map(|range| range.parse().unwrap());
        let (task, handle) = HostPortsTask::new(range, self.journal.clone(), self.world.ipam.clone(), None, mapped);
        (handle, task.run())
    }

    async fn ask(&self, container: &str) -> Ask {
        let (_, pod): (_, Pod) = pod(container, container, tier("web"));
        let id = attached(&self.world, container, &pod).await;
        let endpoint = self.world.ipam.endpoint(id).await.unwrap();
        let wanted = Wanted::from([(8080, BTreeSet::from([Protocol::Tcp]))]);
        Ask { endpoint, uid: pod.reference.uid, wanted, named: BTreeSet::new() }
    }
}

async fn with<T>(task: impl Future<Output = ()>, script: impl Future<Output = T>) -> T {
    tokio::select! {
        () = task => panic!("the task has ended"),
        outcome = soon(script) => outcome,
    }
}

#[tokio::test]
async fn ports_are_kept_over_a_restart_until_the_attachment_goes() {
    let bed = Bed::new().await;
    let range = Some("28300-28301");
    let (handle, task) = bed.start(range);
    let (a, b) = (bed.ask("aaa1").await, bed.ask("bbb2").await);
    let first = with(task, async {
        let first = handle.give(a.clone()).await.unwrap();
        handle.give(b.clone()).await.unwrap();
        first
    })
    .await;

    // An attachment that is gone at the start has none any more.
    bed.world.ipam.release(id("bbb2")).await.unwrap();
    let (handle, task) = bed.start(range);
    with(task, async {
        let mut given = handle.given();
        let given = given.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(given.keys().collect::<Vec<_>>(), [&id("aaa1")]);
        assert_eq!(given[&id("aaa1")].ports, first);
        let other = handle.give(bed.ask("ccc3").await).await.unwrap();
        assert_ne!(other[0].host_port, first[0].host_port);
        let refused = handle.give(bed.ask("ddd4").await).await.unwrap_err().to_string();
        assert!(refused.starts_with("no host port of 28300-28301 is free"), "{refused}");
        handle.release(&id("aaa1")).await;
        assert_eq!(handle.give(bed.ask("eee5").await).await.unwrap()[0].host_port, first[0].host_port);
    })
    .await;
    let rows = bed.journal.load().await.unwrap();
    let kept: Vec<_> = rows.iter().filter_map(|row| row.key.strip_prefix(ROW)).collect();
    assert_eq!(kept, ["manx/ccc3/eth0", "manx/eee5/eth0"]);
}

#[tokio::test]
async fn a_port_that_is_bound_or_named_by_a_pod_is_given_to_nobody() {
    let bed = Bed::new().await;
    let (handle, task) = bed.start(Some("28310-28312"));
    let _bound = TcpListener::bind("127.0.0.1:28310").unwrap();
    let ask = Ask { named: BTreeSet::from([(Protocol::Tcp, 28_311)]), ..bed.ask("aaa1").await };
    let given = with(task, handle.give(ask)).await.unwrap();
    assert_eq!(given[0].host_port, 28_312);
}

#[tokio::test]
async fn a_port_is_given_to_nobody_else_while_it_is_mapped_and_its_mapping_is_named() {
    let bed = Bed::new().await;
    let mapped = bed.folder.path().join("mapped");
    std::fs::create_dir(&mapped).unwrap();
    let record = serde_json::json!({
        "id": id("aaa1"), "host_ports": [{ "protocol": "TCP", "container_port": 80, "host_port": 28_320 }],
        "addresses": [], "plugins": [], "config": {},
    });
    std::fs::write(mapped.join(id("aaa1").host_interface().as_str()), record.to_string()).unwrap();
    let (handle, task) = bed.start(Some("28320-28321"));
    with(task, async {
        assert_eq!(handle.stale().await, [id("aaa1")]);
        assert_eq!(handle.give(bed.ask("bbb2").await).await.unwrap()[0].host_port, 28_321);
        std::fs::remove_file(mapped.join(id("aaa1").host_interface().as_str())).unwrap();
        assert_eq!(handle.give(bed.ask("ccc3").await).await.unwrap()[0].host_port, 28_320);
        assert!(handle.stale().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn without_a_range_a_pod_that_asks_is_refused_by_name() {
    let bed = Bed::new().await;
    let (handle, task) = bed.start(None);
    let refused = with(task, handle.give(bed.ask("aaa1").await)).await.unwrap_err();
    assert!(refused.to_string().contains("hostPorts.range is not set"), "{refused}");
}
