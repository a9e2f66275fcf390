//! The rows of the node's journal: what they hold and how they are read back.
//!
//! | table | key | value |
//! |---|---|---|
//! | meta | `boot_id` | the boot that the endpoints belong to |
//! | meta | `confirmed` | when the store last confirmed the blocks |
//! | endpoint | endpoint id | the committed endpoint |
//! | cool_down | address | the endpoint that it was released by |
//! | block | range | who claimed it: this node, under the name that it had |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{DecodeError, JournalWrite, Key, Row, Table};
use types::{BlockClaim, EndpointId, NodeName, Prefix, WorkloadEndpoint};

use crate::fence::Confirmation;

const BOOT_ID: &str = "boot_id";
const CONFIRMED: &str = "confirmed";

/// What the journal says.
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
    /// When the store last confirmed them.
    pub(crate) confirmed: Option<Confirmation>,
}

/// A row of the journal is not as this build writes it. Going on without it could give an address to two pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Its key says nothing.
    #[error("journal: {table} {key:?}: {what}")]
    Key {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// Its value cannot be read.
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
        match row.table {
            // Other keys of this table are not ours.
            Table::Meta if row.key == BOOT_ID => {
                restored.boot_id = Some(String::from_utf8_lossy(&row.value).into_owned());
            }
            // One that cannot be read is none, which costs no more than a question to the store.
            Table::Meta if row.key == CONFIRMED => restored.confirmed = value("meta", &row).ok(),
            Table::Meta => {}
            Table::Endpoint => restored.endpoints.push(value("endpoint", &row)?),
            Table::CoolDown => {
                let address = row.key.parse().map_err(|error| unreadable("cool_down", &row.key, &error))?;
                let by: ReleasedBy = value("cool_down", &row)?;
                restored.resting.insert(address, by.endpoint);
            }
            Table::Block => {
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
    JournalWrite::put(Table::Meta, BOOT_ID, boot_id.as_bytes().to_vec())
}

pub(crate) fn confirmed(confirmation: &Confirmation) -> JournalWrite {
    JournalWrite::put(Table::Meta, CONFIRMED, store::encode(confirmation))
}

pub(crate) fn committed(endpoint: &WorkloadEndpoint) -> JournalWrite {
    JournalWrite::put(Table::Endpoint, endpoint.id.to_string(), store::encode(endpoint))
}

/// The endpoint is gone and its addresses rest: written together.
pub(crate) fn released(endpoint: &WorkloadEndpoint) -> Vec<JournalWrite> {
    let resting = endpoint.addresses.iter().map(|address| resting(*address, &endpoint.id));
    std::iter::once(JournalWrite::delete(Table::Endpoint, endpoint.id.to_string())).chain(resting).collect()
}

pub(crate) fn resting(address: IpAddr, by: &EndpointId) -> JournalWrite {
    let by = ReleasedBy { endpoint: by.clone() };
    JournalWrite::put(Table::CoolDown, address.to_string(), store::encode(&by))
}

pub(crate) fn rested(address: IpAddr) -> JournalWrite {
    JournalWrite::delete(Table::CoolDown, address.to_string())
}

pub(crate) fn block_owned(block: &Prefix, node: &NodeName) -> JournalWrite {
    JournalWrite::put(Table::Block, block.to_string(), store::encode(&BlockClaim { owner: node.clone() }))
}

pub(crate) fn block_lost(block: &Prefix) -> JournalWrite {
    JournalWrite::delete(Table::Block, block.to_string())
}

fn value<T: DeserializeOwned>(table: &'static str, row: &Row) -> Result<T, RowError> {
    let key = Key::new(format!("{table}/{}", row.key)).map_err(|error| unreadable(table, &row.key, &error))?;
    Ok(store::decode(&key, &row.value)?)
}

fn unreadable(table: &'static str, key: &str, error: &dyn std::error::Error) -> RowError {
    RowError::Key { table, key: key.to_owned(), what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fence::Reading;
    use crate::testing::{endpoint, node};

    fn rows(writes: Vec<JournalWrite>) -> Vec<Row> {
        let mut rows = BTreeMap::new();
        for write in writes {
            match write {
                JournalWrite::Put(row) => drop(rows.insert((row.table, row.key.clone()), row)),
                JournalWrite::Delete { table, key } => drop(rows.remove(&(table, key))),
                JournalWrite::Clear(table) => rows.retain(|(other, _), _| *other != table),
            }
        }
        rows.into_values().collect()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (stays, goes) = (endpoint("a", &["10.0.0.1", "fd00::1"]), endpoint("b", &["10.0.0.2", "fd00::2"]));
        let (kept, lost): (Prefix, Prefix) = ("10.0.0.0/26".parse().unwrap(), "fd00::/122".parse().unwrap());
        let node = node("n1");
        let at = Reading { boot: Duration::from_millis(1_500), wall: Duration::from_secs(9) };
        let confirmation = Confirmation { boot_id: "two".to_owned(), at };
        let mut writes = vec![boot_id("one"), boot_id("two"), committed(&stays), committed(&goes)];
        writes.push(confirmed(&confirmation));
        writes.extend([block_owned(&kept, &node), block_owned(&lost, &node), block_lost(&lost)]);
        writes.extend(released(&goes));
        writes.push(rested("10.0.0.2".parse().unwrap()));
        writes.push(JournalWrite::put(Table::Meta, "another's", vec![0xff]));
        let restored = restore(rows(writes), &node).unwrap();
        let expected = Restored {
            boot_id: Some("two".to_owned()),
            endpoints: vec![stays],
            resting: BTreeMap::from([("fd00::2".parse().unwrap(), goes.id)]),
            blocks: BTreeSet::from([kept]),
            confirmed: Some(confirmation),
        };
        assert_eq!(restored, expected);
    }

    #[test]
    fn blocks_claimed_under_another_name_are_not_this_nodes() {
        let writes = vec![block_owned(&"10.0.0.0/26".parse().unwrap(), &node("old"))];
        assert!(restore(rows(writes), &node("new")).unwrap().blocks.is_empty());
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named() {
        let row = |table, key: &str, value: &[u8]| vec![Row { table, key: key.to_owned(), value: value.to_vec() }];
        let error = |rows| restore(rows, &node("n1")).unwrap_err().to_string();
        let newer = error(row(Table::Endpoint, "manx/a/eth0", br#"{"version":2,"spec":0}"#));
        assert!(newer.starts_with("journal: endpoint/manx/a/eth0: value version 2 is newer"), "{newer}");
        let address = error(row(Table::CoolDown, "10.0.0", b""));
        assert!(address.starts_with("journal: cool_down \"10.0.0\": "), "{address}");
        let block = error(row(Table::Block, "10.0.0.1/26", b""));
        assert!(block.contains("10.0.0.1/26"), "{block}");
    }
}
