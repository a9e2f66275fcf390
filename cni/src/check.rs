//! CHECK (CNI spec section 2, CHECK): whether an attachment is as ADD left it, and if not, all that is wrong with it.
//!
//! The agent answers for what is its own: reservation, class and sets of policy. The kernel is asked here, on both sides, for
//! whatever the plan has made. What plugins behind this one may have changed is no fault: the MAC and the MTU of the pod's end,
//! more addresses and routes. Nor is a neighbour entry that the pod has lost, for the gateway answers.
//!
//! Host ports are checked by portmap, which has mapped them.
//!
//! Where no agent answers, the kernel's part alone decides: the pod is served without an agent too, and a runtime that takes a
//! failed CHECK for the end of the network would tear it down.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kernel::{AddressFlags, Kernel, KernelError, Link, RouteFilter};
use serde_json::Value;
use types::cni::{GATEWAY_IPV4, GATEWAY_IPV6, HOST_MAC};
use types::{EndpointId, Family, InterfaceName, Prefix};

use crate::client::{Agent, AgentError, AnswerTimeLimit};
use crate::config::NetworkConfig;
use crate::mapping::{self, Checked};
use crate::plan::{Absent, Pairing, Sandbox, Side, Sysctl, WiringStep, gateway, plan};
use crate::source_routing;
use crate::spec::{CniError, Code};
use crate::verbs::Machine;
use crate::wiring::{PodSide, WiringError};

/// The tables that the reference plugin sbr moves an interface's routes to: the first ones from 100 on that no rule names, one for
/// each address.
const SBR_TABLES: std::ops::Range<u32> = 100..116;

/// Checks one attachment. What an operator should know of a success is returned.
pub(crate) fn check(
    config: &NetworkConfig,
    id: &EndpointId,
    netns: &Path,
    plugins: &[PathBuf],
    machine: &dyn Machine,
) -> Result<Vec<String>, CniError> {
    let expected = Expected::of(config, &id.interface)?;
    let mut pod = machine.pod(netns)?;
    let mut host = machine.host().map_err(|error| WiringError::Host(error).into_cni())?;
    let (mut wrong, mut notes, mut given) = (Vec::new(), Vec::new(), Vec::new());
    let agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::CHECK);
    match agent.and_then(|mut agent| agent.check(id.clone())) {
        Ok(wire) => {
            given = wire.host_ports;
            let held: BTreeSet<_> = wire.addresses.into_iter().collect();
            if held != expected.addresses {
                let (held, expected) = (list(&held), list(&expected.addresses));
                wrong.push(format!("{id} holds {held}, and prevResult says {expected}"));
            }
        }
        Err(AgentError::Refused(refused)) => wrong.push(refused.msg),
        Err(error @ AgentError::OutOfOrder { .. }) => return Err(error.into_cni()),
        Err(error) => notes.push(format!("{error}; what it keeps of {id} is not checked")),
    }
    let pairing = expected.pairing(id);
    wrong.extend(kernel(host.as_mut(), &mut pod, &pairing).map_err(WiringError::into_cni)?);
    match mapping::check(&config.mapped(), id, &given, netns, plugins) {
        Ok(Checked { wrong: found, unknown }) => {
            wrong.extend(found);
            notes.extend(unknown);
        }
        Err(error) => wrong.push(error.to_string()),
    }
    if wrong.is_empty() {
        return Ok(notes);
    }
    Err(CniError::new(Code::Deviates, format!("{id} is not as ADD left it: {}", wrong.join("; "))))
}

/// What prevResult, the final result of the ADD, says of this plugin's part.
struct Expected {
    /// The pod's addresses on the interface.
    addresses: BTreeSet<IpAddr>,
    /// Families whose default route leads to our gateway.
    routed: BTreeSet<Family>,
}

impl Expected {
    fn of(config: &NetworkConfig, interface: &InterfaceName) -> Result<Self, CniError> {
        let missing = |what: String| CniError::new(Code::InvalidConfig, what);
        let result = config.previous.as_ref();
        let result = result.ok_or_else(|| missing("prevResult is missing: CHECK compares with it".to_owned()))?;
        let items = |key: &str| result.get(key).and_then(Value::as_array).into_iter().flatten();
        let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
        let is_pods = |item: &Value| {
            text(item, "name").as_deref() == Some(interface.as_str())
                && text(item, "sandbox").is_some_and(|s| !s.is_empty())
        };
        let index = items("interfaces").position(is_pods);
        let index = index.ok_or_else(|| missing(format!("prevResult.interfaces has no {interface} in a sandbox")))?;
        let of_pod = |item: &&Value| item.get("interface").and_then(Value::as_u64) == u64::try_from(index).ok();
        let address = |item: &Value| text(item, "address")?.split('/').next()?.parse::<IpAddr>().ok();
        let addresses: BTreeSet<_> = items("ips").filter(of_pod).filter_map(address).collect();
        if addresses.is_empty() {
            return Err(missing(format!("prevResult.ips has no address of {interface}")));
        }
        let routed = |item: &Value| {
            let destination: Prefix = text(item, "dst")?.parse().ok()?;
            let via: IpAddr = text(item, "gw")?.parse().ok()?;
            let family = destination.family();
            (destination == Prefix::default_route(family) && via == gateway(family)).then_some(family)
        };
        let routed = items("routes").filter_map(routed).collect();
        Ok(Self { addresses, routed })
    }

    /// What ADD has planned, as far as it matters here.
    fn pairing(&self, id: &EndpointId) -> Pairing {
        let default_routes = Family::ALL.into_iter().filter(|family| !self.routed.contains(family)).collect();
        Pairing {
            host: id.host_interface(),
            pod: id.interface.clone(),
            addresses: self.addresses.iter().copied().collect(),
            mtu: 0,
            sandbox: Sandbox { loopback_up: true, default_routes },
        }
    }
}

/// All that is wrong in the kernel, on both sides.
fn kernel(host: &mut dyn Kernel, pod: &mut PodSide, pairing: &Pairing) -> Result<Vec<String>, WiringError> {
    let mut wrong = Vec::new();
    let host_link = host.link(&pairing.host).map_err(WiringError::Host)?;
    let steps = plan(pairing);
    let pod_link = pod.within(|kernel| {
        let link = kernel.link(&pairing.pod).map_err(WiringError::Pod)?;
        wrong.extend(pod_side(kernel, link.as_ref(), pairing, &steps).map_err(WiringError::Pod)?);
        Ok(link)
    })?;
    wrong.extend(host_side(host, host_link.as_ref(), pairing, &steps).map_err(WiringError::Host)?);
    if let (Some(host), Some(pod)) = (&host_link, &pod_link)
        && (host.peer_index != Some(pod.index) || pod.peer_index != Some(host.index))
    {
        wrong.push(format!("{} and {} are not the ends of one pair", pairing.host, pairing.pod));
    }
    Ok(wrong)
}

fn pod_side(
    kernel: &mut dyn Kernel,
    link: Option<&Link>,
    pairing: &Pairing,
    steps: &[WiringStep],
) -> Result<Vec<String>, KernelError> {
    let name = &pairing.pod;
    let Some(link) = link else { return Ok(vec![format!("the pod has no interface {name}")]) };
    let mut wrong = Vec::new();
    if !link.up {
        wrong.push(format!("{name} is down in the pod"));
    }
    let there = kernel.addresses()?;
    for address in &pairing.addresses {
        if !there.iter().any(|there| there.index == link.index && there.address == *address) {
            wrong.push(format!("{name} does not have {address}"));
        }
    }
    let neighbours = kernel.neighbours()?;
    for step in steps {
        match step {
            WiringStep::Sysctl(sysctl) if sysctl.side == Side::Pod => wrong.extend(sysctl_is_wrong(kernel, sysctl)?),
            WiringStep::DefaultRoute(family) if !is_default_by(kernel, *family, link.index)? => {
                wrong.push(format!("the pod has no default route of {family} by {name}"));
            }
            WiringStep::SourceRoute(family) => wrong.extend(source_routing::route_is_wrong(kernel, link, *family)?),
            WiringStep::SourceRule(address) => wrong.extend(source_routing::rule_is_wrong(kernel, link, *address)?),
            WiringStep::GatewayNeighbour(family) => {
                let of_gateway = |entry: &&kernel::Neighbour| {
                    entry.index == link.index && entry.address == gateway(*family) && entry.mac != HOST_MAC
                };
                if let Some(entry) = neighbours.iter().find(of_gateway) {
                    wrong.push(format!("the pod's neighbour {} has another MAC than its node's end", entry.address));
                }
            }
            _ => {}
        }
    }
    Ok(wrong)
}

/// Whether the pod has a default route by the interface: in the main table, or in one of its own where sbr has put it.
fn is_default_by(kernel: &mut dyn Kernel, family: Family, interface: u32) -> Result<bool, KernelError> {
    let main = RouteFilter::main(family);
    for table in std::iter::once(main.table).chain(SBR_TABLES) {
        let leads = |route: &kernel::Route| {
            let mut hops = route.next_hops.iter();
            route.prefix == Prefix::default_route(family) && hops.any(|hop| hop.interface == Some(interface))
        };
        if kernel.routes(&RouteFilter { table, ..main })?.iter().any(leads) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn host_side(
    kernel: &mut dyn Kernel,
    link: Option<&Link>,
    pairing: &Pairing,
    steps: &[WiringStep],
) -> Result<Vec<String>, KernelError> {
    let name = &pairing.host;
    let Some(link) = link else { return Ok(vec![format!("the node has no interface {name}")]) };
    let mut wrong = Vec::new();
    if !link.up {
        wrong.push(format!("{name} is down on the node"));
    }
    if link.mac != Some(HOST_MAC) {
        wrong.push(format!("{name} has another MAC than pods know their gateway by"));
    }
    let there = kernel.addresses()?;
    let usable = |index: u32, address: IpAddr| {
        let is_it = |there: &&kernel::InterfaceAddress| there.index == index && there.address == address;
        there.iter().filter(is_it).any(|there| !there.flags.contains(AddressFlags::TENTATIVE))
    };
    for step in steps {
        match step {
            WiringStep::Sysctl(sysctl) if sysctl.side == Side::Host => wrong.extend(sysctl_is_wrong(kernel, sysctl)?),
            WiringStep::GatewayAddress if !usable(crate::wiring::LOOPBACK, GATEWAY_IPV4.into()) => {
                wrong.push(format!("the node's lo does not have {GATEWAY_IPV4}"));
            }
            WiringStep::GatewayOfPair if !usable(link.index, GATEWAY_IPV4.into()) => {
                wrong.push(format!("{name} does not have {GATEWAY_IPV4}"));
            }
            WiringStep::GatewayLinkLocal if !usable(link.index, GATEWAY_IPV6.into()) => {
                wrong.push(format!("{name} does not have {GATEWAY_IPV6}"));
            }
            _ => {}
        }
    }
    for address in &pairing.addresses {
        let route = kernel.resolve(*address)?;
        let leads = route.is_some_and(|route| {
            let mut hops = route.next_hops.iter();
            route.prefix == Prefix::host(*address) && hops.any(|hop| hop.interface == Some(link.index))
        });
        if !leads {
            wrong.push(format!("the node's route to {address} does not lead to {name}"));
        }
    }
    Ok(wrong)
}

fn sysctl_is_wrong(kernel: &mut dyn Kernel, sysctl: &Sysctl) -> Result<Option<String>, KernelError> {
    let Sysctl { key, value, absent, .. } = sysctl;
    match kernel.read_sysctl(key) {
        Ok(found) if found == *value => Ok(None),
        Ok(found) => Ok(Some(format!("{key} is {found} instead of {value}"))),
        Err(KernelError::Gone(_)) if *absent == Absent::IsFine => Ok(None),
        Err(KernelError::Gone(_)) => Ok(Some(format!("{key} is not there"))),
        Err(error) => Err(error),
    }
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
