//! One watch: lists, follows, and comes back after every failure.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::Update;
use types::backoff::Backoff;

use super::call::Calls;
use super::endpoints::CallError;
use super::position::Position;
use crate::{Entry, Key, StoreError};

/// The delays between attempts begin with this one and grow to the next.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// One answer may be so large. etcd cuts its answers at 2 MiB where asked to (`fragment`), and no single event is larger.
const LARGEST_ANSWER: usize = 16 << 20;

/// Follows `prefix` until the receiver is dropped or the store is closed.
pub(super) async fn follow(
    calls: Arc<Calls>,
    prefix: Key,
    to: mpsc::Sender<Update<Key, Entry>>,
    closed: CancellationToken,
) {
    let receiver_gone = to.clone();
    let mut watch = Watch { calls, prefix, to, position: None, backoff: new_backoff(), failing: None };
    tokio::select! {
        Gone = watch.run() => {}
        () = receiver_gone.closed() => {}
        () = closed.cancelled() => {}
    }
}

/// Delays that differ from process to process, so that agents which lost etcd together do not return together.
pub(super) fn new_backoff() -> Backoff {
    Backoff::new(FIRST_DELAY, LONGEST_DELAY, RandomState::new().build_hasher().finish())
}

struct Watch {
    calls: Arc<Calls>,
    prefix: Key,
    /// The way to the owner of the watch.
    to: mpsc::Sender<Update<Key, Entry>>,
    /// How far it has got; none: it has to list.
    position: Option<Position>,
    /// The delays between attempts.
    backoff: Backoff,
    /// Why it cannot follow at present, as it was logged.
    failing: Option<String>,
}

/// The receiver is gone.
struct Gone;

/// Why following stopped.
enum Interruption {
    /// The receiver is gone: the watch ends.
    Gone,
    /// etcd no longer has what happened in between: everything is listed again.
    HistoryLost,
    /// A request failed: it is tried again after a pause.
    Failed(StoreError),
}

impl Watch {
    async fn run(&mut self) -> Gone {
        loop {
            let Err(interruption) = self.attempt().await;
            match interruption {
                Interruption::Gone => return Gone,
                Interruption::HistoryLost => self.position = None,
                Interruption::Failed(error) => {
                    if matches!(error, StoreError::Refused { .. }) {
                        self.calls.endpoints.renew_tokens().await;
                    }
                    self.note(&error);
                }
            }
            tokio::time::sleep(self.backoff.delay()).await;
        }
    }

    async fn attempt(&mut self) -> Result<std::convert::Infallible, Interruption> {
        let position = match self.position {
            Some(mut position) => {
                // etcd lets a watch begin at a revision that is still to come and says nothing until it has come, so a
                // cluster that went back must be found out first.
                if !position.continues_in(self.calls.state().await?) {
                    return Err(Interruption::HistoryLost);
                }
                position
            }
            None => self.list().await?,
        };
        self.position = Some(position);
        let mut stream = self.open(position).await?;
        let mut skip = position.skip();
        loop {
            let answer = match stream.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(self.broken("the stream ended")),
                Err(error) => return Err(self.broken(&error.to_string())),
            };
            self.take(&answer, &mut skip).await?;
            self.backoff.reset();
            if self.failing.take().is_some() {
                tracing::info!(prefix = %self.prefix, "a watch in etcd works again");
            }
        }
    }

    async fn list(&self) -> Result<Position, Interruption> {
        self.send(Update::Restart).await?;
        let mut start = None;
        loop {
            let page = self.calls.page(&self.prefix, start).await?;
            for entry in page.entries {
                self.send(Update::Set(entry.key.clone(), entry)).await?;
            }
            start = page.next;
            if start.is_none() {
                self.send(Update::InSync).await?;
                return Ok(Position::listed(page.state));
            }
        }
    }

    async fn open(&self, position: Position) -> Result<WatchStream, Interruption> {
        let (first, end) = self.calls.range(&self.prefix);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(position.resume_at())
            .with_progress_notify()
            .with_fragment();
        let open = |client: etcd_client::Client| {
            let (first, options) = (first.clone(), options.clone());
            async move { client.watch_client().max_decoding_message_size(LARGEST_ANSWER).watch(first, Some(options)).await }
        };
        Ok(self.calls.endpoints.repeatable(open).await?)
    }

    /// Reports what an answer holds; `skip` counts the events that were reported on an earlier stream.
    async fn take(&mut self, answer: &WatchResponse, skip: &mut usize) -> Result<(), Interruption> {
        let state = self.calls.header(answer.header())?;
        let Some(mut position) = self.position else { return Err(Interruption::HistoryLost) };
        if answer.compact_revision() > 0 || !position.is_of(state) {
            return Err(Interruption::HistoryLost);
        }
        if answer.canceled() {
            return Err(self.cancelled(answer.cancel_reason()));
        }
        let resumed_at = position.resume_at();
        for event in answer.events() {
            let Some(found) = event.kv() else { continue };
            if *skip > 0 && found.mod_revision() == resumed_at {
                *skip -= 1;
                continue;
            }
            *skip = 0;
            let update = match event.event_type() {
                EventType::Put => self.calls.entry_or_skip(found).map(|entry| Update::Set(entry.key.clone(), entry)),
                EventType::Delete => self.calls.key_or_skip(found.key()).map(Update::Delete),
            };
            if let Some(update) = update {
                self.send(update).await?;
            }
            position.event(found.mod_revision());
            self.position = Some(position);
        }
        if answer.events().is_empty() && !answer.created() {
            position.progress(state.revision);
            self.position = Some(position);
        }
        Ok(())
    }

    async fn send(&self, update: Update<Key, Entry>) -> Result<(), Interruption> {
        self.to.send(update).await.map_err(|_| Interruption::Gone)
    }

    fn cancelled(&self, reason: &str) -> Interruption {
        let refused = reason.to_ascii_lowercase().contains("permission") || reason.contains("auth");
        let endpoints = &self.calls.endpoints;
        Interruption::Failed(if refused {
            endpoints.refused(reason)
        } else {
            endpoints.broken(&format!("watch cancelled: {reason}"))
        })
    }

    fn broken(&self, what: &str) -> Interruption {
        Interruption::Failed(self.calls.endpoints.broken(what))
    }

    /// Logs why the watch cannot follow. A watch has no errors for its reader, so nobody would hear of it otherwise. The
    /// same reason is logged once only.
    fn note(&mut self, error: &StoreError) {
        let text = error.to_string();
        if self.failing.as_ref() != Some(&text) {
            tracing::warn!(prefix = %self.prefix, error = %text, "a watch in etcd has failed; it will be tried again");
            self.failing = Some(text);
        }
    }
}

impl From<StoreError> for Interruption {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<CallError> for Interruption {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Compacted => Self::HistoryLost,
            other => Self::Failed(other.into()),
        }
    }
}
