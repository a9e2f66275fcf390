//! The thread that reads and deletes tracked connections, and what of them is looked at. A table may have a million
//! entries, so nothing else waits for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kernel::acl::{Connection, Connections};
use kernel::events::Waker;
use kernel::{Kernel, KernelError};
use types::Family;
use types::policy::{Flow, Protocol};

/// What is asked of it; one at a time.
#[derive(Debug)]
pub(crate) enum ConnectionsTask {
    /// Delete all of these addresses, which are nobody's now.
    Forget(BTreeSet<IpAddr>),
    /// Say which begin or end at one of these local addresses, but for those of the node itself.
    Look(BTreeSet<IpAddr>),
    /// Delete these.
    Cut(Vec<Connection>),
}

/// The answer.
#[derive(Debug)]
pub(crate) enum ConnectionsAnswer {
    /// Done, or what went wrong.
    Forgotten(Result<(), KernelError>),
    /// The connections, and how long it took.
    Looked(Result<Vec<Connection>, KernelError>, Duration),
    /// How many were deleted, and what went wrong with another.
    Cut(u64, Option<KernelError>),
}

/// What the thread works on.
pub(crate) struct Tracker {
    /// The table of connections.
    pub(crate) connections: Box<dyn Connections>,
    /// Knows the node's own addresses.
    pub(crate) host: Box<dyn Kernel>,
}

/// Answers tasks until nobody gives any.
pub(crate) fn serve(
    mut tracker: Tracker,
    tasks: &mpsc::Receiver<ConnectionsTask>,
    answers: &mpsc::SyncSender<ConnectionsAnswer>,
    waker: &Waker,
) {
    while let Ok(task) = tasks.recv() {
        if answers.send(tracker.answer(task)).is_err() {
            return;
        }
        waker.wake();
    }
}

impl Tracker {
    /// Carries out one task.
    pub(crate) fn answer(&mut self, task: ConnectionsTask) -> ConnectionsAnswer {
        match task {
            ConnectionsTask::Forget(addresses) => ConnectionsAnswer::Forgotten(self.forget(&addresses)),
            ConnectionsTask::Look(local) => {
                let began = Instant::now();
                let found = self.look(&local);
                ConnectionsAnswer::Looked(found, began.elapsed())
            }
            ConnectionsTask::Cut(connections) => {
                let (mut count, mut failure) = (0, None);
                for connection in connections {
                    match self.connections.delete_connection(&connection) {
                        Ok(()) => count += 1,
                        Err(error) => failure = Some(error),
                    }
                }
                ConnectionsAnswer::Cut(count, failure)
            }
        }
    }

    fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
        for connection in self.connections.connections_of(addresses)? {
            self.connections.delete_connection(&connection)?;
        }
        Ok(())
    }

    fn look(&mut self, local: &BTreeSet<IpAddr>) -> Result<Vec<Connection>, KernelError> {
        let host: BTreeSet<_> = self.host.addresses()?.into_iter().map(|address| address.address).collect();
        let mut all = Vec::new();
        for family in Family::ALL {
            if local.iter().any(|address| Family::of(*address) == family) {
                all.extend(self.connections.connections(family)?.into_iter().filter(|connection| {
                    let flow = flow(connection);
                    let is_host = |address| host.contains(&address);
                    let is_local = local.contains(&flow.source) || local.contains(&flow.destination);
                    // A node reaches its own pods whatever policies say, and pods to their node have rules of their own.
                    is_local && !is_host(flow.source) && !is_host(flow.destination)
                }));
            }
        }
        Ok(all)
    }
}

/// The flow that policies judge: from where it began to where it really goes, which after NAT is where answers come from.
pub(crate) fn flow(connection: &Connection) -> Flow {
    let (begin, end) = (&connection.original, &connection.reply);
    Flow {
        source: begin.source,
        destination: end.source,
        protocol: Protocol::ALL.into_iter().find(|protocol| protocol.number() == begin.protocol),
        port: end.source_port,
    }
}

#[cfg(test)]
mod tests;
