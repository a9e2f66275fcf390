//! The tasks of this crate; nothing else spawns.
//!
//! ```text
//!   Ipam (handles) ──commands──►┌───────────┐◄──pools── agent
//!                  ◄──replies── │ owner (1) │◄──claims of all nodes── a watch of the store
//!   own blocks ◄────────────────│  run.rs   │
//!                               └─┬───▲───┬─┘
//!                            jobs │   │   │ rows, waited for
//!                               ┌─▼───┴─┐ └──────► the journal's thread (store)
//!                               │ job   │   at most three: claims, confirmation, publications
//!                               │ (0-3) │
//!                               └───┬───┘
//!                                   ▼
//!                             the shared store
//! ```
//!
//! Without a shared store there are neither jobs nor a watch.

use std::sync::Arc;

use store::{Journal, Store, keys};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{NodeName, ResourceName, Update};

use crate::messages::{Answer, Job};
use crate::node::Node;
use crate::run::{self, Owner};
use crate::{Ipam, IpamConfig, Pool, StartError, rows};

/// So many commands wait before callers wait to ask.
const COMMANDS: usize = 256;

/// No more jobs are under way, so that an answer always finds a place.
const JOBS: usize = 3;

/// Starts ipam from what the journal says. Ends when cancelled, or with the last handle.
///
/// `store`: shared with other nodes; none: this node is alone and the journal is all there is. The store may be away: the
/// node goes on with the blocks of its journal. Nothing is given out before `pools` has been in sync.
pub async fn start(
    config: IpamConfig,
    store: Option<Arc<dyn Store>>,
    journal: Journal,
    pools: mpsc::Receiver<Update<ResourceName, Pool>>,
    tracker: &TaskTracker,
    cancel: CancellationToken,
) -> Result<Ipam, StartError> {
    let restored = rows::restore(journal.load().await?, &config.node)?;
    let node = Node::new(&config, store.is_some(), restored, run::now());
    let (to_owner, commands) = mpsc::channel(COMMANDS);
    let (blocks, own_blocks) = watch::channel(Arc::new(node.blocks()));
    let (count, changes) = watch::channel(0);
    let (to_answers, answers) = mpsc::channel(JOBS);
    let claims = store.as_ref().map(|store| store.watch(keys::blocks()));
    let jobs = store.map(|store| Jobs {
        store,
        node: config.node.clone(),
        answers: to_answers,
        tracker: tracker.clone(),
        cancel: cancel.clone(),
    });
    let owner = Owner::new(node, &config, journal, jobs, (blocks, count));
    tracker.spawn(owner.run(commands, pools, claims, answers, cancel));
    Ok(Ipam::new(to_owner, own_blocks, changes))
}

/// Starts the jobs.
#[derive(Clone)]
pub(crate) struct Jobs {
    store: Arc<dyn Store>,
    /// This node.
    node: NodeName,
    /// The way to the owner for the answers.
    answers: mpsc::Sender<Answer>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Jobs {
    /// Asks the store; the answer comes to the owner.
    pub(crate) fn start(&self, job: Job) {
        let Self { store, node, answers, tracker, cancel } = self.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                answer = run::ask(store.as_ref(), &node, job) => {
                    // The owner has ended, and with it the question.
                    let _ = answers.send(answer).await;
                }
            }
        });
    }
}
