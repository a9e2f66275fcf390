//! What the filter is and what it should be, put together: changes of the compiler's and the kernel's answers come in,
//! steps to be taken go out. Pure; time is an argument.
//!
//! - `observed`: what the kernel says of sets and tables.
//! - `wanted`: what the compiler and the agent want.
//! - `steps`: what is to be done about the difference, and what may be cleared away.
//! - `progress`: how much of what was told is in force.
//!
//! A state is in one of two phases. Until the compiler's program is known it only adopts: nothing of an earlier life is
//! changed, but that addresses which are nobody's any more are mapped no longer. From then on it enforces.

mod observed;
mod progress;
mod steps;
mod wanted;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use types::Family;

use super::address_marks::AddressMarks;
use super::class_versions::ClassVersions;
use super::config::{AclConfig, MarkSpace};
use super::fixed::FixedSets;
use super::render::{Guard, Layout};
use super::rule_tables::RuleTables;
use super::sets::ProgramSets;
use crate::policy::Infrastructure;
use crate::policy::program::{Class, ClassId, SetId};

pub(crate) use progress::Tightened;

/// All that is known and wanted.
#[derive(Debug)]
pub(crate) struct State {
    /// What the chains depend on beside classes.
    layout: Layout,
    /// The families of which there are chains.
    families: BTreeSet<Family>,
    /// Which version of which class is under which mark number.
    versions: ClassVersions,
    /// Which mark number each local address is mapped to.
    address_marks: AddressMarks,
    /// The compiler's sets.
    sets: ProgramSets,
    /// The sets that do not depend on policies.
    fixed: FixedSets,
    /// What the kernel's tables hold, and the restores that change them.
    tables: RuleTables,
    /// Whether the compiler's program is known.
    phase: Phase,
    /// When versions and sets of no use may be cleared away; none: at once.
    clear_at: Option<Instant>,
    /// There may be sets that no rule speaks of any more: said again whenever rules or wishes have changed.
    may_destroy: bool,
    /// Something that was allowed may be forbidden since connections were last looked at.
    is_tightened: bool,
}

/// Whether the compiler's program is known.
#[derive(Debug)]
enum Phase {
    /// It is not. These addresses have left since: they alone are mapped no longer.
    Adopting {
        /// Those of them for which the kernel has not been told yet.
        left: BTreeSet<IpAddr>,
    },
    /// It is, and what the kernel has beyond it goes.
    Enforcing,
}

/// All that the compiler wants, members of sets apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program<'a> {
    /// Its sets.
    pub(crate) sets: Vec<SetId>,
    /// Its classes.
    pub(crate) classes: Vec<(ClassId, &'a Class)>,
    /// Which class each address belongs to.
    pub(crate) memberships: Vec<(IpAddr, ClassId)>,
}

impl State {
    /// Nothing is known of the kernel yet.
    pub(crate) fn new(config: &AclConfig, mark: MarkSpace) -> Self {
        let layout = Layout {
            mark,
            interfaces: format!("{}+", config.interface_prefix),
            to_host: config.endpoint_to_host,
            log: config.log_denied.then_some(config.log_group),
            guard: Guard {
                ports: Infrastructure::default().speaker_ports(),
                own_port: Infrastructure::default().own_port,
                vxlan: config.allow_vxlan,
                tunnels: config.allow_tunnels,
            },
            masquerade: false,
            services: BTreeSet::new(),
        };
        Self {
            layout,
            families: config.families.clone(),
            versions: ClassVersions::new(mark.highest()),
            address_marks: AddressMarks::new(mark),
            sets: ProgramSets::default(),
            fixed: FixedSets::default(),
            tables: RuleTables::new(config.families.clone()),
            phase: Phase::Adopting { left: BTreeSet::new() },
            clear_at: None,
            may_destroy: false,
            is_tightened: false,
        }
    }

    /// The families of which there are chains.
    pub(crate) const fn families(&self) -> &BTreeSet<Family> {
        &self.families
    }

    /// What chains look like.
    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether the compiler's program is known, so that the kernel is made what it says.
    pub(crate) const fn is_enforcing(&self) -> bool {
        matches!(self.phase, Phase::Enforcing)
    }
}
