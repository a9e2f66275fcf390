//! One agent of the cluster is elected for what has to be done once and not on every node.
//!
//! Whoever puts `elected/holder` under a session of its own is elected until that session ends, which it does when the
//! agent has gone or has not reached the store for its time to live: before anybody else can be elected, that is. So two
//! agents never both hold a session under which the key stands. Duties follow [`Election::is_elected`] and stop at once
//! when it turns false; what they write should all the same be written by compare-and-swap, as a process may sleep between
//! looking and writing.
//!
//! The duties are about the API server, where there is one. Whoever does not reach it does not stand, and whoever loses it in
//! office gives the office up after a while: another may reach it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::{Check, Outcome, Session, Store, StoreError, Write, keys};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use kube_watch::{Status, WatchError, WatchStatus};
use types::backoff::Backoff;
use types::{NodeName, Update};

/// How long nobody is elected after the one that was has gone without a word.
const LEASE: Duration = Duration::from_secs(15);

/// How long an elected agent may be without the API server: it may be starting anew.
const API_SERVER_GRACE: Duration = Duration::from_secs(15);

/// The shortest and the longest delay between two attempts while the store does not answer.
const STAND_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Who is elected: `elected/holder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    /// The name of the elected agent's node, for people.
    node: NodeName,
    /// Its agent's instance: after a restart it is elected still.
    instance: String,
}

/// An agent as a candidate for the office.
pub(crate) struct Election {
    /// The store in which candidates meet.
    store: Arc<dyn Store>,
    /// What this agent writes when it is elected.
    holder: Holder,
    /// Tells whether this agent is elected.
    elected: watch::Sender<bool>,
    /// How its watches of the API server fare, where there is one.
    watches: Option<watch::Receiver<Status>>,
}

impl Election {
    /// A candidate that has not stood yet.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        node: NodeName,
        instance: String,
        watches: Option<watch::Receiver<Status>>,
    ) -> Self {
        Self { store, holder: Holder { node, instance }, elected: watch::Sender::new(false), watches }
    }

    /// Whether this agent is elected, now and as it changes.
    pub(crate) fn is_elected(&self) -> watch::Receiver<bool> {
        self.elected.subscribe()
    }

    /// Stands for election for as long as the agent runs.
    pub(crate) async fn stand(self, cancel: CancellationToken) {
        tokio::select! {
            () = self.run() => {}
            () = cancel.cancelled() => {}
        }
        // The key stays until its lease ends, so that a restarted agent is elected still.
        self.elected.send_replace(false);
    }

    async fn run(&self) {
        let seed = u64::from(std::process::id());
        let mut backoff = Backoff::new(STAND_DELAYS.0, STAND_DELAYS.1, seed);
        loop {
            self.until_reached(true).await;
            let election = tokio::select! {
                election = self.wait_for_election() => election,
                () = self.until_reached(false) => continue,
            };
            match election {
                Ok(session) => {
                    info!("this agent is elected");
                    self.elected.send_replace(true);
                    backoff.reset();
                    let resigns = tokio::select! {
                        () = self.until_lost(&session) => false,
                        () = self.until_given_up() => true,
                    };
                    self.elected.send_replace(false);
                    if resigns {
                        info!("this agent does not reach the API server and gives its office up");
                        // This frees the office at once; if it fails, the end of the lease does.
                        let _ = session.end().await;
                    } else {
                        info!("this agent is not elected any more");
                    }
                }
                Err(error) => {
                    debug!(%error, "this agent cannot stand for election now; trying again");
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Returns when the API server is reached, or is not; without one it counts as reached.
    async fn until_reached(&self, wanted: bool) {
        let mut watches = self.watches.clone();
        let known = match &mut watches {
            None if wanted => return,
            None => std::future::pending().await,
            Some(watches) => watches.wait_for(|status| is_reached(status) == wanted).await.is_ok(),
        };
        if !known {
            // The watches end only with the agent, so there is nothing more to wait for.
            std::future::pending().await
        }
    }

    /// Returns when the API server has not been reached for so long that another agent should have the office.
    async fn until_given_up(&self) {
        loop {
            self.until_reached(false).await;
            if tokio::time::timeout(API_SERVER_GRACE, self.until_reached(true)).await.is_err() {
                return;
            }
        }
    }

    /// Returns when the key is ours, under the session that comes back.
    async fn wait_for_election(&self) -> Result<Session, StoreError> {
        let key = keys::elected_holder();
        // Before the first look, so that no end of another's term is missed.
        let mut changes = self.store.watch(key.clone());
        let mut session: Option<Session> = None;
        loop {
            // One that waits for long keeps no session meanwhile.
            let (check, is_free) = match self.store.get(&key).await? {
                None => (Check::absent(key.clone()), true),
                Some(entry) => {
                    let holder = store::decode::<Holder>(&entry.key, &entry.value);
                    let is_ours = holder.is_ok_and(|holder| holder.instance == self.holder.instance);
                    (Check::unchanged(&entry), is_ours)
                }
            };
            if is_free {
                let ours = match session.take().filter(|session| !session.is_lost()) {
                    Some(session) => session,
                    None => self.store.session(LEASE).await?,
                };
                let value = store::encode(&self.holder);
                let write = Write::Put { key: key.clone(), value, session: Some(ours.id()) };
                if let Outcome::Committed(_) = self.store.transact(vec![check], vec![write]).await? {
                    return Ok(ours);
                }
                session = Some(ours);
                continue;
            }
            // Whoever was faster has it; its session is not ours to keep alive.
            session = None;
            loop {
                match changes.recv().await {
                    Some(Update::Delete(_) | Update::InSync) => break,
                    Some(Update::Restart | Update::Set(..)) => {}
                    None => return Err(StoreError::Closed),
                }
            }
        }
    }

    /// Returns when the session may have ended, or somebody has taken the key away.
    async fn until_lost(&self, session: &Session) {
        let key = keys::elected_holder();
        let mut changes = self.store.watch(key);
        let mut is_there = false;
        let taken = async {
            loop {
                match changes.recv().await {
                    Some(Update::Set(_, entry)) => {
                        let holder = store::decode::<Holder>(&entry.key, &entry.value);
                        if holder.is_ok_and(|holder| holder.instance != self.holder.instance) {
                            return;
                        }
                        is_there = true;
                    }
                    Some(Update::Delete(_)) => return,
                    Some(Update::Restart) => is_there = false,
                    Some(Update::InSync) if !is_there => return,
                    Some(Update::InSync) => {}
                    // The store ends only with the agent, so there is nothing more to wait for.
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = session.lost() => {}
            () = taken => {}
        }
    }
}

/// Whether the API server is reached: it is followed, and no watch says that it is away. A watch that it refuses is nothing
/// that another agent would be better off with.
fn is_reached(status: &Status) -> bool {
    let is_away = |watch: &WatchStatus| {
        let failure = watch.last_failure.as_ref().filter(|_| watch.connected_since.is_none());
        failure.is_some_and(|failure| !matches!(failure.error, WatchError::Refused { unknown: false, .. }))
    };
    let mut watches = status.watches.values();
    watches.clone().any(|watch| watch.connected_since.is_some()) && !watches.any(is_away)
}

#[cfg(test)]
mod tests;
