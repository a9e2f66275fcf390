//! DELs that no agent answered, or none in time: each leaves a tombstone, a file that names the attachment. They are made good
//! at the start and while the agent runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::cni::tombstone::{self, Tombstone, TombstoneError};
use futures::future;
use tracing::{info, warn};

use types::EndpointId;

use super::attachments::Attachments;

/// How often tombstones are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Consumes the tombstones in the folder for as long as the agent runs.
pub(super) async fn follow(attachments: Attachments) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        looks.tick().await;
        match list(&attachments.released) {
            Ok(found) => consume(&attachments, found).await,
            Err(error) => {
                let folder = attachments.released.display();
                warn!(%folder, %error, "the folder of tombstones cannot be read; pods whose DEL was not answered keep their addresses until it can");
            }
        }
    }
}

/// Makes good what the list says, each in its attachment's turn: since the list was made, an ADD may have done it, and then
/// have given the attachment a new life.
async fn consume(attachments: &Attachments, found: Vec<(EndpointId, PathBuf)>) {
    let consumed = found.into_iter().map(|(id, path)| async move {
        let _turn = attachments.turns.at(&id.host_interface()).await;
        consume_file(attachments, &path).await;
    });
    future::join_all(consumed).await;
}

/// The same for one attachment that is about to begin anew, in its turn: from then on its tombstone would speak of another
/// life.
pub(super) async fn make_good(attachments: &Attachments, id: &EndpointId) {
    consume_file(attachments, &attachments.released.join(id.host_interface().as_str())).await;
}

/// To be called in the turn of the attachment: what the file says now, not what it said.
async fn consume_file(attachments: &Attachments, path: &Path) {
    let id = match tombstone::read(path) {
        Ok(id) => id,
        Err(TombstoneError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            warn!(path = %path.display(), %error, "a tombstone cannot be read, so what its DEL was to give back stays in use until the next start");
            return;
        }
    };
    if let Some(endpoint) = attachments.ipam.endpoint(id.clone()).await {
        attachments.undo(&endpoint).await;
        info!(endpoint = %id, "a pod is detached whose DEL was not answered in time");
    }
    // Its DEL has parked a link of which nobody else may have told, as that of an ADD that was cut off.
    attachments.reap();
    if let Err(error) = tombstone::remove_file(path) {
        warn!(path = %path.display(), %error, "the tombstone of a DEL that is made good cannot be removed");
    }
}

/// The attachments that were detached without an agent, each with its tombstone's file, which goes once the release is in the
/// journal. A file that says nothing sensible is removed: the endpoint's missing interface tells the same.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(EndpointId, PathBuf)>> {
    let mut found = Vec::new();
    for Tombstone { path, id } in tombstone::list(folder)? {
        match id {
            Ok(id) => found.push((id, path)),
            Err(TombstoneError::Nonsense(error)) => {
                warn!(path = %path.display(), %error, "a file in the folder of tombstones is no tombstone and is removed");
                std::fs::remove_file(&path)?;
            }
            Err(TombstoneError::Io(error)) => {
                warn!(path = %path.display(), %error, "a tombstone cannot be read, so what its DEL was to give back stays in use until the next start");
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
