//! Taking everything of ours out of the kernel, without an agent.

use kernel::KernelError;
use kernel::acl::{Sets, Tables};
use types::Family;

use super::names::PREFIX;
use super::plan;
use super::render::{Table, TableName};
use super::saved::SavedTable;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Chains of ours.
    pub chains: usize,
    /// Rules of ours in others' chains.
    pub hooks: usize,
    /// Sets.
    pub sets: usize,
}

/// Why something of ours is still there. All are the environment's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CleanError {
    /// Rules cannot be read or removed.
    #[error("cannot remove the chains of table {table}")]
    Tables {
        /// The table.
        table: &'static str,
        /// Why.
        #[source]
        error: KernelError,
    },
    /// Sets cannot be listed or removed.
    #[error("cannot remove the sets")]
    Sets(#[source] KernelError),
}

/// Removes all chains, hooks and sets whose names or comments are ours, in both families: references first. Pods have
/// network without policies afterwards. What is not ours is not touched; doing it again finds nothing.
pub fn clean(sets: &mut dyn Sets, tables: &mut dyn Tables) -> Result<Removed, CleanError> {
    let mut removed = Removed::default();
    for family in Family::ALL {
        for name in TableName::ALL {
            let failed = |error| CleanError::Tables { table: name.as_str(), error };
            let saved = SavedTable::parse(&tables.save(family, name.as_str(), false).map_err(failed)?, name.as_str());
            if let Some(text) = plan::restore_text(name, &saved, &Table::default()) {
                tables.restore(family, &text).map_err(failed)?;
                removed.chains += saved.chains.len();
                removed.hooks += saved.foreign.values().map(|chain| chain.ours.len()).sum::<usize>();
            }
        }
    }
    for header in sets.sets().map_err(CleanError::Sets)? {
        if header.name.as_str().starts_with(PREFIX) {
            sets.destroy_set(&header.name).map_err(CleanError::Sets)?;
            removed.sets += 1;
        }
    }
    Ok(removed)
}
