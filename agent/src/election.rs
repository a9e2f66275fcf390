//! One agent of the cluster is elected for what has to be done once and not on every node.
//!
//! Whoever puts `elected/holder` under a session of its own is elected until that session ends, which it does when the
//! agent has gone or has not reached the store for its time to live: before anybody else can be elected, that is. So two
//! agents never both hold a session under which the key stands. Duties follow [`Election::is_elected`] and stop at once
//! when it turns false; what they write should all the same be written by compare-and-swap, as a process may sleep between
//! looking and writing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::{Check, Outcome, Session, Store, StoreError, Write, keys};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use types::backoff::Backoff;
use types::{NodeName, Update};

/// How long nobody is elected after the one that was has gone without a word.
const LEASE: Duration = Duration::from_secs(15);

/// Delays between attempts while the store does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Who is elected: `elected/holder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    /// The node, for people.
    node: NodeName,
    /// Its agent's instance: after a restart it is elected still.
    instance: String,
}

/// A candidate.
pub(crate) struct Election {
    store: Arc<dyn Store>,
    holder: Holder,
    elected: watch::Sender<bool>,
}

impl Election {
    /// A candidate that has not stood yet.
    pub(crate) fn new(store: Arc<dyn Store>, node: NodeName, instance: String) -> Self {
        Self { store, holder: Holder { node, instance }, elected: watch::Sender::new(false) }
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
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, seed);
        loop {
            match self.wait_for_election().await {
                Ok(session) => {
                    info!("this agent is elected");
                    self.elected.send_replace(true);
                    backoff.reset();
                    self.until_lost(&session).await;
                    self.elected.send_replace(false);
                    info!("this agent is not elected any more");
                }
                Err(error) => {
                    debug!(%error, "cannot stand for election");
                    tokio::time::sleep(backoff.delay()).await;
                }
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
                    // The store ends with the agent.
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

#[cfg(test)]
mod tests {
    use store::Memory;

    use super::*;

    struct Candidate {
        elected: watch::Receiver<bool>,
        cancel: CancellationToken,
    }

    fn candidate(store: &Memory, instance: &str) -> Candidate {
        let election =
            Election::new(Arc::new(store.clone()), format!("node-{instance}").parse().unwrap(), instance.to_owned());
        let (elected, cancel) = (election.is_elected(), CancellationToken::new());
        tokio::spawn(election.stand(cancel.clone()));
        Candidate { elected, cancel }
    }

    async fn comes(elected: &mut watch::Receiver<bool>, wanted: bool) {
        tokio::time::timeout(Duration::from_secs(60), elected.wait_for(|is| *is == wanted)).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_elected_and_another_when_it_has_gone() {
        let store = Memory::new();
        let mut one = candidate(&store, "a");
        comes(&mut one.elected, true).await;
        let mut two = candidate(&store, "b");
        tokio::time::sleep(LEASE * 3).await;
        assert!(*one.elected.borrow() && !*two.elected.borrow());
        one.cancel.cancel();
        comes(&mut one.elected, false).await;
        store.expire_all();
        comes(&mut two.elected, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_instance_is_elected_again_at_once() {
        let store = Memory::new();
        let mut one = candidate(&store, "a");
        comes(&mut one.elected, true).await;
        let two = candidate(&store, "b");
        one.cancel.cancel();
        comes(&mut one.elected, false).await;
        let mut again = candidate(&store, "a");
        comes(&mut again.elected, true).await;
        assert!(!*two.elected.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_loses_its_session_stands_again() {
        let store = Memory::new();
        let mut one = candidate(&store, "a");
        comes(&mut one.elected, true).await;
        let mut changes = one.elected.clone();
        changes.borrow_and_update();
        store.expire_all();
        changes.changed().await.unwrap();
        comes(&mut one.elected, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_the_key_is_not_elected_any_more() {
        let store = Memory::new();
        let mut one = candidate(&store, "a");
        comes(&mut one.elected, true).await;
        let other = Holder { node: "node-z".parse().unwrap(), instance: "z".to_owned() };
        let write = Write::put(keys::elected_holder(), store::encode(&other));
        store.transact(Vec::new(), vec![write]).await.unwrap();
        comes(&mut one.elected, false).await;
        store.transact(Vec::new(), vec![Write::delete(keys::elected_holder())]).await.unwrap();
        comes(&mut one.elected, true).await;
    }
}
