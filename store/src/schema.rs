//! The version of the layout as a whole, so that an old build does not write into a newer layout.

use crate::{Check, Expect, Outcome, Store, StoreError, Write, keys};

/// The layout that this build reads and writes; [`crate::keys`] describes it.
pub const SCHEMA_VERSION: u64 = 1;

/// Why this build must not use the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A newer Manx has been here.
    #[error("the store's key `version` says {found}; this build knows {SCHEMA_VERSION} and older")]
    Newer {
        /// The version found.
        found: u64,
    },
    /// The key does not hold `{"version":N}`.
    #[error("the store's key `version` holds {0:?}, not a version")]
    Malformed(String),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Schema {
    version: u64,
}

/// Reads the layout's version; writes it where the store is empty. To be called before the first write of a process.
pub async fn check_schema(store: &dyn Store) -> Result<(), SchemaError> {
    let key = keys::schema_version();
    loop {
        if let Some(entry) = store.get(&key).await? {
            let schema: Schema = serde_json::from_slice(&entry.value)
                .map_err(|_| SchemaError::Malformed(String::from_utf8_lossy(&entry.value).into_owned()))?;
            return match schema.version {
                0 => Err(SchemaError::Malformed(String::from_utf8_lossy(&entry.value).into_owned())),
                found if found > SCHEMA_VERSION => Err(SchemaError::Newer { found }),
                _ => Ok(()),
            };
        }
        let value = serde_json::to_vec(&Schema { version: SCHEMA_VERSION }).unwrap_or_default();
        let absent = Check { key: key.clone(), expect: Expect::Absent };
        match store.transact(vec![absent], vec![Write::put(key.clone(), value)]).await? {
            Outcome::Committed(_) => return Ok(()),
            // Another node was first; what it wrote is read in the next round.
            Outcome::Conflict => {}
        }
    }
}

#[cfg(test)]
mod tests;
