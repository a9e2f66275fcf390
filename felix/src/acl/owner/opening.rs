//! What the owner finds at its start: what an earlier life of the agent has left.

use std::collections::BTreeSet;
use std::time::Instant;

use kernel::KernelError;
use kernel::acl::Tables;

use super::Owner;
use crate::acl::names::{PREFIX, SetRef};
use crate::acl::render::TableName;
use crate::acl::sets::spec;
use crate::acl::tables::{TablesAnswer, TablesTask, answer};

impl Owner {
    /// Reads all that is ours, takes over the classes of an earlier life, and makes sure that unknown addresses are dropped.
    /// Nothing else is changed yet. Blocks; `tables` is the caller's still.
    pub(crate) fn open(&mut self, tables: &mut dyn Tables, now: Instant) -> Result<(), KernelError> {
        let families = self.state.families().clone();
        let mut missing: BTreeSet<_> = families.iter().flat_map(|family| SetRef::base(*family)).collect();
        for header in self.ends.sets.sets()? {
            match SetRef::parse(header.name.as_str()) {
                Some(set @ SetRef::Program(..)) => self.state.set_found(set),
                Some(set) => {
                    missing.remove(&set);
                    let elements = self.ends.sets.elements(&header.name)?;
                    self.state.fixed_set_read(set, &elements);
                }
                None if header.name.as_str().starts_with(PREFIX) => self.sets.found_unknown(header.name),
                None => {}
            }
        }
        for set in missing {
            self.make_base_set(set)?;
            self.state.fixed_set_read(set, &[]);
        }
        let all = self.tables_with(TableName::ALL);
        match answer(tables, TablesTask::Count(all)) {
            TablesAnswer::Counted(Ok(read)) => {
                self.counters_read(&read);
                self.tables_read(read, None, now);
            }
            TablesAnswer::Counted(Err(error)) => return Err(error),
            TablesAnswer::Read(_) | TablesAnswer::Restored(..) => {}
        }
        self.compiler.adopt(self.state.adopted());
        self.restore_at_once(tables, now);
        Ok(())
    }

    /// One of the sets that the first rules refer to: it is there before them.
    pub(super) fn make_base_set(&mut self, set: SetRef) -> Result<(), KernelError> {
        match self.ends.sets.create_set(&set.kernel_name(), &spec(set, 0)) {
            Ok(()) | Err(KernelError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
