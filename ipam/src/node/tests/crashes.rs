//! Crashes at any moment, with a journal that fails at times: what a pod has, no other pod gets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use types::Update;

use crate::IpamConfig;
use crate::node::Node;
use crate::rows;
use crate::testing::{JournalRows, id, node, pool, request};

#[derive(Debug, Clone)]
enum Do {
    Reserve(u8),
    Commit(u8),
    Release(u8),
    /// The disk is full from now on, or has space again.
    Disk(bool),
    /// The process is killed and started again, in the same boot.
    Crash,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let one = prop_oneof![
        5 => (0_u8..10).prop_map(Do::Reserve),
        5 => (0_u8..10).prop_map(Do::Commit),
        4 => (0_u8..10).prop_map(Do::Release),
        1 => any::<bool>().prop_map(Do::Disk),
        1 => Just(Do::Crash),
        2 => (0_u64..4).prop_map(Do::Wait),
    ];
    prop::collection::vec(one, 0..250)
}

/// The journal's disk.
#[derive(Default)]
struct Disk {
    rows: JournalRows,
    full: bool,
}

impl Disk {
    /// What the owner task does after each round.
    fn write(&mut self, node: &mut Node) -> bool {
        if self.full && !node.journal().is_empty() {
            return false;
        }
        self.rows.take(node.journal());
        true
    }
}

fn start(disk: &Disk, now: Instant) -> Node {
    let config =
        IpamConfig { boot_id: "boot".to_owned(), cool_down: Duration::from_secs(2), ..IpamConfig::new(node("n1")) };
    let restored = rows::restore(disk.rows.rows(), &config.node).unwrap();
    let mut node = Node::new(&config, false, restored, now);
    let pool = pool("v4", "10.0.0.0/29", 30);
    for update in [Update::Restart, Update::Set(pool.name.clone(), pool), Update::InSync] {
        node.pool_update(update);
    }
    node.jobs(now);
    node
}

proptest! {
    #[test]
    fn what_a_pod_has_no_other_pod_gets(steps in steps()) {
        let (mut disk, mut now) = (Disk::default(), Instant::now());
        let mut node = start(&disk, now);
        // Pods as the runtime and the kernel know them: attached and not detached.
        let mut pods: BTreeMap<u8, Vec<IpAddr>> = BTreeMap::new();
        let container = |number: u8| id(&format!("c{number}"));
        for step in steps {
            match step {
                Do::Reserve(number) => {
                    let Ok(endpoint) = node.reserve(&container(number), request("pod")) else { continue };
                    let others = pods.values().flatten();
                    prop_assert!(others.into_iter().all(|address| !endpoint.addresses.contains(address)), "given twice");
                }
                Do::Commit(number) if pods.contains_key(&number) => {}
                Do::Commit(number) => {
                    let Some(endpoint) = node.endpoint(&container(number)) else { continue };
                    node.commit(&endpoint.id).unwrap();
                    if disk.write(&mut node) {
                        node.journalled(endpoint.id);
                        pods.insert(number, endpoint.addresses);
                    } else {
                        node.not_journalled(&endpoint.id);
                    }
                }
                Do::Release(number) => {
                    let released = node.release(&container(number), now).map(|endpoint| endpoint.addresses);
                    let attached = pods.remove(&number);
                    prop_assert!(attached.is_none() || attached == released);
                    disk.write(&mut node);
                }
                Do::Disk(full) => disk.full = full,
                Do::Crash => {
                    node = start(&disk, now);
                    let present: BTreeSet<_> = pods.keys().map(|number| container(*number).host_interface()).collect();
                    node.reconcile(&present, now);
                    disk.write(&mut node);
                    let kept: BTreeMap<_, _> =
                        node.endpoints().into_iter().map(|endpoint| (endpoint.id, endpoint.addresses)).collect();
                    let expected = pods.iter().map(|(number, addresses)| (container(*number), addresses.clone()));
                    prop_assert_eq!(kept, expected.collect::<BTreeMap<_, _>>());
                }
                Do::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            node.jobs(now);
            disk.write(&mut node);
        }
    }
}
