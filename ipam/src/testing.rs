//! What the tests of this crate share.

use std::collections::BTreeMap;

use store::{JournalWrite, Row, RowKind};
use types::{ContainerId, EndpointId, NodeName, PodRef, Prefix, ResourceName, WorkloadEndpoint};

use crate::journal_queue::JournalQueue;
use crate::{Pool, Request};

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    let name = ResourceName::new(name).unwrap();
    Pool { name, cidr: prefix(cidr), block_size, disabled: false, selects_this_node: true }
}

pub(crate) fn id(container: &str) -> EndpointId {
    EndpointId {
        network: "manx".parse().unwrap(),
        container: ContainerId::new(container).unwrap(),
        interface: "eth0".parse().unwrap(),
    }
}

pub(crate) fn request(pod: &str) -> Request {
    let pod = PodRef { namespace: "default".to_owned(), name: pod.to_owned(), uid: None };
    Request { pod, labels: BTreeMap::new(), ports: Vec::new(), link: None }
}

pub(crate) fn endpoint(container: &str, addresses: &[&str]) -> WorkloadEndpoint {
    let id = id(container);
    let Request { pod, labels, ports, .. } = request(container);
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let (host_interface, subnets) = (id.host_interface(), Vec::new());
    WorkloadEndpoint { host_interface, id, pod, addresses, subnets, labels, ports, finished: false }
}

/// The rows of a journal.
#[derive(Debug, Default)]
pub(crate) struct JournalRows(BTreeMap<(RowKind, String), Row>);

impl JournalRows {
    /// Takes what is queued.
    pub(crate) fn take(&mut self, queue: &mut JournalQueue) {
        for write in queue.writes() {
            match write {
                JournalWrite::Put(row) => drop(self.0.insert((row.kind, row.key.clone()), row)),
                JournalWrite::Delete { kind, key } => drop(self.0.remove(&(kind, key))),
                JournalWrite::Clear(_) => unreachable!("nothing removes all rows of a kind"),
            }
        }
        queue.taken();
    }

    /// All of them.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.0.values().cloned().collect()
    }
}
