//! The task that owns which pod has which host ports, and the way to ask it. A port is given to nobody else while it is mapped: what
//! the CNI binary has recorded as mapped counts as taken, whoever forgot to unmap it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use ::cni::mapping;
use ipam::Ipam;
use mailbox::Mailbox;
use store::{Journal, JournalWrite, RowKind};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use types::host_ports::{HostPort, PortRange, Wanted};
use types::policy::Protocol;
use types::update::Mirror;
use types::{EndpointId, NamespacedName, PodRef, Service, Update, WorkloadEndpoint};

use super::port_allocation::{AllGiven, Allocation, UsedUp};
use crate::node::kubernetes::{API_SERVER_WAIT, ApiServer};

/// Questions that wait for the task.
const QUEUED_COMMANDS: usize = 64;

/// The keys of the journal's rows begin so; the endpoint's id is behind it. They are of the kind whose unknown keys an agent of an
/// earlier version passes over.
const ROW: &str = "host_ports/";

/// The range of NodePorts of an API server that is not told another: kept free while it is not known which ones there are.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The way to ask; clones ask the same task.
#[derive(Debug, Clone)]
pub(crate) struct HostPorts {
    commands: Mailbox<Command>,
    /// Who has which; nothing before the journal is read.
    given: watch::Receiver<Option<Arc<AllGiven>>>,
    /// Where the CNI binary records what is mapped.
    mapped: PathBuf,
}

/// What an attachment asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// The attachment, with its addresses.
    pub(super) endpoint: WorkloadEndpoint,
    /// The UID of the pod as the API server knows it.
    pub(super) uid: Option<String>,
    /// The container ports.
    pub(super) wanted: Wanted,
    /// The host ports that pods of this node name themselves.
    pub(super) named: BTreeSet<(Protocol, u16)>,
}

#[derive(Debug)]
enum Command {
    Give(Box<Ask>, oneshot::Sender<Result<Vec<HostPort>, HostPortError>>),
    Release(EndpointId, oneshot::Sender<()>),
}

/// Why a pod is given no host ports.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostPortError {
    /// The operator has set no range.
    #[error("the pod asks for host ports, but hostPorts.range is not set on this node")]
    NoRange,
    /// Every port is in use.
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// It cannot be kept that they are given.
    #[error("host ports are not given out: {0}")]
    Journal(#[from] store::JournalError),
    /// It cannot be read which ports are mapped.
    #[error("host ports are not given out: {}: {error}", folder.display())]
    Mapped {
        /// The folder of the records.
        folder: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// The agent ends.
    #[error("host ports are not given out: {0}")]
    Ended(#[from] mailbox::Ended),
}

impl HostPorts {
    /// Gives the attachment its host ports: they are in the journal when this returns.
    pub(super) async fn give(&self, ask: Ask) -> Result<Vec<HostPort>, HostPortError> {
        self.commands.ask(|reply| Command::Give(Box::new(ask), reply)).await?
    }

    /// The attachment is gone; one without host ports is passed over.
    pub(super) async fn release(&self, id: &EndpointId) {
        let has_some = self.given.borrow().as_ref().is_none_or(|given| given.contains_key(id));
        if has_some {
            // The task ends only with the agent.
            let _ = self.commands.ask(|reply| Command::Release(id.clone(), reply)).await;
        }
    }

    /// The host ports that an attachment has.
    pub(super) fn of(&self, id: &EndpointId) -> Vec<HostPort> {
        let given = self.given.borrow();
        given.as_ref().and_then(|given| given.get(id)).map(|given| given.ports.clone()).unwrap_or_default()
    }

    /// Whether the attachment is gone, but its host ports are still mapped.
    pub(super) fn is_stale(&self, id: &EndpointId) -> bool {
        let is_held = self.given.borrow().as_ref().is_none_or(|given| given.contains_key(id));
        !is_held && mapping::is_recorded(&self.mapped, id)
    }

    /// What was recorded as mapped for an attachment is not mapped any more.
    pub(super) fn unmapped(&self, id: &EndpointId) -> std::io::Result<()> {
        mapping::forget(&self.mapped, id)
    }

    /// Attachments that are gone, but whose host ports are still mapped.
    pub(super) async fn stale(&self) -> Vec<EndpointId> {
        let mut given = self.given.clone();
        let Ok(Some(given)) = given.wait_for(Option::is_some).await.map(|given| given.clone()) else {
            return Vec::new();
        };
        let held: BTreeSet<_> = given.keys().map(EndpointId::host_interface).collect();
        match mapping::list(&self.mapped, |interface| !held.contains(interface)) {
            Ok(stale) => stale.into_iter().map(|mapping| mapping.id).collect(),
            Err(error) => {
                warn!(folder = %self.mapped.display(), %error, "it cannot be read which host ports are mapped; those of pods that have gone stay mapped until it can");
                Vec::new()
            }
        }
    }

    /// Who has which host ports; nothing before the journal is read.
    pub(super) fn given(&self) -> watch::Receiver<Option<Arc<AllGiven>>> {
        self.given.clone()
    }

    /// Where nobody asks for host ports.
    #[cfg(test)]
    pub(crate) fn unused() -> Self {
        let (commands, _) = mpsc::channel(1);
        let (_, given) = watch::channel(Some(Arc::default()));
        Self { commands: Mailbox::new(commands), given, mapped: PathBuf::from("/nowhere") }
    }
}

/// The parts that the task is made of.
pub(crate) struct HostPortsTask {
    range: Option<PortRange>,
    journal: Journal,
    ipam: Ipam,
    api: Option<ApiServer>,
    mapped: PathBuf,
    commands: mpsc::Receiver<Command>,
    told: watch::Sender<Option<Arc<AllGiven>>>,
}

impl HostPortsTask {
    /// The task, and the way to ask it. `mapped` is the folder in which the CNI binary records what is mapped.
    pub(crate) fn new(
        range: Option<PortRange>,
        journal: Journal,
        ipam: Ipam,
        api: Option<ApiServer>,
        mapped: PathBuf,
    ) -> (Self, HostPorts) {
        let (commands, asked) = mpsc::channel(QUEUED_COMMANDS);
        let (told, given) = watch::channel(None);
        let handle = HostPorts { commands: Mailbox::new(commands), given, mapped: mapped.clone() };
        (Self { range, journal, ipam, api, mapped, commands: asked, told }, handle)
    }

    /// Serves those who ask for as long as there are any.
    pub(super) async fn run(mut self) {
        // What an earlier life of the agent gave out is kept, whatever the range is now.
        let range = self.range.or(PortRange::new(PortRange::LEAST, u16::MAX));
        let (Some(range), given) = (range, self.restore().await) else { return };
        let mut allocation = Allocation::new(range, given);
        self.tell(&allocation);
        let mut services = ServicePorts::default();
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Give(ask, reply)) => {
                        services.know(self.api.as_ref()).await;
                        let outcome = self.give(&mut allocation, *ask, &services).await;
                        self.tell(&allocation);
                        // Whoever does not take the answer has left, and takes back what it has in doing so.
                        let _ = reply.send(outcome);
                    }
                    Some(Command::Release(id, reply)) => {
                        if allocation.release(&id) {
                            let gone = JournalWrite::delete(RowKind::Meta, format!("{ROW}{id}"));
                            if let Err(error) = self.journal.commit(vec![gone]).await {
                                warn!(endpoint = %id, %error, "the journal keeps host ports that were given back, until the next start");
                            }
                            self.tell(&allocation);
                        }
                        let _ = reply.send(());
                    }
                },
                () = services.next() => {}
            }
        }
    }

    /// What the journal says of attachments that there are.
    async fn restore(&self) -> AllGiven {
        let rows = match self.journal.load().await {
            Ok(rows) => rows,
            Err(error) => {
                warn!(%error, "it cannot be read which host ports were given out; those that are mapped count as taken");
                return AllGiven::new();
            }
        };
        let endpoints: BTreeSet<_> = self.ipam.endpoints().await.into_iter().map(|endpoint| endpoint.id).collect();
        let (mut given, mut gone) = (AllGiven::new(), Vec::new());
        for row in rows.into_iter().filter(|row| row.kind == RowKind::Meta) {
            let Some(id) = row.key.strip_prefix(ROW) else { continue };
            let id = id.parse::<EndpointId>().ok().filter(|id| endpoints.contains(id));
            match (id, serde_json::from_slice(&row.value)) {
                (Some(id), Ok(ports)) => {
                    given.insert(id, ports);
                }
                _ => gone.push(JournalWrite::delete(RowKind::Meta, row.key)),
            }
        }
        if !gone.is_empty()
            && let Err(error) = self.journal.commit(gone).await
        {
            warn!(%error, "the journal keeps host ports of pods that have gone, until the next start");
        }
        given
    }

    async fn give(
        &self,
        allocation: &mut Allocation,
        ask: Ask,
        services: &ServicePorts,
    ) -> Result<Vec<HostPort>, HostPortError> {
        if self.range.is_none() {
            return Err(HostPortError::NoRange);
        }
        let id = ask.endpoint.id;
        let recorded = mapping::list(&self.mapped, |_| true)
            .map_err(|error| HostPortError::Mapped { folder: self.mapped.clone(), error })?;
        let mut taken = ask.named;
        taken.extend(
            recorded.iter().flat_map(|mapping| &mapping.host_ports).map(|port| (port.protocol, port.host_port)),
        );
        let is_taken =
            |protocol, port| taken.contains(&(protocol, port)) || services.may_have(port) || is_bound(protocol, port);
        let pod = PodRef { uid: ask.uid, ..ask.endpoint.pod };
        let given = allocation.give(&id, (pod, ask.endpoint.addresses), &ask.wanted, is_taken)?;
        let row =
            JournalWrite::put(RowKind::Meta, format!("{ROW}{id}"), serde_json::to_vec(&given).unwrap_or_default());
        match self.journal.commit(vec![row]).await {
            Ok(()) => Ok(given.ports),
            Err(error) => {
                allocation.release(&id);
                Err(error.into())
            }
        }
    }

    fn tell(&self, allocation: &Allocation) {
        self.told.send_replace(Some(Arc::new(allocation.given().clone())));
    }
}

/// The ports that Services have on every node. Followed from the first pod on that asks for host ports.
#[derive(Default)]
struct ServicePorts {
    updates: Option<mpsc::Receiver<Update<NamespacedName, Service>>>,
    services: Mirror<NamespacedName, BTreeSet<u16>>,
    are_known: bool,
}

impl ServicePorts {
    /// Waits until they are known, but not long.
    async fn know(&mut self, api: Option<&ApiServer>) {
        let Some(api) = api else {
            // Without Kubernetes there are none.
            self.are_known = true;
            return;
        };
        if self.updates.is_none() {
            self.updates = Some(api.tasks.services());
        }
        let known = async {
            while !self.are_known {
                self.next().await;
            }
        };
        if tokio::time::timeout(API_SERVER_WAIT, known).await.is_err() {
            warn!(
                "the API server has not said which NodePorts there are; host ports are given out beside the usual range of them"
            );
        }
    }

    /// Takes the next update in.
    async fn next(&mut self) {
        let update = match &mut self.updates {
            Some(updates) => updates.recv().await,
            None => None,
        };
        // The watch ends only with the agent.
        let Some(update) = update else { return std::future::pending().await };
        self.are_known |= matches!(update, Update::InSync);
        if let Ok(update) = update.try_map(|_, service| Ok::<_, ()>(service.node_ports)) {
            self.services.apply(update);
        }
    }

    fn may_have(&self, port: u16) -> bool {
        let is_unknown = !self.are_known && NODE_PORTS.contains(&port);
        is_unknown || self.services.entries().values().any(|ports| ports.contains(&port))
    }
}

/// Whether a socket of this node has the port, at whatever address. A socket is bound for a moment to see; none listens.
fn is_bound(protocol: Protocol, port: u16) -> bool {
    let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
    let bind = |address: SocketAddr| match (protocol, address) {
        (Protocol::Udp, _) => UdpSocket::bind(address).map(drop),
        (_, SocketAddr::V6(_)) => TcpSocket::new_v6().and_then(|socket| socket.bind(address)),
        (_, SocketAddr::V4(_)) => TcpSocket::new_v4().and_then(|socket| socket.bind(address)),
    };
    // A kernel without IPv6 has no sockets of it.
    any.into_iter().any(|address| bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse))
}

#[cfg(test)]
mod tests;
