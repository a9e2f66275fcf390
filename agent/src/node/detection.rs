//! Which address a node peers from: a pure choice among what the interfaces have.

use std::net::IpAddr;

use types::config::DetectionMethod;
use types::{Family, InterfaceName};

/// An address of an interface, with what the choice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The interface.
    pub(crate) interface: String,
    /// The address.
    pub(crate) address: IpAddr,
    /// Whether its scope is global.
    pub(crate) global: bool,
    /// Whether the interface is up.
    pub(crate) up: bool,
}

/// The address of `family` that `method` finds among `candidates` (in the kernel's order) or among those that Kubernetes
/// knows the node by; the `current` one before others. `source` answers what source address the kernel would use towards a
/// destination.
pub(crate) fn address(
    method: &DetectionMethod,
    family: Family,
    candidates: &[Candidate],
    kubernetes: &[IpAddr],
    current: Option<IpAddr>,
    source: impl FnOnce(IpAddr) -> Option<IpAddr>,
) -> Result<Option<IpAddr>, DetectionError> {
    let is_usable = |c: &&Candidate| {
        c.up && c.global && Family::of(c.address) == family && !c.address.is_loopback() && !is_link_local(c.address)
    };
    // A new address comes before older ones of its interface, with IPv6.
    let (is_current, others): (Vec<_>, Vec<_>) =
        candidates.iter().filter(is_usable).partition(|c| Some(c.address) == current);
    let mut usable = is_current.into_iter().chain(others);
    let missing = |what: String| DetectionError::Missing { family, what };
    match method {
        DetectionMethod::None => Ok(None),
        DetectionMethod::FirstFound => {
            let ours = |name: &str| InterfaceName::new(name).is_ok_and(|name| name.is_ours());
            let foreign = |name: &str| ["docker", "br-", "virbr", "veth", "cni"].iter().any(|p| name.starts_with(p));
            let found = usable.find(|c| c.interface != "lo" && !ours(&c.interface) && !foreign(&c.interface));
            Ok(found.map(|c| c.address))
        }
        DetectionMethod::Interface(name) => match usable.find(|c| c.interface == name.as_str()) {
            Some(candidate) => Ok(Some(candidate.address)),
            None => Err(missing(format!("interface {name} is not up with a global address"))),
        },
        DetectionMethod::Cidr(prefix) => match usable.find(|c| prefix.contains(c.address)) {
            Some(candidate) => Ok(Some(candidate.address)),
            None => Err(missing(format!("no interface has an address within {prefix}"))),
        },
        DetectionMethod::CanReach(destination) => match source(*destination) {
            Some(address) if Family::of(address) == family => Ok(Some(address)),
            _ => Err(missing(format!("no route reaches {destination}"))),
        },
        DetectionMethod::KubernetesInternalIp => {
            let mut known = kubernetes.iter().copied().filter(|address| Family::of(*address) == family);
            let stays = current.filter(|current| kubernetes.contains(current));
            Ok(stays.or_else(|| known.next()))
        }
        DetectionMethod::Address(address) if Family::of(*address) == family => Ok(Some(*address)),
        DetectionMethod::Address(address) => Err(DetectionError::OtherFamily { family, address: *address }),
    }
}

/// Why the configured method finds no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DetectionError {
    /// The host has no such address now; the agent tries again when addresses change.
    #[error("addressDetection.{family}: {what}")]
    Missing {
        /// The family that has no address.
        family: Family,
        /// What the host lacks.
        what: String,
    },
    /// The configuration is wrong, whatever the host has.
    #[error("addressDetection.{family}: {address} is of the other family")]
    OtherFamily {
        /// The family of the key.
        family: Family,
        /// The address in its value.
        address: IpAddr,
    },
}

impl DetectionError {
    /// Whether a change on the host may mend it.
    pub(crate) const fn may_come(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
