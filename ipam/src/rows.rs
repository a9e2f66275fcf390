//! The rows of the node's journal: what they hold and how they are read back.
//!
//! | kind | key | value |
//! |---|---|---|
//! | meta | `boot_id` | the boot that the endpoints belong to |
//! | meta | `confirmed` | when the store last confirmed the blocks |
//! | meta | `shared/` and a range | the network whose subnet the block is, on a link with several pods |
//! | endpoint | endpoint id | the committed endpoint |
//! | cool_down | address | the endpoint that it was released by |
//! | block | range | who claimed it: this node, under the name that it had |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{DecodeError, JournalWrite, Key, Row, RowKind};
use types::{BlockClaim, EndpointId, NetworkName, NodeName, Prefix, WorkloadEndpoint};

use crate::fence::Confirmation;

const BOOT_ID: &str = "boot_id";
const CONFIRMED: &str = "confirmed";
const SHARED: &str = "shared/";

/// The contents of the journal, in types.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Restored {
    /// The boot that the endpoints belong to; none: a new journal.
    pub(crate) boot_id: Option<String>,
    /// The endpoints committed and not released.
    pub(crate) endpoints: Vec<WorkloadEndpoint>,
    /// The addresses released that may not have rested yet, and by whom.
    pub(crate) resting: BTreeMap<IpAddr, EndpointId>,
    /// The own blocks.
    pub(crate) blocks: BTreeSet<Prefix>,
    /// Blocks that are a network's subnet.
    pub(crate) shared: BTreeMap<Prefix, NetworkName>,
    /// When the store last confirmed the blocks.
    pub(crate) confirmed: Option<Confirmation>,
}

/// A row of the journal is not as this build writes it. Going on without it could give an address to two pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The key of a row cannot be read.
    #[error("journal: {kind} {key:?}: {what}")]
    Key {
        /// The kind of the row.
        kind: &'static str,
        /// The key.
        key: String,
        /// What is wrong with the key.
        what: String,
    },
    /// The value of a row cannot be read.
    #[error("journal: {0}")]
    Value(#[from] DecodeError),
}

#[derive(Debug, Serialize, Deserialize)]
struct ReleasedBy {
    endpoint: EndpointId,
}

/// Reads all rows. Blocks that another name of this node claimed are left out: in the store they are another node's.
pub(crate) fn restore(rows: Vec<Row>, node: &NodeName) -> Result<Restored, RowError> {
    let mut restored = Restored::default();
    for row in rows {
        match row.kind {
            // A row of this kind with another key was not written by this crate.
            RowKind::Meta if row.key == BOOT_ID => {
                restored.boot_id = Some(String::from_utf8_lossy(&row.value).into_owned());
            }
            // One that cannot be read is none, which costs no more than a question to the store.
            RowKind::Meta if row.key == CONFIRMED => restored.confirmed = value("meta", &row).ok(),
            RowKind::Meta => {
                if let Some(block) = row.key.strip_prefix(SHARED) {
                    let unreadable = |error: &dyn std::error::Error| unreadable("meta", &row.key, error);
                    let network = String::from_utf8_lossy(&row.value).parse().map_err(|error| unreadable(&error))?;
                    restored.shared.insert(block.parse().map_err(|error| unreadable(&error))?, network);
                }
            }
            RowKind::Endpoint => restored.endpoints.push(value("endpoint", &row)?),
            RowKind::CoolDown => {
                let address = row.key.parse().map_err(|error| unreadable("cool_down", &row.key, &error))?;
                let by: ReleasedBy = value("cool_down", &row)?;
                restored.resting.insert(address, by.endpoint);
            }
            RowKind::Block => {
                let block = row.key.parse().map_err(|error| unreadable("block", &row.key, &error))?;
                let claim: BlockClaim = value("block", &row)?;
                if claim.owner == *node {
                    restored.blocks.insert(block);
                }
            }
        }
    }
    Ok(restored)
}

pub(crate) fn boot_id(boot_id: &str) -> JournalWrite {
    JournalWrite::put(RowKind::Meta, BOOT_ID, boot_id.as_bytes().to_vec())
}

pub(crate) fn confirmed(confirmation: &Confirmation) -> JournalWrite {
    JournalWrite::put(RowKind::Meta, CONFIRMED, store::encode(confirmation))
}

pub(crate) fn committed(endpoint: &WorkloadEndpoint) -> JournalWrite {
    JournalWrite::put(RowKind::Endpoint, endpoint.id.to_string(), store::encode(endpoint))
}

/// The endpoint is gone and its addresses rest: written together.
pub(crate) fn released(endpoint: &WorkloadEndpoint) -> Vec<JournalWrite> {
    let resting = endpoint.held().map(|address| resting(address, &endpoint.id));
    std::iter::once(JournalWrite::delete(RowKind::Endpoint, endpoint.id.to_string())).chain(resting).collect()
}

pub(crate) fn resting(address: IpAddr, by: &EndpointId) -> JournalWrite {
    let by = ReleasedBy { endpoint: by.clone() };
    JournalWrite::put(RowKind::CoolDown, address.to_string(), store::encode(&by))
}

pub(crate) fn rested(address: IpAddr) -> JournalWrite {
    JournalWrite::delete(RowKind::CoolDown, address.to_string())
}

/// The block is the network's subnet.
pub(crate) fn shared(block: &Prefix, network: &NetworkName) -> JournalWrite {
    JournalWrite::put(RowKind::Meta, format!("{SHARED}{block}"), network.as_str().as_bytes().to_vec())
}

pub(crate) fn unshared(block: &Prefix) -> JournalWrite {
    JournalWrite::delete(RowKind::Meta, format!("{SHARED}{block}"))
}

pub(crate) fn block_owned(block: &Prefix, node: &NodeName) -> JournalWrite {
    JournalWrite::put(RowKind::Block, block.to_string(), store::encode(&BlockClaim { owner: node.clone() }))
}

pub(crate) fn block_lost(block: &Prefix) -> JournalWrite {
    JournalWrite::delete(RowKind::Block, block.to_string())
}

fn value<T: DeserializeOwned>(kind: &'static str, row: &Row) -> Result<T, RowError> {
    let key = Key::new(format!("{kind}/{}", row.key)).map_err(|error| unreadable(kind, &row.key, &error))?;
    Ok(store::decode(&key, &row.value)?)
}

fn unreadable(kind: &'static str, key: &str, error: &dyn std::error::Error) -> RowError {
    RowError::Key { kind, key: key.to_owned(), what: error.to_string() }
}

#[cfg(test)]
mod tests;
