//! One watch: lists, follows, and comes back after every failure.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use kube::api::WatchEvent;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::Update;
use types::backoff::Backoff;
use types::update::Mirror;

use crate::WatchError;
use crate::call::{CallError, Calls};
use crate::history::{History, Judgement};
use crate::object::{Content, Kind, Object};
use crate::status::Report;

/// The delays between attempts begin with this one and grow to the next.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The API server may ask for a longer delay, up to this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A watch that has lasted so long was a success, whatever ended it.
const SUCCESS: Duration = Duration::from_secs(5);

/// Follows a kind of object until the receiver is dropped or the watches are closed.
pub(crate) async fn follow<K: Kind>(
    calls: Calls,
    to: mpsc::Sender<Update<K::Key, K::Value>>,
    report: Report,
    closed: CancellationToken,
) {
    let receiver_gone = to.clone();
    let seed = RandomState::new().build_hasher().finish();
    let durations = Backoff::new(calls.config.watch_timeout, calls.config.watch_timeout, seed);
    let mut watch = Watch::<K> {
        calls,
        to,
        report,
        position: None,
        in_doubt: false,
        history: History::default(),
        bearers: Mirror::new(),
        opened: None,
        // The delays differ from process to process, so that agents which lost an API server together do not return together.
        backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, seed),
        durations,
    };
    tokio::select! {
        Gone = watch.run() => {}
        () = receiver_gone.closed() => {}
        () = closed.cancelled() => {}
    }
}

struct Watch<K: Kind> {
    calls: Calls,
    /// The way to the owner of the watch.
    to: mpsc::Sender<Update<K::Key, K::Value>>,
    /// The place where the watch says how it fares.
    report: Report,
    /// The version up to which everything was reported; none: it has to list.
    position: Option<String>,
    /// The server that is reached next may be another one, or one whose history went back.
    in_doubt: bool,
    /// How far the server's history has been seen.
    history: History,
    /// The UIDs of the objects that were reported and not taken back, for kinds whose names are used again: of this node's
    /// Pods, a few hundred.
    bearers: Mirror<K::Key, String>,
    /// The instant at which the stream of events began.
    opened: Option<Instant>,
    /// The delays between attempts.
    backoff: Backoff,
    /// How long each stream is to last.
    durations: Backoff,
}

/// The receiver is gone.
struct Gone;

/// Why following stopped.
enum Interruption {
    /// The receiver is gone: the watch ends.
    Gone,
    /// The API server ended the watch, as it was asked to.
    Ended,
    /// Nothing has been heard on the stream for too long.
    Silent,
    /// The API server no longer has what happened in between: everything is listed again.
    HistoryLost,
    /// A request failed: it is tried again after a pause.
    Failed(WatchError),
}

impl<K: Kind> Watch<K> {
    async fn run(&mut self) -> Gone {
        loop {
            let Err(interruption) = self.attempt().await;
            let lasted = self.opened.take().is_some_and(|opened| opened.elapsed() >= SUCCESS);
            if lasted {
                self.backoff.reset();
            }
            let mut least = Duration::ZERO;
            match interruption {
                Interruption::Gone => return Gone,
                Interruption::Ended | Interruption::Silent if lasted => {
                    self.in_doubt |= matches!(interruption, Interruption::Silent);
                    continue;
                }
                Interruption::Ended => {}
                Interruption::Silent => self.in_doubt = true,
                Interruption::HistoryLost => self.position = None,
                Interruption::Failed(error) => {
                    self.in_doubt = true;
                    if let WatchError::Unavailable { retry_after: Some(after), .. } = &error {
                        least = (*after).min(LONGEST_RETRY_AFTER);
                    }
                    self.report.failed(error);
                }
            }
            tokio::time::sleep(self.backoff.delay().max(least)).await;
        }
    }

    async fn attempt(&mut self) -> Result<Infallible, Interruption> {
        let version = match self.position.clone() {
            Some(version) => {
                if self.in_doubt {
                    self.check_history().await?;
                }
                version
            }
            None => self.list().await?,
        };
        self.in_doubt = false;
        self.follow(&version).await
    }

    /// An API server lets a watch begin at a version that is still to come, and then says nothing, not even bookmarks, until
    /// it has come. So one that lags, or whose etcd was restored from a backup, must be found out first.
    async fn check_history(&mut self) -> Result<(), Interruption> {
        let newest = self.calls.newest_version::<K>().await?;
        if self.history.continues_at(&newest) { Ok(()) } else { Err(Interruption::HistoryLost) }
    }

    /// Reports everything there is; gives the version that it shows.
    async fn list(&mut self) -> Result<String, Interruption> {
        let mut page = self.calls.page::<K>(None).await?;
        let version = page.metadata.resource_version.clone();
        match self.history.judge(&version) {
            Judgement::Newer => {}
            Judgement::Older => {
                let what = format!("it is behind: at version {version}, which is older than what it said before");
                return Err(self.calls.unavailable(what, None).into());
            }
            Judgement::WentBack => {
                tracing::warn!(resource = %K::RESOURCE, version, "the API server's history went back, as after a restore from a backup; its objects are taken as they are now");
            }
        }
        self.bearers.apply(Update::Restart);
        self.send(Update::Restart).await?;
        loop {
            if page.metadata.resource_version != version {
                return Err(self.calls.malformed("the pages of a list are of different versions").into());
            }
            let next = std::mem::take(&mut page.metadata.next);
            for object in page.items() {
                self.set(object.content).await?;
            }
            if next.is_empty() {
                break;
            }
            page = self.calls.page::<K>(Some(next)).await?;
        }
        self.bearers.apply(Update::InSync);
        self.report.listed();
        self.send(Update::InSync).await?;
        self.position = Some(version.clone());
        Ok(version)
    }

    async fn follow(&mut self, version: &str) -> Result<Infallible, Interruption> {
        let events = self.calls.watch::<K>(version, self.durations.delay()).await?;
        let mut events = pin!(events);
        self.opened = Some(Instant::now());
        self.report.connected();
        loop {
            match tokio::time::timeout(self.calls.config.silence, events.try_next()).await {
                Ok(Ok(Some(event))) => self.take(event).await?,
                Ok(Ok(None)) => return Err(Interruption::Ended),
                Ok(Err(error)) => return Err(self.calls.error(error).into()),
                Err(_) => {
                    tracing::debug!(resource = %K::RESOURCE, "the API server has sent nothing for too long; the connection is made anew");
                    self.calls.reconnect();
                    return Err(Interruption::Silent);
                }
            }
            self.backoff.reset();
        }
    }

    async fn take(&mut self, event: WatchEvent<Object<K>>) -> Result<(), Interruption> {
        let version = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.set(object.content).await?;
                object.version
            }
            WatchEvent::Deleted(object) => {
                match object.content {
                    Content::Read(key, _) | Content::Unreadable { key, .. } => self.delete(key).await?,
                    Content::Nameless => self.nameless(),
                }
                object.version
            }
            WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version,
            WatchEvent::Error(answer) => return Err(self.calls.refusal(&answer).into()),
        };
        if version.is_empty() {
            return Err(self.calls.malformed("an event without metadata.resourceVersion").into());
        }
        self.history.saw(&version);
        self.position = Some(version);
        Ok(())
    }

    async fn set(&mut self, content: Content<K>) -> Result<(), Interruption> {
        match content {
            Content::Read(key, value) => {
                if let Some(uid) = K::incarnation(&value)
                    && is_taken_over(&mut self.bearers, &key, uid)
                {
                    self.send(Update::Delete(key.clone())).await?;
                }
                self.send(Update::Set(key, value)).await
            }
            // It counts as absent: it has no labels, no addresses and no ports, so no policy allows anything for it.
            Content::Unreadable { key, name, what } => {
                tracing::error!(resource = %K::RESOURCE, name, what, "an object of the API server cannot be read; it counts as absent");
                self.delete(key).await
            }
            Content::Nameless => {
                self.nameless();
                Ok(())
            }
        }
    }

    async fn delete(&mut self, key: K::Key) -> Result<(), Interruption> {
        self.bearers.apply(Update::Delete(key.clone()));
        self.send(Update::Delete(key)).await
    }

    fn nameless(&self) {
        tracing::error!(resource = %K::RESOURCE, "the API server has sent an object without a name; it is ignored");
    }

    async fn send(&self, update: Update<K::Key, K::Value>) -> Result<(), Interruption> {
        self.to.send(update).await.map_err(|_| Interruption::Gone)
    }
}

/// Notes that an object is reported under a name. Whether another one is that bore the name and whose deletion was not
/// reported.
fn is_taken_over<K: Ord + Clone>(bearers: &mut Mirror<K, String>, name: &K, uid: &str) -> bool {
    let is_another = bearers.entries().get(name).is_some_and(|before| before != uid);
    bearers.apply(Update::Set(name.clone(), uid.to_owned()));
    is_another
}

impl From<CallError> for Interruption {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Gone => Self::HistoryLost,
            CallError::Failed(error) => Self::Failed(error),
        }
    }
}
