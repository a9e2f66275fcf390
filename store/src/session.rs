//! Sessions: entries that vanish with the process that wrote them.

use std::fmt;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{SessionId, StoreError};

/// A session, kept alive in the background until it is ended or dropped.
///
/// [`Session::end`] removes its entries at once. Dropping it only stops the keeping alive: the entries vanish when the
/// time to live has passed, as after a crash.
pub struct Session {
    /// Its name in writes.
    id: SessionId,
    /// Cancelled when the session has, or may have, expired.
    lost: CancellationToken,
    /// To the task that keeps it alive: end it and answer here.
    end: oneshot::Sender<EndReply>,
}

/// Where the task that keeps a session answers a request to end it.
pub(crate) type EndReply = oneshot::Sender<Result<(), StoreError>>;

/// The other end of a [`Session`], held by the task that keeps it alive.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The session.
    pub(crate) id: SessionId,
    /// To be cancelled when the session is lost.
    pub(crate) lost: CancellationToken,
    /// Gets the request to end, or an error when the [`Session`] was dropped.
    pub(crate) end: oneshot::Receiver<EndReply>,
}

impl Session {
    pub(crate) fn new(id: SessionId) -> (Self, Keeper) {
        let lost = CancellationToken::new();
        let (send_end, end) = oneshot::channel();
        (Self { id, lost: lost.clone(), end: send_end }, Keeper { id, lost, end })
    }

    /// Names the session in [`Write::Put`](crate::Write::Put).
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Returns when the session has expired, or when that can no longer be excluded because the store has not been
    /// reached for the time to live. Its entries are, or will be, gone: the owner opens a new session and writes again.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether [`Session::lost`] would return at once.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Ends the session and removes its entries. On an error they vanish when the time to live has passed.
    pub async fn end(self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.end.send(reply).is_ok();
        let answered = if asked { answer.await.ok() } else { None };
        answered.unwrap_or_else(|| {
            // The keeper is gone: the session was lost, or the store was closed and its process ends.
            if self.lost.is_cancelled() { Ok(()) } else { Err(StoreError::Closed) }
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}
