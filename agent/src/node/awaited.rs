//! The wait for the addresses that this node was told to peer from: its links and addresses may come after the agent, as at a
//! boot, or where a container gets its links once it runs.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;

use super::addresses::AddressError;
use super::readiness::{Part, Readiness};

/// How long until addresses are looked for again though no interface has changed: routes, which `can-reach` goes by, are not
/// listened to.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Looks until there is what was looked for, after each of `changes`, and says meanwhile what is missing. An error that no
/// change of interfaces mends is not waited out.
pub(crate) async fn addresses(
    mut look: impl FnMut() -> Result<Vec<IpAddr>, AddressError>,
    mut changes: mpsc::Receiver<()>,
    readiness: &Readiness,
) -> Result<Vec<IpAddr>, AddressError> {
    let mut said = String::new();
    loop {
        let reason = match look() {
            Err(AddressError::Detection(missing)) if missing.may_come() => {
                format!("the agent waits for this node's address: {missing}")
            }
            found => {
                readiness.ready(Part::OwnAddress);
                return found;
            }
        };
        if reason != said {
            info!("{reason}");
            readiness.unready(Part::OwnAddress, reason.clone());
            said = reason;
        }
        if let Ok(None) = tokio::time::timeout(LOOK_AGAIN, changes.recv()).await {
            // Nobody tells of changes any more.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests;
