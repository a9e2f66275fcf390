//! A store in memory, for tests of what is built on stores: the semantics of etcd, and its failures at will.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::Update;

use crate::data::validate;
use crate::history::History;
use crate::revisions::Revisions;
use crate::session::Keeper;
use crate::tasks::Tasks;
use crate::{Check, Entry, Incarnation, Key, Listing, Outcome, Session, SessionId, Store, StoreError, Write};

/// The store. Clones share the same entries, so that a test keeps one to disturb what it gave away.
///
/// Time does not pass here: a session expires when [`Memory::expire`] says so.
#[derive(Debug, Clone)]
pub struct Memory {
    /// What the clones share.
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The entries; shared with the watches.
    history: Arc<History>,
    /// What goes wrong next.
    faults: Mutex<Faults>,
    /// Watches and sessions.
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Faults {
    /// So many transactions answer `Conflict` without looking.
    conflicts: u32,
    /// So many transactions are committed, but their caller hears `Unavailable`.
    lost_replies: u32,
    /// Each call takes so long.
    delay: Duration,
    /// Transactions asked for so far, failed ones too.
    transactions: u64,
    /// The sessions that are alive, and how to tell them that they are not.
    sessions: BTreeMap<SessionId, CancellationToken>,
    /// Names the next session and the next incarnation.
    next: i64,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        let history = Arc::new(History::new(Revisions::new(Incarnation::new("memory-0"))));
        Self { shared: Arc::new(Shared { history, faults: Mutex::default(), tasks: Tasks::new() }) }
    }

    /// While false, every call fails with [`StoreError::Unavailable`] and watches hear nothing; sessions stay.
    pub fn set_available(&self, available: bool) {
        self.shared.history.set_reachable(available);
    }

    /// The next `count` transactions end in [`Outcome::Conflict`] and write nothing.
    pub fn conflict_next(&self, count: u32) {
        self.faults().conflicts = count;
    }

    /// The next `count` transactions are carried out, but their callers hear [`StoreError::Unavailable`].
    pub fn lose_next_replies(&self, count: u32) {
        self.faults().lost_replies = count;
    }

    /// Every call from now on takes so long.
    pub fn set_delay(&self, delay: Duration) {
        self.faults().delay = delay;
    }

    /// Forgets history: a watch that has not reported everything lists anew.
    pub fn compact(&self) {
        self.shared.history.write(Revisions::compact);
    }

    /// The same entries in another incarnation, as after a restored backup: watches list anew.
    pub fn change_incarnation(&self) {
        let incarnation = self.next_incarnation();
        self.shared.history.write(|revisions| revisions.reincarnate(incarnation));
    }

    /// Another, empty incarnation, with versions from the beginning; all sessions are lost.
    pub fn wipe(&self) {
        let incarnation = self.next_incarnation();
        let sessions = std::mem::take(&mut self.faults().sessions);
        self.shared.history.write(|revisions| *revisions = Revisions::new(incarnation));
        sessions.values().for_each(CancellationToken::cancel);
    }

    /// Lets a session expire: its entries vanish and its owner is told.
    pub fn expire(&self, session: SessionId) {
        self.shared.end_session(session);
    }

    /// Lets all sessions expire.
    pub fn expire_all(&self) {
        let sessions: Vec<SessionId> = self.faults().sessions.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.expire(session));
    }

    /// How many transactions were asked for so far, failed ones included.
    pub fn transactions(&self) -> u64 {
        self.faults().transactions
    }

    /// Ends all watches and sessions, and waits for them.
    pub async fn close(&self) {
        self.shared.tasks.close().await;
    }

    fn next_incarnation(&self) -> Incarnation {
        let mut faults = self.faults();
        faults.next += 1;
        Incarnation::new(format!("memory-{}", faults.next))
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every call goes through: the delay, and the switch.
    async fn reach(&self) -> Result<(), StoreError> {
        let delay = self.faults().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.history.is_reachable() { Ok(()) } else { Err(unavailable("switched off")) }
    }

    async fn transact(&self, checks: &[Check], writes: &[Write]) -> Result<Outcome, StoreError> {
        validate(checks, writes)?;
        self.faults().transactions += 1;
        self.reach().await?;
        let mut faults = self.faults();
        for write in writes {
            if let Write::Put { key, session: Some(session), .. } = write
                && !faults.sessions.contains_key(session)
            {
                return Err(StoreError::SessionLost { session: *session, key: key.clone() });
            }
        }
        if let Some(left) = faults.conflicts.checked_sub(1) {
            faults.conflicts = left;
            return Ok(Outcome::Conflict);
        }
        // Under the lock of the faults, so that no session ends between the look above and the write.
        let outcome = self.history.write(|revisions| match revisions.plan(checks, writes) {
            Some(changes) => Outcome::Committed(revisions.apply(changes)),
            None => Outcome::Conflict,
        });
        if let Some(left) = faults.lost_replies.checked_sub(1) {
            faults.lost_replies = left;
            return Err(unavailable("the reply was lost"));
        }
        Ok(outcome)
    }

    fn open_session(self: &Arc<Self>) -> Session {
        let mut faults = self.faults();
        faults.next += 1;
        let (session, keeper) = Session::new(SessionId::new(faults.next));
        faults.sessions.insert(keeper.id, keeper.lost.clone());
        self.tasks.session(Arc::clone(self).keep(keeper));
        session
    }

    async fn keep(self: Arc<Self>, keeper: Keeper) {
        tokio::select! {
            end = keeper.end => if let Ok(reply) = end {
                self.end_session(keeper.id);
                // The caller may have stopped waiting.
                let _ = reply.send(Ok(()));
            },
            () = keeper.lost.cancelled() => {}
        }
    }

    fn end_session(&self, session: SessionId) {
        let Some(lost) = self.faults().sessions.remove(&session) else { return };
        self.history.write(|revisions| {
            let changes = revisions.plan_end(session);
            revisions.apply(changes)
        });
        lost.cancel();
    }
}

impl Store for Memory {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.clone();
        async move {
            self.shared.reach().await?;
            Ok(self.shared.history.read(|revisions| revisions.entry(&key)))
        }
        .boxed()
    }

    fn list(&self, prefix: &Key) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let prefix = prefix.clone();
        async move {
            self.shared.reach().await?;
            Ok(self.shared.history.read(|revisions| revisions.listing(&prefix)))
        }
        .boxed()
    }

    fn watch(&self, prefix: Key) -> mpsc::Receiver<Update<Key, Entry>> {
        let history = Arc::clone(&self.shared.history);
        self.shared.tasks.watch(|to, closed| async move { history.follow(prefix, to, closed).await })
    }

    fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move { self.shared.transact(&checks, &writes).await }.boxed()
    }

    fn session(&self, _ttl: Duration) -> BoxFuture<'_, Result<Session, StoreError>> {
        async move {
            self.shared.reach().await?;
            Ok(self.shared.open_session())
        }
        .boxed()
    }
}

fn unavailable(what: &str) -> StoreError {
    StoreError::Unavailable { endpoints: "memory".to_owned(), what: what.to_owned() }
}
