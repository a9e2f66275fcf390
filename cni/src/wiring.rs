//! Carries out a [`plan`](crate::plan) in the kernel, and takes it back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use kernel::{
    AddressFlags, Change, InterfaceAddress, Kernel, KernelError, LinkChange, Linux, Neighbour, Netns, Route,
    RouteChange, RouteFilter, RouteKind, RouteNextHop, Scope, SourceRule, SysctlKey, VethSpec,
};
use types::cni::{GATEWAY_IPV4, GATEWAY_IPV6, HOST_MAC};
use types::{Family, InterfaceName, Prefix};

use crate::plan::{Absent, Pairing, Sandbox, Side, Sysctl, Undo, WiringStep, gateway, plan};
use crate::source_routing;
use crate::spec::{CniError, Code};

/// `lo` is the first link of every namespace (LOOPBACK_IFINDEX in the kernel's `include/net/net_namespace.h`).
pub(crate) const LOOPBACK: u32 = 1;

/// The protocol of the pod's routes: made by hand (RTPROT_BOOT in rtnetlink(7)).
const PROTOCOL_BOOT: u8 = 3;

/// A pod's namespace, which the thread enters for each visit: `/proc/sys` shows the namespace one is in.
pub struct PodSide {
    /// The pod's namespace.
    netns: Netns,
    /// Where the thread goes back to; none if it never leaves, as with a fake kernel.
    home: Option<Netns>,
    /// The kernel as the pod has it.
    kernel: Box<dyn Kernel>,
}

impl PodSide {
    /// Opens what CNI_NETNS names (code 8 if that is no namespace, or the caller's own).
    pub fn open(path: &Path) -> Result<Self, CniError> {
        let invalid = |why: String| CniError::new(Code::InvalidNetns, format!("CNI_NETNS: {why}"));
        let netns = Netns::open(path).map_err(|error| invalid(error.to_string()))?;
        let home = Netns::current().map_err(|error| WiringError::Host(error).into_cni())?;
        if netns == home {
            return Err(invalid(format!("{} is the namespace of the plugin itself", path.display())));
        }
        // Visited for the socket, which then keeps the namespace: cheaper than a thread for it.
        let enter = |netns: &Netns| netns.enter().map_err(|error| invalid(error.to_string()));
        enter(&netns)?;
        let kernel = Linux::open();
        enter(&home)?;
        let kernel = kernel.map_err(|error| WiringError::Pod(error).into_cni())?;
        Ok(Self { netns, home: Some(home), kernel: Box::new(kernel) })
    }

    /// A namespace that needs no entering: `kernel` shows it from where the thread is.
    pub fn at_hand(netns: Netns, kernel: Box<dyn Kernel>) -> Self {
        Self { netns, home: None, kernel }
    }

    /// Visits the namespace. A thread that cannot return is an error, even if `visit` was well; sockets opened before
    /// keep their namespace, so that the pair can still be taken back.
    pub(crate) fn within<T>(
        &mut self,
        visit: impl FnOnce(&mut dyn Kernel) -> Result<T, WiringError>,
    ) -> Result<T, WiringError> {
        let Some(home) = &self.home else { return visit(self.kernel.as_mut()) };
        self.netns.enter().map_err(WiringError::Pod)?;
        let outcome = visit(self.kernel.as_mut());
        home.enter().map_err(WiringError::Host)?;
        outcome
    }
}

/// Looks at the pod's namespace without touching it: the interface must not be there yet.
pub fn survey(pod: &mut PodSide, interface: &InterfaceName) -> Result<Sandbox, WiringError> {
    // No sysctl is looked at, so the namespace need not be entered.
    let kernel = pod.kernel.as_mut();
    let links = kernel.links().map_err(WiringError::Pod)?;
    if links.iter().any(|link| link.name == interface.as_str()) {
        return Err(WiringError::InterfaceTaken(interface.clone()));
    }
    let mut sandbox = Sandbox::default();
    for link in links {
        if link.index == LOOPBACK {
            sandbox.loopback_up = link.up;
        } else if sandbox.default_routes.is_empty() {
            sandbox.default_routes = default_routes(kernel).map_err(WiringError::Pod)?;
        }
    }
    Ok(sandbox)
}

fn default_routes(kernel: &mut dyn Kernel) -> Result<BTreeSet<Family>, KernelError> {
    let mut families = BTreeSet::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let is_default = |route: &Route| route.prefix.len() == 0 && route.kind == RouteKind::Unicast;
        if kernel.routes(&RouteFilter::main(family))?.iter().any(is_default) {
            families.insert(family);
        }
    }
    Ok(families)
}

/// Deletes what an earlier DEL of the same attachment left to be reaped, and waits until both ends are gone: the pod's may
/// be in the way in the same namespace. A link that is in use is an error, and stays as it is.
///
/// What is down counts as left, whatever its group: a link of ours in use is up.
pub fn clear_remains(host: &mut dyn Kernel, name: &InterfaceName) -> Result<(), WiringError> {
    match host.link(name).map_err(WiringError::Host)? {
        None => Ok(()),
        Some(link) if !link.up => host.delete_link(link.index).map_err(WiringError::Host),
        Some(_) => Err(WiringError::HostInterfaceTaken(name.clone())),
    }
}

/// DEL: takes a link out of use and leaves it to the agent's reaper. One that is gone, or parked already, is success.
pub fn park(host: &mut dyn Kernel, name: &InterfaceName, group: u32) -> Result<(), WiringError> {
    match host.link(name).map_err(WiringError::Host)? {
        Some(link) => kernel::ours::park(host, &link, group).map_err(WiringError::Host),
        None => Ok(()),
    }
}

/// DEL of an attachment that the agent knows nothing of: a link that is up is the remains of an ADD that was killed, and
/// goes at once. One that is down is parked.
pub fn delete_orphan(host: &mut dyn Kernel, name: &InterfaceName) -> Result<(), WiringError> {
    match host.link(name).map_err(WiringError::Host)? {
        Some(link) if link.up => host.delete_link(link.index).map_err(WiringError::Host),
        _ => Ok(()),
    }
}

/// Does to the pod what needs no answer of the agent: it can be done while that is on its way. Afterwards `sandbox` says what the
/// pod's namespace has.
pub fn begin(pod: &mut PodSide, sandbox: &mut Sandbox) -> Result<Begun, WiringError> {
    let mut take_back = Vec::new();
    if !sandbox.loopback_up {
        // By a socket that is in the namespace, so the thread need not be.
        raise(pod.kernel.as_mut(), LOOPBACK).map_err(WiringError::Pod)?;
        sandbox.loopback_up = true;
        take_back.push(TakeBack::LowerLoopback);
    }
    Ok(Begun(Wired { host_index: 0, pod_index: 0, pod_mac: [0; 6], take_back }))
}

/// A pod's namespace that is ready for its pair.
#[derive(Debug)]
#[must_use = "what was begun has to be ended or undone"]
pub struct Begun(Wired);

impl Begun {
    /// Takes back what was begun; what could not be undone is returned.
    pub fn undo(self, host: &mut dyn Kernel, pod: &mut PodSide) -> Vec<WiringError> {
        self.0.undo(host, pod)
    }

    /// Makes the pair, and says so as soon as the host's end serves routes. On failure everything is taken back before the error
    /// is returned.
    pub fn wire(
        self,
        host: &mut dyn Kernel,
        pod: &mut PodSide,
        pairing: &Pairing,
        made: impl FnOnce(),
    ) -> Result<Wired, WiringError> {
        let Self(mut wired) = self;
        let mut made = Some(made);
        let steps = plan(pairing);
        let outcome = steps.chunk_by(|one, next| one.side() == next.side()).try_for_each(|steps| {
            let mut changes = Vec::with_capacity(steps.len());
            match steps.first().map(WiringStep::side) {
                Some(Side::Host) => {
                    let netns = &pod.netns;
                    let mut take = |step| wired.on_host(host, netns, pairing, step, &mut changes);
                    steps.iter().try_for_each(&mut take)?;
                    make(host, &mut changes).map_err(WiringError::Host)?;
                    if let Some(made) = made.take() {
                        made();
                    }
                    Ok(())
                }
                Some(Side::Pod) => pod.within(|kernel| {
                    wired.find_pod_end(kernel, pairing)?;
                    steps.iter().try_for_each(|step| wired.on_pod(kernel, pairing, step, &mut changes))?;
                    make(kernel, &mut changes).map_err(WiringError::Pod)
                }),
                None => Ok(()),
            }
        });
        match outcome {
            Ok(()) => Ok(wired),
            Err(error) => Err(error.with_left_behind(wired.undo(host, pod))),
        }
    }
}

/// Makes the changes that were gathered, with one request.
fn make(kernel: &mut dyn Kernel, changes: &mut Vec<Change>) -> Result<(), KernelError> {
    let changes = std::mem::take(changes);
    if changes.is_empty() { Ok(()) } else { kernel.change_all(&changes) }
}

/// A pair that was made, with what it takes to unmake it.
#[derive(Debug)]
#[must_use = "a pair that is not kept has to be undone"]
pub struct Wired {
    /// The host end's index, 0 before it is made.
    host_index: u32,
    /// The pod end's index in the pod's namespace, 0 before it is found.
    pod_index: u32,
    /// The pod end's MAC.
    pod_mac: [u8; 6],
    /// In the order of the steps; taken back from the end.
    take_back: Vec<TakeBack>,
}

/// How a step is undone.
#[derive(Debug)]
enum TakeBack {
    DeleteLink(u32),
    LowerLoopback,
    WriteSysctl { side: Side, key: SysctlKey, value: String },
    DeleteRule(SourceRule),
}

impl Wired {
    /// The MAC address of the pod's end.
    pub const fn pod_mac(&self) -> [u8; 6] {
        self.pod_mac
    }

    /// Unmakes the pair, last step first. A failure does not stop the others; what could not be undone is returned.
    pub fn undo(self, host: &mut dyn Kernel, pod: &mut PodSide) -> Vec<WiringError> {
        let undone = self.take_back.into_iter().rev().map(|step| match step {
            TakeBack::DeleteLink(index) => host.delete_link(index).map_err(WiringError::Host),
            TakeBack::LowerLoopback => pod.within(|kernel| lower(kernel, LOOPBACK).map_err(WiringError::Pod)),
            TakeBack::DeleteRule(rule) => pod.within(|kernel| kernel.delete_rule(&rule).map_err(WiringError::Pod)),
            TakeBack::WriteSysctl { side: Side::Host, key, value } => {
                host.write_sysctl(&key, &value).map_err(WiringError::Host)
            }
            TakeBack::WriteSysctl { side: Side::Pod, key, value } => {
                pod.within(|kernel| kernel.write_sysctl(&key, &value).map_err(WiringError::Pod))
            }
        });
        undone.filter_map(Result::err).collect()
    }

    /// Takes a step, or adds it to the changes that are made together: the next step that is none of these waits for them.
    fn on_host(
        &mut self,
        host: &mut dyn Kernel,
        netns: &Netns,
        pairing: &Pairing,
        step: &WiringStep,
        changes: &mut Vec<Change>,
    ) -> Result<(), WiringError> {
        let gateway = |index, address, length| InterfaceAddress::new(index, address, length);
        let change = match step {
            WiringStep::GatewayAddress => gateway(LOOPBACK, IpAddr::V4(GATEWAY_IPV4), 32).with_scope(Scope::Link),
            WiringStep::GatewayOfPair => gateway(self.host_index, IpAddr::V4(GATEWAY_IPV4), 32).with_scope(Scope::Host),
            WiringStep::GatewayLinkLocal => gateway(self.host_index, IpAddr::V6(GATEWAY_IPV6), 64)
                .with_scope(Scope::Link)
                .with_flags(AddressFlags::NO_DAD),
            WiringStep::MakePair => {
                make(host, changes).map_err(WiringError::Host)?;
                self.host_index = make_pair(host, netns, pairing).map_err(WiringError::Host)?;
                self.take_back.push(TakeBack::DeleteLink(self.host_index));
                return Ok(());
            }
            WiringStep::Sysctl(sysctl) => {
                make(host, changes).map_err(WiringError::Host)?;
                return self.set(host, sysctl).map_err(WiringError::Host);
            }
            WiringStep::AwaitCarrier(_) => {
                make(host, changes).map_err(WiringError::Host)?;
                return await_carrier(host, &pairing.host, WiringError::Host);
            }
            WiringStep::Address(_)
            | WiringStep::RaisePod
            | WiringStep::GatewayNeighbour(_)
            | WiringStep::GatewayOnLink
            | WiringStep::DefaultRoute(_)
            | WiringStep::SourceRoute(_)
            | WiringStep::SourceRule(_) => return Ok(()),
        };
        changes.push(Change::Address(change));
        Ok(())
    }

    fn find_pod_end(&mut self, kernel: &mut dyn Kernel, pairing: &Pairing) -> Result<(), WiringError> {
        let link = kernel.link(&pairing.pod).map_err(WiringError::Pod)?;
        let link = link.ok_or_else(|| WiringError::PodEndVanished(pairing.pod.clone()))?;
        self.pod_index = link.index;
        self.pod_mac = link.mac.unwrap_or_default();
        Ok(())
    }

    /// The same in the pod.
    fn on_pod(
        &mut self,
        kernel: &mut dyn Kernel,
        pairing: &Pairing,
        step: &WiringStep,
        changes: &mut Vec<Change>,
    ) -> Result<(), WiringError> {
        let pod = self.pod_index;
        let change = match step {
            WiringStep::Address(address) => {
                let family = Family::of(*address);
                let flags = match family {
                    Family::Ipv4 => AddressFlags::NONE,
                    Family::Ipv6 => AddressFlags::NO_DAD,
                };
                Change::Address(InterfaceAddress::new(pod, *address, family.bits()).with_flags(flags))
            }
            WiringStep::RaisePod => Change::Link(pod, LinkChange { up: Some(true), ..LinkChange::default() }),
            WiringStep::GatewayNeighbour(family) => {
                Change::Neighbour(Neighbour::permanent(pod, gateway(*family), HOST_MAC))
            }
            WiringStep::GatewayOnLink => {
                added(Route::on_link(Prefix::host(IpAddr::V4(GATEWAY_IPV4)), PROTOCOL_BOOT, pod))
            }
            WiringStep::DefaultRoute(family) => {
                let mut route = Route::via(Prefix::default_route(*family), PROTOCOL_BOOT, []);
                route.next_hops = vec![RouteNextHop { interface: Some(pod), ..RouteNextHop::via(gateway(*family)) }];
                added(route)
            }
            WiringStep::Sysctl(sysctl) => {
                make(kernel, changes).map_err(WiringError::Pod)?;
                return self.set(kernel, sysctl).map_err(WiringError::Pod);
            }
            WiringStep::AwaitCarrier(_) => {
                make(kernel, changes).map_err(WiringError::Pod)?;
                return await_carrier(kernel, &pairing.pod, WiringError::Pod);
            }
            WiringStep::SourceRoute(family) => added(source_routing::route(pod, *family)),
            WiringStep::SourceRule(address) => {
                make(kernel, changes).map_err(WiringError::Pod)?;
                let rule = source_routing::rule(pod, *address);
                source_routing::put(kernel, &rule).map_err(WiringError::Pod)?;
                self.take_back.push(TakeBack::DeleteRule(rule));
                return Ok(());
            }
            WiringStep::GatewayAddress
            | WiringStep::GatewayOfPair
            | WiringStep::MakePair
            | WiringStep::GatewayLinkLocal => return Ok(()),
        };
        changes.push(change);
        Ok(())
    }

    fn set(&mut self, kernel: &mut dyn Kernel, sysctl: &Sysctl) -> Result<(), KernelError> {
        let Sysctl { side, key, value, absent, undo } = sysctl;
        if *undo == Undo::Restore {
            let before = kernel.read_sysctl(key)?;
            if before == *value {
                return Ok(());
            }
            kernel.write_sysctl(key, value)?;
            self.take_back.push(TakeBack::WriteSysctl { side: *side, key: key.clone(), value: before });
            return Ok(());
        }
        match kernel.write_sysctl(key, value) {
            Err(KernelError::Gone(_)) if *absent == Absent::IsFine => Ok(()),
            outcome => outcome,
        }
    }
}

fn make_pair(host: &mut dyn Kernel, netns: &Netns, pairing: &Pairing) -> Result<u32, KernelError> {
    let made = host.create_veth(&VethSpec {
        host: pairing.host.clone(),
        host_mac: HOST_MAC,
        host_up: true,
        host_group: 0,
        peer: pairing.pod.clone(),
        peer_netns: netns,
        peer_mac: None,
        mtu: pairing.mtu,
    });
    if !matches!(made, Ok(_) | Err(KernelError::Exists(_)))
        && let Ok(Some(link)) = host.link(&pairing.host)
    {
        // The pair was made, but the index of its host end could not be learned then.
        host.delete_link(link.index)?;
    }
    made
}

fn raise(kernel: &mut dyn Kernel, index: u32) -> Result<(), KernelError> {
    kernel.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() })
}

fn lower(kernel: &mut dyn Kernel, index: u32) -> Result<(), KernelError> {
    kernel.change_link(index, &LinkChange { up: Some(false), ..LinkChange::default() })
}

/// Looks at a link until it runs, for a second at most.
fn await_carrier(
    kernel: &mut dyn Kernel,
    name: &InterfaceName,
    side: fn(KernelError) -> WiringError,
) -> Result<(), WiringError> {
    const LOOKS: u32 = 2_000;
    const BETWEEN: Duration = Duration::from_micros(500);
    for _ in 0..LOOKS {
        if kernel.link(name).map_err(side)?.is_some_and(|link| link.running) {
            return Ok(());
        }
        thread::sleep(BETWEEN);
    }
    Err(WiringError::NoCarrier(name.clone()))
}

/// Adds, never replaces: what is there belongs to another network.
const fn added(route: Route) -> Change {
    Change::Route(RouteChange::Add(route))
}

/// Why a pod could not be wired or unwired.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The runtime asks for an interface that the pod has already. Nothing was touched.
    #[error("CNI_IFNAME: {0} exists already in the pod's namespace")]
    InterfaceTaken(InterfaceName),
    /// An earlier ADD of this attachment still stands. Nothing was touched.
    #[error("host interface {0} is in use: this container's interface was added before and not deleted")]
    HostInterfaceTaken(InterfaceName),
    /// The pod's end was deleted or renamed between two steps.
    #[error("in the pod's namespace: {0} has vanished while it was being set up")]
    PodEndVanished(InterfaceName),
    /// The other end was taken down, or the kernel is very busy.
    #[error("interface {0} has no carrier a second after it was set up")]
    NoCarrier(InterfaceName),
    /// The kernel refuses a step on the node.
    #[error("on the node: {0}")]
    Host(#[source] KernelError),
    /// The kernel refuses a step in the pod.
    #[error("in the pod's namespace: {0}")]
    Pod(#[source] KernelError),
    /// A step failed, and then some steps before it could not be taken back.
    #[error("{error} (left behind: {})", list(.left))]
    LeftBehind {
        /// The error that came first.
        error: Box<Self>,
        /// The errors of the steps that could not be undone.
        left: Vec<Self>,
    },
}

impl WiringError {
    /// This error, with what its undoing could not clean up.
    #[must_use]
    pub fn with_left_behind(self, left: Vec<Self>) -> Self {
        if left.is_empty() { self } else { Self::LeftBehind { error: Box::new(self), left } }
    }

    /// In the terms of CNI: 4 for a taken CNI_IFNAME, 11 where the kernel is busy, 102 for the rest.
    pub fn into_cni(self) -> CniError {
        let code = match &self {
            Self::InterfaceTaken(_) => Code::InvalidEnvironment,
            Self::NoCarrier(_) | Self::Host(KernelError::Busy(_)) | Self::Pod(KernelError::Busy(_)) => Code::TryAgain,
            Self::HostInterfaceTaken(_)
            | Self::PodEndVanished(_)
            | Self::Host(_)
            | Self::Pod(_)
            | Self::LeftBehind { .. } => Code::Kernel,
        };
        CniError::new(code, self.to_string())
    }
}

fn list(errors: &[WiringError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
