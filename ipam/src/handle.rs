//! The way to ask ipam something.

use std::collections::BTreeSet;
use std::sync::Arc;

use mailbox::{Ended, Mailbox};
use tokio::sync::{mpsc, oneshot, watch};
use types::{EndpointId, InterfaceName, Prefix, WorkloadEndpoint};

use crate::{Description, IpamError, Request, ReserveError, Standing, View};

/// A handle on ipam; clones share it. ipam ends with its last handle, or when it is cancelled.
#[derive(Debug, Clone)]
pub struct Ipam {
    /// The way to the owner task.
    commands: Mailbox<Command>,
    /// The blocks that this node owns, as the owner task sets them.
    blocks: watch::Receiver<Arc<BTreeSet<Prefix>>>,
    /// How often endpoints have changed, as the owner task counts.
    changes: watch::Receiver<u64>,
}

/// What the owner task is asked; the answer goes to `reply`.
#[derive(Debug)]
pub(crate) enum Command {
    Reserve { id: EndpointId, request: Request, reply: oneshot::Sender<Result<WorkloadEndpoint, ReserveError>> },
    Commit { id: EndpointId, reply: oneshot::Sender<Result<(), IpamError>> },
    Describe { id: EndpointId, facts: Description, reply: oneshot::Sender<Option<WorkloadEndpoint>> },
    Release { id: EndpointId, reply: oneshot::Sender<Option<WorkloadEndpoint>> },
    Reconcile { present: BTreeSet<InterfaceName>, reply: oneshot::Sender<Vec<WorkloadEndpoint>> },
    Endpoint { id: EndpointId, reply: oneshot::Sender<Option<WorkloadEndpoint>> },
    Endpoints { reply: oneshot::Sender<Vec<WorkloadEndpoint>> },
    View { reply: oneshot::Sender<View> },
    Standing { reply: oneshot::Sender<Standing> },
}

impl Ipam {
    pub(crate) const fn new(
        commands: mpsc::Sender<Command>,
        blocks: watch::Receiver<Arc<BTreeSet<Prefix>>>,
        changes: watch::Receiver<u64>,
    ) -> Self {
        Self { commands: Mailbox::new(commands), blocks, changes }
    }

    /// Holds one address for each family for which an enabled pool selects this node, all or none. Out of own blocks at
    /// once; if they are full, waits for a claim for the configured time. Dropping the future gives the addresses back,
    /// unless it had them already.
    ///
    /// A reservation is not journalled: a restart forgets it. [`Ipam::commit`] or [`Ipam::release`] ends it.
    pub async fn reserve(&self, id: EndpointId, request: Request) -> Result<WorkloadEndpoint, ReserveError> {
        self.commands.ask(|reply| Command::Reserve { id, request, reply }).await.map_err(|Ended| ReserveError::Ended)?
    }

    /// The attachment is complete. The endpoint is journalled before this returns; it is published afterwards, which is
    /// not waited for. On [`IpamError::Journal`] it is reserved as before, and to be released by the caller.
    pub async fn commit(&self, id: EndpointId) -> Result<(), IpamError> {
        self.commands.ask(|reply| Command::Commit { id, reply }).await.map_err(|Ended| IpamError::Ended)?
    }

    /// What is known of the pod has changed: journalled before this returns (a full disk is no failure: the journal is
    /// written when it can be), published afterwards. Gives the endpoint as it is now; none: the attachment holds nothing.
    pub async fn describe(&self, id: EndpointId, facts: Description) -> Result<Option<WorkloadEndpoint>, IpamError> {
        self.commands.ask(|reply| Command::Describe { id, facts, reply }).await.map_err(|Ended| IpamError::Ended)
    }

    /// Lets an attachment go, complete or not, and gives what it had; none: it had nothing. Succeeds with a full disk: a
    /// restart that finds the endpoint in the journal releases it again, for its interface is gone.
    pub async fn release(&self, id: EndpointId) -> Result<Option<WorkloadEndpoint>, IpamError> {
        self.commands.ask(|reply| Command::Release { id, reply }).await.map_err(|Ended| IpamError::Ended)
    }

    /// To be called at start, when all releases left behind are done: releases the endpoints whose host interface is not
    /// in `present`, and gives them.
    pub async fn reconcile_kernel(&self, present: BTreeSet<InterfaceName>) -> Result<Vec<WorkloadEndpoint>, IpamError> {
        self.commands.ask(|reply| Command::Reconcile { present, reply }).await.map_err(|Ended| IpamError::Ended)
    }

    /// An attachment, complete or not.
    pub async fn endpoint(&self, id: EndpointId) -> Option<WorkloadEndpoint> {
        self.commands.ask(|reply| Command::Endpoint { id, reply }).await.unwrap_or_default()
    }

    /// The complete attachments; none when ipam has ended.
    pub async fn endpoints(&self) -> Vec<WorkloadEndpoint> {
        self.commands.ask(|reply| Command::Endpoints { reply }).await.unwrap_or_default()
    }

    /// Changes whenever [`Ipam::endpoints`] may say something else than before.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// This node's blocks: it originates them, and an unreachable route stands for what of them is not given out.
    pub fn blocks(&self) -> watch::Receiver<Arc<BTreeSet<Prefix>>> {
        self.blocks.clone()
    }

    /// Pools, blocks and endpoints; empty when ipam has ended.
    pub async fn view(&self) -> View {
        self.commands.ask(|reply| Command::View { reply }).await.unwrap_or_default()
    }

    /// How far the store and this node agree on what is this node's.
    pub async fn standing(&self) -> Standing {
        self.commands.ask(|reply| Command::Standing { reply }).await.unwrap_or_default()
    }
}
