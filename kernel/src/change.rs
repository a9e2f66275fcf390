//! Changes of several kinds that are made together.

use std::fmt;

use crate::{InterfaceAddress, LinkChange, Neighbour, RouteChange};

/// One of the changes that [`crate::Kernel::change_all`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What [`crate::Kernel::change_link`] does.
    Link(u32, LinkChange),
    /// What [`crate::Kernel::add_address`] does.
    Address(InterfaceAddress),
    /// What [`crate::Kernel::set_neighbour`] does.
    Neighbour(Neighbour),
    /// What [`crate::Kernel::change_routes`] does.
    Route(RouteChange),
}

/// As errors say it, behind "cannot".
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(index, _) => write!(f, "change link {index}"),
            Self::Address(address) => write!(f, "add {address}"),
            Self::Neighbour(neighbour) => write!(f, "set {neighbour}"),
            Self::Route(change) => change.fmt(f),
        }
    }
}
