//! The owner task: carries what [`Node`] decides to the journal, the store and those who asked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{Entry, Journal, Key, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use types::{EndpointId, NodeName, Prefix, ResourceName, Update, WorkloadEndpoint};

use crate::fence::{Fencing, in_words};
use crate::handle::Command;
use crate::messages::{Answer, Event, Job};
use crate::node::Node;
use crate::plan::Retry;
use crate::plan::claims::{self, ClaimOutcome};
use crate::plan::confirmations::Shown;
use crate::plan::publications::Ask;
use crate::tasks::Jobs;
use crate::{IpamConfig, IpamError, Pool, Request, ReserveError};

/// So many commands, or updates, share one turn and one commit of the journal.
const MESSAGES_PER_TURN: usize = 64;

/// The state of the owner task.
pub(crate) struct Owner {
    /// The decisions and what they rest on.
    node: Node,
    /// How long an ADD waits for a claim.
    claim_wait: Duration,
    /// The clocks and limits of fencing; none where the node does not fence.
    fencing: Option<Fencing>,
    /// Takes the node's rows.
    journal: Journal,
    /// The pause after the journal has failed.
    journal_retry: Retry,
    /// Asks the store; none: there is no shared store.
    jobs: Option<Jobs>,
    /// Tells the blocks that this node owns.
    blocks: watch::Sender<Arc<BTreeSet<Prefix>>>,
    /// How often endpoints have changed, for who follows them.
    changes: watch::Sender<u64>,
    /// ADDs that wait for an address, first come, first served.
    waiting: VecDeque<Waiting>,
    /// Callers to be answered once the journal was asked.
    unanswered: Vec<Unanswered>,
}

struct Waiting {
    id: EndpointId,
    request: Request,
    reply: oneshot::Sender<Result<WorkloadEndpoint, ReserveError>>,
    /// Until when.
    until: Instant,
}

/// What the outcome of the journal means differs: a commit fails with it, what lets go does not.
enum Unanswered {
    Commit(EndpointId, oneshot::Sender<Result<(), IpamError>>),
    Release(Option<WorkloadEndpoint>, oneshot::Sender<Option<WorkloadEndpoint>>),
    Described(Option<WorkloadEndpoint>, oneshot::Sender<Option<WorkloadEndpoint>>),
    Reconcile(Vec<WorkloadEndpoint>, oneshot::Sender<Vec<WorkloadEndpoint>>),
}

impl Owner {
    pub(crate) fn new(
        node: Node,
        config: &IpamConfig,
        journal: Journal,
        jobs: Option<Jobs>,
        (blocks, changes): (watch::Sender<Arc<BTreeSet<Prefix>>>, watch::Sender<u64>),
    ) -> Self {
        Self {
            node,
            claim_wait: config.claim_wait,
            fencing: config.fencing.filter(|_| jobs.is_some()),
            journal,
            journal_retry: Retry::new(0),
            jobs,
            blocks,
            changes,
            waiting: VecDeque::new(),
            unanswered: Vec::new(),
        }
    }

    /// Runs until cancelled, or until nobody can ask any more.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        pools: mpsc::Receiver<Update<ResourceName, Pool>>,
        mut claims: Option<mpsc::Receiver<Update<Key, Entry>>>,
        mut answers: mpsc::Receiver<Answer>,
        cancel: CancellationToken,
    ) {
        let (mut asked, mut said, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        let mut pools = Some(pools);
        loop {
            self.turn().await;
            let deadline = self.deadline();
            tokio::select! {
                () = cancel.cancelled() => return,
                count = commands.recv_many(&mut asked, MESSAGES_PER_TURN) => {
                    if count == 0 {
                        return;
                    }
                    asked.drain(..).for_each(|command| self.command(command));
                }
                Some(answer) = answers.recv() => self.node.answered(answer, now()),
                count = next(&mut pools, &mut said) => {
                    if count == 0 {
                        pools = None;
                    }
                    said.drain(..).for_each(|update| self.node.pool_update(update));
                }
                count = next(&mut claims, &mut shown) => {
                    if count == 0 {
                        claims = None;
                    }
                    shown.drain(..).for_each(|update| self.node.claim_update(update, now()));
                }
                () = until(deadline) => {}
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Reserve { id, request, reply } => self.reserve(id, request, reply),
            Command::Commit { id, reply } => match self.node.commit(&id) {
                Ok(()) => self.unanswered.push(Unanswered::Commit(id, reply)),
                Err(error) => answer(reply, Err(error)),
            },
            Command::Describe { id, facts, reply } => {
                let endpoint = self.node.describe(&id, facts);
                self.unanswered.push(Unanswered::Described(endpoint, reply));
            }
            Command::Release { id, reply } => {
                self.stop_waiting(&id);
                let endpoint = self.node.release(&id, now());
                self.unanswered.push(Unanswered::Release(endpoint, reply));
            }
            Command::Reconcile { present, reply } => {
                let released = self.node.reconcile(&present, now());
                self.unanswered.push(Unanswered::Reconcile(released, reply));
            }
            Command::Endpoint { id, reply } => answer(reply, self.node.endpoint(&id)),
            Command::Endpoints { reply } => answer(reply, self.node.endpoints()),
            Command::View { reply } => answer(reply, self.node.view()),
            Command::Standing { reply } => {
                self.read_clocks();
                answer(reply, self.node.standing());
            }
        }
    }

    /// Queues an ADD behind those that wait; the turn serves it.
    fn reserve(
        &mut self,
        id: EndpointId,
        request: Request,
        reply: oneshot::Sender<Result<WorkloadEndpoint, ReserveError>>,
    ) {
        let free = match self.node.check_unattached(&id) {
            Ok(()) if self.waiting.iter().any(|waiting| waiting.id == id) => Err(ReserveError::UnderWay(id.clone())),
            checked => checked,
        };
        match free {
            Ok(()) => self.waiting.push_back(Waiting { id, request, reply, until: now() + self.claim_wait }),
            Err(error) => return answer(reply, Err(error)),
        }
        // Within one batch, an ADD precedes the release that follows it.
        self.serve_waiting();
        if !self.waiting.is_empty() {
            self.node.hurry(now());
        }
    }

    fn stop_waiting(&mut self, id: &EndpointId) {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.id == *id) else { return };
        if let Some(waiting) = self.waiting.remove(place) {
            answer(waiting.reply, Err(ReserveError::Released(waiting.id)));
        }
    }

    /// Does everything that has become due or possible.
    async fn turn(&mut self) {
        self.start_jobs();
        while self.serve_waiting() {
            // What was given out may make another block due, which without a shared store is there at once.
            self.start_jobs();
        }
        self.write_journal().await;
        // What was journalled is published without waiting for another turn.
        self.start_jobs();
        let blocks = self.node.blocks();
        self.blocks.send_if_modified(|known| {
            let changed = **known != blocks;
            if changed {
                *known = Arc::new(blocks);
            }
            changed
        });
        self.node.take_events().into_iter().for_each(log);
    }

    fn read_clocks(&mut self) {
        if let Some(fencing) = self.fencing {
            self.node.clocks((fencing.clocks)());
        }
    }

    fn start_jobs(&mut self) {
        self.read_clocks();
        let jobs = self.node.jobs(now());
        if let Some(starter) = &self.jobs {
            jobs.into_iter().for_each(|job| starter.start(job));
        }
    }

    /// Whether anything was given out.
    fn serve_waiting(&mut self) -> bool {
        let mut served = false;
        if !self.waiting.is_empty() {
            self.read_clocks();
        }
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.reply.is_closed() {
                continue;
            }
            match self.node.reserve(&waiting.id, waiting.request.clone()) {
                Ok(endpoint) => {
                    served = true;
                    if waiting.reply.send(Ok(endpoint)).is_err() {
                        self.node.release(&waiting.id, now());
                    }
                }
                Err(error) if self.node.may_wait(&error) && waiting.until > now() => {
                    self.waiting.push_front(waiting);
                    break;
                }
                Err(error) => answer(waiting.reply, Err(error)),
            }
        }
        served
    }

    /// Journals what is queued, then answers those who wait for it.
    async fn write_journal(&mut self) {
        let due = !self.unanswered.is_empty() || self.journal_retry.is_due(now());
        let outcome = if due && !self.node.journal().is_empty() {
            self.journal.commit(self.node.journal().writes()).await
        } else {
            Ok(())
        };
        if due && outcome.is_ok() {
            self.node.journal().taken();
            self.journal_retry.succeeded();
        }
        if let Err(error) = &outcome {
            self.journal_retry.failed(now());
            warn!(%error, "the journal could not be written; what it does not have yet is written again later");
        }
        if !self.unanswered.is_empty() {
            self.changes.send_modify(|count| *count += 1);
        }
        for unanswered in std::mem::take(&mut self.unanswered) {
            match (unanswered, &outcome) {
                (Unanswered::Commit(id, reply), Ok(())) => {
                    self.node.journalled(id);
                    answer(reply, Ok(()));
                }
                (Unanswered::Commit(id, reply), Err(error)) => {
                    self.node.not_journalled(&id);
                    answer(reply, Err(IpamError::Journal { id, source: Box::new(error.clone()) }));
                }
                (Unanswered::Release(endpoint, reply) | Unanswered::Described(endpoint, reply), _) => {
                    answer(reply, endpoint);
                }
                (Unanswered::Reconcile(released, reply), _) => answer(reply, released),
            }
        }
    }

    fn deadline(&mut self) -> Option<Instant> {
        let waiting = self.waiting.front().map(|waiting| waiting.until);
        [waiting, self.journal_retry.deadline(), self.node.deadline()].into_iter().flatten().min()
    }
}

/// Asks the store.
pub(crate) async fn ask(store: &dyn Store, node: &NodeName, job: Job) -> Answer {
    match job {
        Job::Claim(block) => Answer::Claim(block, claim(store, node, &block).await),
        Job::Withdraw(block, created) => {
            let (checks, writes) = claims::withdrawal(&block, created);
            // A conflict means that the claim is gone.
            Answer::Withdraw(block, store.transact(checks, writes).await.map(drop))
        }
        Job::Confirm(blocks) => Answer::Confirmed(confirm(store, node, blocks).await),
        Job::Publication(Ask::List(prefix)) => Answer::Listed(store.list(&prefix).await),
        Job::Publication(Ask::Write(checks, writes)) => Answer::Written(store.transact(checks, writes).await),
    }
}

async fn claim(store: &dyn Store, node: &NodeName, block: &Prefix) -> Result<ClaimOutcome, StoreError> {
    let (checks, writes) = claims::claim(block, node);
    if store.transact(checks, writes).await?.is_committed() {
        return Ok(ClaimOutcome::Claimed);
    }
    // Whose it is decides what to do: an earlier attempt of this node may have been made though its reply was lost.
    let there = store.get(&store::keys::block(block)).await?;
    Ok(there.map_or(ClaimOutcome::Vanished, |entry| ClaimOutcome::Taken(claims::read_claim(&entry).0)))
}

/// What the store has of these blocks now, and whether it counts this node as gone.
async fn confirm(store: &dyn Store, node: &NodeName, blocks: Vec<Prefix>) -> Result<Shown, StoreError> {
    let mut claims = Vec::new();
    for block in blocks {
        let entry = store.get(&store::keys::block(&block)).await?;
        claims.push((block, entry.map(|entry| claims::read_claim(&entry).0)));
    }
    Ok(Shown { claims, is_gone: store.get(&store::keys::gone(node)).await?.is_some() })
}

/// The time, as tokio has it, which tests may stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Answers a caller, who may have stopped waiting.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

/// Waits for updates; for ever where there is no source (any more). None come when it has ended.
async fn next<T>(source: &mut Option<mpsc::Receiver<T>>, updates: &mut Vec<T>) -> usize {
    match source {
        Some(source) => source.recv_many(updates, MESSAGES_PER_TURN).await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn log(event: Event) {
    match event {
        Event::Rebooted(endpoints) => {
            info!(endpoints, "the node has booted since these endpoints were journalled; their addresses are released")
        }
        Event::Owned(block) => info!(%block, "a block belongs to this node now"),
        Event::Lost { block, to, endpoints } if endpoints.is_empty() => {
            warn!(%block, to, "the block is not this node's any more")
        }
        Event::Lost { block, to, endpoints } => {
            let pods = endpoints.join(", ");
            error!(%block, to, pods, "the block is not this node's any more, but these pods have addresses of it");
        }
        Event::ClaimFailed(block, error) => warn!(%block, %error, "a block could not be claimed for this node"),
        Event::PublicationFailed(error) if error.is_transient() => {
            debug!(%error, "endpoints could not be published; they are published later")
        }
        Event::PublicationFailed(error) => {
            error!(%error, "endpoints cannot be published: other nodes do not know these pods")
        }
        Event::NotConfirmed(error) if error.is_transient() => {
            debug!(%error, "the datastore could not be asked for this node's blocks; it is asked again later")
        }
        Event::NotConfirmed(error) => error!(%error, "the datastore cannot be asked for this node's blocks"),
        Event::Doubted(block) => {
            warn!(%block, "the datastore does not have the claim of this block as its watch has shown it; no address is given out of the block")
        }
        Event::Fenced(why, limit) => {
            let limit = in_words(limit);
            error!(limit, "no addresses are given out: the datastore has not confirmed this node's blocks {why}");
        }
        Event::Confirmed => info!("addresses are given out again: the datastore has confirmed this node's blocks"),
        Event::PoolRefused(error) => error!(%error, "this pool cannot be used; no addresses are taken from it"),
        Event::ClaimUnreadable(error) => {
            warn!(%error, "the claim of a block cannot be read; the block counts as another node's")
        }
    }
}
