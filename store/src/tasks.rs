//! The tasks of this crate; nothing else spawns.
//!
//! ```text
//!                    caller
//!        calls │        ▲ Update        ▲ lost
//!              │  ┌─────┴──────┐  ┌─────┴──────┐
//!              │  │ watch      │  │ session    │   one task per watch, one per session;
//!              │  │ (N)        │  │ (N)        │   they end with their receiver or with the store
//!              │  └─────▲──────┘  └─────▲──────┘
//!        ┌─────▼────────┴───────────────┴──────┐
//!        │ etcd over gRPC, or History (memory, │
//!        │ local)                              │
//!        └─────┬───────────────────────────────┘
//!              │ bounded channel
//!        ┌─────▼──────┐  ┌────────────┐  ┌────────────┐
//!        │ local      │  │ journal    │  │ cache      │   one thread per database file, the only
//!        │ (1 thread) │  │ (1 thread) │  │ (1 thread) │   one that touches it
//!        └────────────┘  └────────────┘  └────────────┘
//! ```

use std::future::Future;
use std::{io, thread};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::Update;

use crate::{Entry, Key};

/// So many updates wait in a watch's channel before the watch stops reading the store.
const WATCH_BUFFER: usize = 256;

/// The tasks of one store. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// Counts the tasks, so that closing can wait for them.
    tracker: TaskTracker,
    /// Ends them.
    closed: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), closed: CancellationToken::new() }
    }

    /// Runs a watch, which ends when told to or when its receiver is dropped.
    pub(crate) fn watch<F, Fut>(&self, run: F) -> mpsc::Receiver<Update<Key, Entry>>
    where
        F: FnOnce(mpsc::Sender<Update<Key, Entry>>, CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (to, updates) = mpsc::channel(WATCH_BUFFER);
        self.tracker.spawn(run(to, self.closed.clone()));
        updates
    }

    /// Keeps a session alive until it ends, is lost, or the store closes.
    pub(crate) fn session(&self, keep: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = keep => {}
                () = closed.cancelled() => {}
            }
        });
    }

    /// Ends all tasks and waits for them.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Starts the thread that owns a database file. It ends when the last handle is dropped.
pub(crate) fn database_thread(name: &str, serve: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(serve).map(drop)
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
