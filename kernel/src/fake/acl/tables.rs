//! The fake's iptables.

use types::Family;

use super::{AclCall, FakeAcl, World};
use crate::acl::{IptablesVariant, TABLES, Tables};
use crate::error::Failure;
use crate::{KernelError, acl::SetName};

/// [`Tables`] of a [`FakeAcl`].
#[derive(Debug, Clone)]
pub struct FakeTables {
    pub(super) acl: FakeAcl,
    pub(super) variant: IptablesVariant,
}

impl Tables for FakeTables {
    fn variant(&self) -> IptablesVariant {
        self.variant
    }

    fn tables(&mut self, _family: Family) -> Result<Vec<String>, KernelError> {
        Ok(TABLES.map(str::to_owned).to_vec())
    }

    fn save(&mut self, family: Family, table: &str, counters: bool) -> Result<String, KernelError> {
        let operation = || format!("cannot read {family} table {table}");
        let world = self.acl.call(AclCall::Save(family, table.to_owned()), operation)?;
        world.rules.save(family, table, counters).ok_or_else(|| {
            let message = Some(format!("there is no table {table}"));
            KernelError::Rejected(Failure { operation: operation(), errno: libc::EINVAL, message })
        })
    }

    fn restore(&mut self, family: Family, text: &str) -> Result<(), KernelError> {
        let call = AclCall::Restore(family, text.to_owned());
        self.acl.call(call, || format!("cannot change {family} rules"))?.restore(family, text)
    }
}

impl World {
    pub(super) fn restore(&mut self, family: Family, text: &str) -> Result<(), KernelError> {
        let sets = &self.sets;
        let is_set = |name: &str| SetName::new(name).is_ok_and(|name| sets.contains_key(&name));
        self.rules.restore(family, text, is_set).map_err(|(line, why)| {
            let quoted = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let message = Some(format!("line {line} is {quoted:?}: {why}"));
            KernelError::Rejected(Failure {
                operation: format!("cannot change {family} rules"),
                errno: libc::EINVAL,
                message,
            })
        })
    }
}
