//! `addressDetection.*`: how the node finds the addresses that it peers from.

use std::net::IpAddr;
use std::str::FromStr;

use crate::{InterfaceName, Prefix};

/// `addressDetection.*`, per family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressDetection {
    /// `addressDetection.ipv4`. By default `first-found`.
    pub ipv4: DetectionMethod,
    /// `addressDetection.ipv6`. By default `first-found`.
    pub ipv6: DetectionMethod,
}

/// One way to find an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectionMethod {
    /// `none`: the node has no address of this family.
    None,
    /// `first-found`: the first global address of an interface that is up, is not the loopback, and is not ours.
    FirstFound,
    /// `interface=NAME`: the first global address of this interface.
    Interface(InterfaceName),
    /// `cidr=PREFIX`: the first address within.
    Cidr(Prefix),
    /// `can-reach=ADDRESS`: the source address that the kernel would use towards it.
    CanReach(IpAddr),
    /// `kubernetes-internal-ip`: what the node's Node object has as InternalIP; none where it has none of this family.
    KubernetesInternalIp,
    /// The address is given outright.
    Address(IpAddr),
}

impl FromStr for DetectionMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "{text:?} is not none, first-found, interface=NAME, cidr=PREFIX, can-reach=ADDRESS, \
                 kubernetes-internal-ip or an address"
            )
        };
        match text.split_once('=') {
            None if text == "none" => Ok(Self::None),
            None if text == "first-found" => Ok(Self::FirstFound),
            None if text == "kubernetes-internal-ip" => Ok(Self::KubernetesInternalIp),
            None => text.parse().map(Self::Address).map_err(|_| malformed()),
            Some(("interface", name)) => name.parse().map(Self::Interface).map_err(|error| format!("{error}")),
            Some(("cidr", prefix)) => prefix.parse().map(Self::Cidr).map_err(|error| format!("{error}")),
            Some(("can-reach", address)) => address.parse().map(Self::CanReach).map_err(|_| malformed()),
            Some(_) => Err(malformed()),
        }
    }
}
