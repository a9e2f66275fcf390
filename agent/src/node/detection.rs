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
    let missing = |what: String| DetectionError { family, what };
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
        DetectionMethod::Address(address) => Err(missing(format!("{address} is of the other family"))),
    }
}

/// The configured method finds nothing now; the agent tries again when addresses change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("addressDetection.{family}: {what}")]
pub(crate) struct DetectionError {
    family: Family,
    what: String,
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(interface: &str, address: &str) -> Candidate {
        Candidate { interface: interface.to_owned(), address: address.parse().unwrap(), global: true, up: true }
    }

    fn found(method: &str, family: Family) -> Result<Option<String>, String> {
        let down = Candidate { up: false, ..candidate("eth9", "192.0.2.9") };
        let candidates = [
            candidate("lo", "192.0.2.100"),
            candidate("docker0", "172.17.0.1"),
            down,
            candidate("eth0", "169.254.7.7"),
            candidate("eth0", "192.0.2.1"),
            candidate("eth1", "198.51.100.1"),
            candidate("eth1", "fe80::1"),
            candidate("eth1", "2001:db8::1"),
        ];
        let kubernetes = ["198.51.100.7".parse().unwrap()];
        address(&method.parse().unwrap(), family, &candidates, &kubernetes, None, |_| "192.0.2.1".parse().ok())
            .map(|address| address.map(|address| address.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_method_finds_what_its_name_says() {
        for (method, family, address) in [
            ("first-found", Family::Ipv4, "192.0.2.1"),
            ("first-found", Family::Ipv6, "2001:db8::1"),
            ("interface=eth1", Family::Ipv4, "198.51.100.1"),
            ("interface=eth1", Family::Ipv6, "2001:db8::1"),
            ("cidr=198.51.100.0/24", Family::Ipv4, "198.51.100.1"),
            ("can-reach=203.0.113.1", Family::Ipv4, "192.0.2.1"),
            ("kubernetes-internal-ip", Family::Ipv4, "198.51.100.7"),
            ("192.0.2.77", Family::Ipv4, "192.0.2.77"),
        ] {
            assert_eq!(found(method, family).unwrap().as_deref(), Some(address), "{method}");
        }
        assert_eq!(found("none", Family::Ipv4), Ok(None));
        assert_eq!(found("kubernetes-internal-ip", Family::Ipv6), Ok(None), "the cluster has no such addresses");
    }

    #[test]
    fn a_method_that_finds_nothing_is_an_error_naming_its_key() {
        for method in ["interface=eth7", "interface=eth9", "cidr=203.0.113.0/24", "2001:db8::1"] {
            let error = found(method, Family::Ipv4).unwrap_err();
            assert!(error.starts_with("addressDetection.ipv4: "), "{error}");
        }
    }
}
