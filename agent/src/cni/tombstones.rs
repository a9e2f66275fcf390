//! DELs that no agent answered, or none in time: each leaves a tombstone, a file that names the attachment. They are made good
//! at the start and while the agent runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::cni::tombstone::{self, Tombstone, TombstoneError};
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
            Ok(found) => {
                for (id, path) in found {
                    consume(&attachments, &id, &path).await;
                }
            }
            Err(error) => {
                let folder = attachments.released.display();
                warn!(%folder, %error, "the folder of tombstones cannot be read; pods whose DEL was not answered keep their addresses until it can");
            }
        }
    }
}

/// The same for one attachment, which is about to begin anew: from then on its tombstone would speak of another life.
pub(super) async fn make_good(attachments: &Attachments, id: &EndpointId) {
    let path: PathBuf = attachments.released.join(id.host_interface().as_str());
    if path.exists() {
        consume(attachments, id, &path).await;
    }
}

async fn consume(attachments: &Attachments, id: &EndpointId, path: &Path) {
    if let Some(endpoint) = attachments.ipam.endpoint(id.clone()).await {
        attachments.undo(&endpoint).await;
        info!(endpoint = %id, "a pod is detached whose DEL was not answered in time");
    }
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
