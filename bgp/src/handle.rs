//! The handle through which others speak to the speaker's owner.

use std::collections::BTreeSet;
use std::io;

use bgp_proto::{Identity, ImportPolicy, OriginChange, PeerConfig};
use mailbox::{Ended, Mailbox};
use tokio::sync::{mpsc, oneshot};

use types::api::{PeerStatus, RejectedRoute, RouteView};
use types::{ClusterId, Family, FibUpdate, NextHopState, NextHopWatch, Passwords, Prefix};

use crate::door::Turned;

/// The handle to the speaker. Clones speak to the same one.
#[derive(Debug, Clone)]
pub struct Bgp {
    /// To the speaker's owner.
    mailbox: Mailbox<Command>,
    /// What listeners have turned away.
    turned: Turned,
}

/// What the speaker says of itself, in batches and in order.
#[derive(Debug)]
pub struct Outputs {
    /// Chosen routes.
    pub fib: mpsc::Receiver<Vec<FibUpdate>>,
    /// Next hops whose state it wants to be told ([`Bgp::next_hops`]).
    pub watches: mpsc::Receiver<Vec<NextHopWatch>>,
}

/// Why a speaker does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    /// The environment is at fault: another process listens there, or the port is privileged.
    #[error("cannot listen for BGP on port {port}: {error}")]
    Listen {
        /// The port.
        port: u16,
        /// What the kernel says.
        error: io::Error,
    },
    /// The speaker's owner has ended, as it does when the agent ends.
    #[error("the BGP speaker has ended")]
    Ended,
}

impl From<Ended> for BgpError {
    fn from(Ended: Ended) -> Self {
        Self::Ended
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Configure(Identity, Vec<PeerConfig>, Option<ClusterId>, Passwords),
    Import(ImportPolicy),
    Origins(Vec<OriginChange>),
    Originate(BTreeSet<Prefix>),
    NextHops(Vec<NextHopState>),
    Listen(u16, oneshot::Sender<Result<(), BgpError>>),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(Family, Option<Prefix>, oneshot::Sender<Vec<RouteView>>),
    Route(Prefix, oneshot::Sender<Option<RouteView>>),
    Rejected(oneshot::Sender<Vec<RejectedRoute>>),
}

impl Bgp {
    pub(crate) const fn new(commands: mpsc::Sender<Command>, turned: Turned) -> Self {
        Self { mailbox: Mailbox::new(commands), turned }
    }

    /// How many connections were closed as they were accepted: from addresses that are no configured peer's, and too many
    /// at once from one that is.
    pub fn turned_away(&self) -> u64 {
        self.turned.count()
    }

    /// Listens at this port from now on (and no longer at an earlier one).
    pub async fn listen(&self, port: u16) -> Result<(), BgpError> {
        self.mailbox.ask(|reply| Command::Listen(port, reply)).await?
    }

    /// The sessions that there should be: new ones are started, others end with a Cease, changed ones begin again, and
    /// those that stay the same are not disturbed. With them, who this node is, and the cluster that it reflects routes
    /// for, if it does. A session whose password is not among those that are known is not opened, and ends if it is up.
    pub async fn configure(
        &self,
        identity: Identity,
        peers: Vec<PeerConfig>,
        cluster_id: Option<ClusterId>,
        passwords: Passwords,
    ) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Configure(identity, peers, cluster_id, passwords)).await?)
    }

    /// What import policy accepts.
    pub async fn import(&self, accepted: ImportPolicy) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Import(accepted)).await?)
    }

    /// What has changed of who may announce what.
    pub async fn origins(&self, changes: Vec<OriginChange>) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Origins(changes)).await?)
    }

    /// Routes that are refused: those that are kept, and samples of the others.
    pub async fn rejected(&self) -> Result<Vec<RejectedRoute>, BgpError> {
        Ok(self.mailbox.ask(Command::Rejected).await?)
    }

    /// The prefixes that this node originates, all of them.
    pub async fn originate(&self, prefixes: BTreeSet<Prefix>) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::Originate(prefixes)).await?)
    }

    /// Answers to [`Outputs::watches`].
    pub async fn next_hops(&self, states: Vec<NextHopState>) -> Result<(), BgpError> {
        Ok(self.mailbox.tell(Command::NextHops(states)).await?)
    }

    /// The sessions as they are.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, BgpError> {
        Ok(self.mailbox.ask(Command::Peers).await?)
    }

    /// The destinations of a family behind `after` in ascending order, or from the first on, each with its routes: so many
    /// that the speaker is not kept from its work for long; none at the end. What changes between two calls is seen by the
    /// second, or not.
    pub async fn routes(&self, family: Family, after: Option<Prefix>) -> Result<Vec<RouteView>, BgpError> {
        Ok(self.mailbox.ask(|reply| Command::Routes(family, after, reply)).await?)
    }

    /// One destination.
    pub async fn route(&self, prefix: Prefix) -> Result<Option<RouteView>, BgpError> {
        Ok(self.mailbox.ask(|reply| Command::Route(prefix, reply)).await?)
    }
}
