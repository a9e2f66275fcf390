//! The handle through which the agent speaks to the owner of this node's kernel routes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::KernelError;
use mailbox::{Ended, Mailbox};
use tokio::sync::{mpsc, oneshot, watch};
use types::{FibUpdate, InterfaceName, NextHopState, NextHopWatch, Prefix};

/// This node's kernel routes, as those who want some see them. Clones speak to the same owner.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The way to the owner, which waits on the kernel's events: each command wakes it.
    pub(crate) owner: Mailbox<Command>,
    /// See [`Routes::mtu`].
    pub(crate) mtu: watch::Receiver<Option<u32>>,
    /// The stream that [`Routes::next_hops`] hands over, until it has.
    pub(crate) next_hops: Arc<Mutex<Option<mpsc::Receiver<NextHopState>>>>,
}

/// Which routes are wanted, which are in the kernel, and why others are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutesView {
    /// How many routes to local pods are wanted.
    pub local: usize,
    /// How many unreachable routes of own blocks are wanted.
    pub blocks: usize,
    /// How many routes learned by BGP are in the kernel.
    pub bgp: usize,
    /// How many routes learned by BGP are wanted. The kernel has fewer of them while some next hops do not resolve.
    pub learned: usize,
    /// How many routes of an earlier run of the agent are in the kernel whose source has said nothing of them yet.
    pub stale: usize,
    /// One sentence for each wanted route that is not in the kernel, with the reason.
    pub failures: Vec<String>,
    /// How often since the start another program's route stood in the place of ours (and was left there).
    pub conflicts: u64,
    /// How often since the start another program deleted or changed a route of ours.
    pub disturbed: u64,
}

/// Why a local route is not as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The host's end of the pod's interface does not exist.
    #[error("interface {0} does not exist")]
    NoInterface(InterfaceName),
    /// The host's end of the pod's interface is down: the kernel takes no routes over it.
    #[error("interface {0} is down")]
    InterfaceDown(InterfaceName),
    /// Another program's route has the prefix and our metric. It is left alone.
    #[error("route to {prefix}: a route of another program has this prefix and metric {metric}")]
    Conflict {
        /// The destination of the route.
        prefix: Prefix,
        /// The metric of the route.
        metric: u32,
    },
    /// The kernel refused the route.
    #[error("route to {prefix}: {error}")]
    Kernel {
        /// The destination of the route.
        prefix: Prefix,
        /// What the kernel says.
        error: KernelError,
    },
    /// The kernel cannot be asked about the interface.
    #[error(transparent)]
    Unavailable(#[from] KernelError),
    /// The owner has ended, as the agent is ending.
    #[error("the owner of the kernel routes has ended")]
    Ended,
}

impl From<Ended> for RouteError {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Attach { interface: InterfaceName, addresses: Vec<IpAddr>, reply: oneshot::Sender<Result<(), RouteError>> },
    Detach { addresses: Vec<IpAddr>, reply: oneshot::Sender<Result<(), RouteError>> },
    LocalInSync,
    OwnBlocks(BTreeSet<Prefix>),
    NodeAddresses(Vec<IpAddr>),
    Fib(Vec<FibUpdate>),
    Watch(Vec<NextHopWatch>),
    View(oneshot::Sender<RoutesView>),
}

impl Routes {
    /// Routes these addresses over the interface. Returns when the routes are in the kernel, or with the reason why
    /// they are not; the owner then goes on trying until the addresses are detached.
    pub async fn attach(&self, interface: InterfaceName, addresses: Vec<IpAddr>) -> Result<(), RouteError> {
        self.owner.ask(|reply| Command::Attach { interface, addresses, reply }).await?
    }

    /// Deletes the routes of these addresses; returns when they are gone from the kernel.
    pub async fn detach(&self, addresses: Vec<IpAddr>) -> Result<(), RouteError> {
        self.owner.ask(|reply| Command::Detach { addresses, reply }).await?
    }

    /// Says that every pod of this node has been attached and that the own blocks are known: local routes of an earlier
    /// run of the agent that are not among them may go.
    pub async fn local_in_sync(&self) {
        self.tell(Command::LocalInSync).await;
    }

    /// Replaces the own blocks; each of them gets an unreachable route.
    pub async fn own_blocks(&self, blocks: BTreeSet<Prefix>) {
        self.tell(Command::OwnBlocks(blocks)).await;
    }

    /// Replaces this node's addresses, at most one per family: the source of what the host sends to its own pods. An
    /// address that is not (or not yet) the kernel's own is left out of the routes until it is.
    pub async fn node_addresses(&self, addresses: Vec<IpAddr>) {
        self.tell(Command::NodeAddresses(addresses)).await;
    }

    /// Passes on changes of the routes that BGP has chosen, in order.
    pub async fn fib(&self, updates: Vec<FibUpdate>) {
        self.tell(Command::Fib(updates)).await;
    }

    /// Passes on which next hops to follow, in order; the answers come out of [`Routes::next_hops`].
    pub async fn watch(&self, watches: Vec<NextHopWatch>) {
        self.tell(Command::Watch(watches)).await;
    }

    /// The states of the next hops that are followed. There is one stream: the second caller gets nothing.
    pub fn next_hops(&self) -> Option<mpsc::Receiver<NextHopState>> {
        self.next_hops.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The smallest MTU of the interfaces that lead to BGP next hops; none while there is no such interface.
    pub fn mtu(&self) -> watch::Receiver<Option<u32>> {
        self.mtu.clone()
    }

    /// The routes as they are once everything told so far is in the kernel; none when the owner has ended.
    pub async fn view(&self) -> Option<RoutesView> {
        self.owner.ask(Command::View).await.ok()
    }

    async fn tell(&self, command: Command) {
        // The owner ends only with the agent; what is not done by then is done at the next start.
        let _ = self.owner.tell(command).await;
    }
}
