//! DELs that an agent did not answer in time: they leave a tombstone, which is consumed while the agent runs, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};
use types::EndpointId;

use super::conversation::Attachments;
use super::recovery;

/// How often tombstones are looked for.
const EVERY: Duration = Duration::from_secs(2);

/// Consumes the tombstones in the folder for as long as the agent runs.
pub(crate) async fn follow(attachments: Attachments) {
    let mut looks = tokio::time::interval(EVERY);
    loop {
        looks.tick().await;
        match recovery::tombstones(&attachments.released) {
            Ok(found) => {
                for (id, path) in found {
                    consume(&attachments, &id, &path).await;
                }
            }
            Err(error) => {
                let folder = attachments.released.display();
                warn!(%folder, %error, "cannot look for tombstones; DELs that were not answered are not made good");
            }
        }
    }
}

/// The same for one attachment, which is about to begin anew: from then on its tombstone would speak of another life.
pub(crate) async fn make_good(attachments: &Attachments, id: &EndpointId) {
    let path: PathBuf = attachments.released.join(id.host_interface().as_str());
    if path.exists() {
        consume(attachments, id, &path).await;
    }
}

async fn consume(attachments: &Attachments, id: &EndpointId, path: &Path) {
    if let Some(endpoint) = attachments.ipam.endpoint(id.clone()).await {
        attachments.undo(&endpoint).await;
        info!(endpoint = %id, "detached: its DEL was not answered in time");
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "a consumed tombstone stays");
        }
        _ => {}
    }
}
