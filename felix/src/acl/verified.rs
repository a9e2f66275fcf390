//! A look at the kernel for one endpoint: whether what ADD waited for is there still.

use std::net::IpAddr;

use kernel::KernelError;
use kernel::acl::{LinkName, SetElement, Sets};
use types::{Family, InterfaceName};

use super::names::SetRef;

/// What the kernel lacks of an endpoint, in words: each of its addresses is mapped to a class, and to be taken from its
/// interface alone. The rules themselves are compared by the filter's owner all the time.
pub fn lacking(
    sets: &mut dyn Sets,
    interface: &InterfaceName,
    addresses: &[IpAddr],
) -> Result<Vec<String>, KernelError> {
    let mut lacking = Vec::new();
    let own = LinkName::new(interface.as_str().as_bytes());
    for address in addresses {
        let family = Family::of(*address);
        let marks = members(sets, SetRef::Marks(family))?;
        let is_classed = |member: &SetElement| matches!(member, SetElement::Mark(mark) if mark.address == *address);
        if !marks.iter().any(is_classed) {
            lacking.push(format!("{address} is mapped to no class of policies, so nothing passes"));
        }
        let homes = members(sets, SetRef::Homes(family))?;
        let is_home = |member: &SetElement| matches!(member, SetElement::Home(home) if home.address == *address && Some(home.interface) == own);
        if !homes.iter().any(is_home) {
            lacking.push(format!("{address} is not known to be behind {interface}"));
        }
    }
    Ok(lacking)
}

/// The members of a set; none of a set that is not there.
fn members(sets: &mut dyn Sets, set: SetRef) -> Result<Vec<SetElement>, KernelError> {
    match sets.elements(&set.kernel_name()) {
        Err(KernelError::Gone(_)) => Ok(Vec::new()),
        members => members,
    }
}
