//! The commands, from the runtime's request to the answer.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use kernel::{Kernel, KernelError, Linux};
use types::cni::{Attach, Collect, PROTOCOL, Wire};
use types::{EndpointId, Family};

use crate::args::{Attachment, Command};
use crate::check::check;
use crate::client::{Agent, AgentError, AnswerTimeLimit};
use crate::config::{self, NetworkConfig};
use crate::lease;
use crate::mapping::{self, Mapping, UnmapError};
use crate::parked_group;
use crate::plan::{Pairing, Sandbox};
use crate::result::Attached;
use crate::spec::{self, CniError, CniVersion, Code};
use crate::tombstone;
use crate::wiring::{self, PodSide, WiringError};

/// The least MTU of IPv6, in octets (RFC 8200 section 5).
const IPV6_LEAST_MTU: u32 = 1_280;

/// The longest configuration that is read, in octets: results of other plugins and what orchestrators add have room in it.
const MAX_CONFIG: u64 = 16 << 20;

/// The outcome of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For stdout: the result, the error object, or nothing.
    pub stdout: String,
    /// For stderr: what an operator should know of a success.
    pub notes: Vec<String>,
    /// Whether the exit code is 0.
    pub success: bool,
}

/// The kernels of the node and of pods, which tests replace.
pub trait Machine {
    /// The node's own.
    fn host(&self) -> Result<Box<dyn Kernel>, KernelError>;
    /// That of the pod whose namespace CNI_NETNS names.
    fn pod(&self, netns: &Path) -> Result<PodSide, CniError>;
}

/// The node that this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct Node;

impl Machine for Node {
    fn host(&self) -> Result<Box<dyn Kernel>, KernelError> {
        Ok(Box::new(Linux::open()?))
    }

    fn pod(&self, netns: &Path) -> Result<PodSide, CniError> {
        PodSide::open(netns)
    }
}

/// Serves one invocation: `variable` looks up the environment, `stdin` is read to its end.
pub fn run(variable: impl Fn(&str) -> Option<OsString>, stdin: &mut dyn Read, machine: &dyn Machine) -> Outcome {
    let command = match Command::from_environment(variable) {
        Ok(command) => command,
        Err(error) => return Outcome::failure(&error, CniVersion::LATEST),
    };
    let mut input = Vec::new();
    if let Err(error) = stdin.take(MAX_CONFIG + 1).read_to_end(&mut input) {
        let error = CniError::new(Code::Io, format!("cannot read the network configuration from stdin: {error}"));
        return Outcome::failure(&error, CniVersion::LATEST);
    }
    if input.len() as u64 > MAX_CONFIG {
        let msg = format!("the network configuration on stdin is longer than {MAX_CONFIG} octets");
        return Outcome::failure(&CniError::new(Code::Decode, msg), CniVersion::LATEST);
    }
    if command == Command::Version {
        return Outcome::success(spec::version_report(config::requested_version(&input).as_deref()));
    }
    let parsed = match &command {
        Command::Del(_) => NetworkConfig::parse_for_del(&input),
        _ => NetworkConfig::parse(&input),
    };
    let config = match parsed {
        Ok(config) => config,
        Err((version, error)) => return Outcome::failure(&error, version),
    };
    let outcome = match &command {
        Command::Add { attachment, netns } => match &config.lease {
            Some(lease) => lease::add(&config, lease, attachment),
            None => add(&config, attachment, netns, machine),
        },
        Command::Del(attachment) => del(&config, attachment, machine),
        Command::Status => status(&config).map(|()| Outcome::success(String::new())),
        Command::Check { attachment, netns } => since(CniVersion::V0_4_0, &config, "CHECK")
            .and_then(|()| match &config.lease {
                Some(_) => lease::check(&config, &endpoint_id(&config, attachment)),
                None => check(&config, &endpoint_id(&config, attachment), netns, &attachment.plugins, machine),
            })
            .map(|notes| Outcome { notes, ..Outcome::success(String::new()) }),
        Command::Gc => gc(&config).map(|()| Outcome::success(String::new())),
        Command::Version => Ok(Outcome::success(String::new())),
    };
    outcome.unwrap_or_else(|error| Outcome::failure(&error, config.version))
}

impl Outcome {
    pub(crate) const fn success(stdout: String) -> Self {
        Self { stdout, notes: Vec::new(), success: true }
    }

    fn failure(error: &CniError, version: CniVersion) -> Self {
        Self { stdout: error.to_json(version), notes: Vec::new(), success: false }
    }
}

/// ADD: addresses from the agent, the pair, the routes from the agent, then host ports; in this order back on failure.
fn add(
    config: &NetworkConfig,
    attachment: &Attachment,
    netns: &Path,
    machine: &dyn Machine,
) -> Result<Outcome, CniError> {
    config.refuse_wishes(attachment)?;
    let named = attachment.pod()?;
    let mut pod = machine.pod(netns)?;
    let mut host = machine.host().map_err(|error| WiringError::Host(error).into_cni())?;
    let host = host.as_mut();
    let id = endpoint_id(config, attachment);
    // Before its link, whose routes they lead to: an ADD of this id that was not undone.
    mapping::unmap(&config.mapped(), &id, &attachment.plugins).map_err(UnmapError::into_cni)?;
    wiring::clear_remains(host, &id.host_interface()).map_err(WiringError::into_cni)?;
    let mut sandbox = wiring::survey(&mut pod, &attachment.interface).map_err(WiringError::into_cni)?;
    let mut agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::ADD).map_err(AgentError::into_cni)?;
    let asked = agent.attach(Attach {
        protocol: PROTOCOL,
        id: id.clone(),
        pod: named,
        labels: config.labels.clone(),
        ports: config.ports.clone(),
        maps_host_ports: true,
        addresses_for: None,
    });
    // While the agent looks for addresses.
    let begun = wiring::begin(&mut pod, &mut sandbox).map_err(WiringError::into_cni)?;
    let answer = agent.wire(asked).map_err(AgentError::into_cni).and_then(|mut wire| {
        let host_ports = std::mem::take(&mut wire.host_ports);
        let notes = unmap_stale(config, attachment, &wire)?;
        let hears_made = wire.hears_made;
        Ok((pairing(wire, &id, sandbox, config.mtu)?, host_ports, notes, hears_made))
    });
    let (pairing, host_ports, notes, hears_made) = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(with_left_behind(error, &begun.undo(host, &mut pod))),
    };

    let mut made = None;
    let tell = || made = hears_made.then(|| agent.made());
    let wired = begun.wire(host, &mut pod, &pairing, tell).map_err(WiringError::into_cni)?;
    let sandbox = netns.to_string_lossy();
    let attached =
        Attached { pairing: &pairing, pod_mac: wired.pod_mac(), sandbox: &sandbox, dns: config.dns.as_ref() };
    let answer = attached
        .to_json(config.version, config.previous.clone())
        .and_then(|result| agent.wired(made).map(|()| result).map_err(AgentError::into_cni));
    let result = answer.map_err(|error| with_left_behind(error, &wired.undo(host, &mut pod)))?;
    // That conversation is over; taking back would be one of its own.
    drop(agent);
    if !host_ports.is_empty() {
        // Now that the routes are in the kernel: by them portmap finds the host's end of the pair.
        let mapped = Mapping::new(&id, attachment, &attached, host_ports)
            .and_then(|mapping| mapping.make(&config.mapped(), netns));
        mapped.map_err(|error| match take_back(config, attachment, &id, host) {
            Ok(_) => error,
            Err(left) => error.with_details(format!("left behind: {left}")),
        })?;
    }
    Ok(Outcome { notes, ..Outcome::success(result) })
}

fn with_left_behind(error: CniError, left: &[WiringError]) -> CniError {
    if left.is_empty() {
        return error;
    }
    let left: Vec<_> = left.iter().map(ToString::to_string).collect();
    error.with_details(format!("left behind: {}", left.join("; ")))
}

/// Unmaps the host ports of attachments that have gone without it. One that stays does no harm unless it leads to this pod.
pub(crate) fn unmap_stale(
    config: &NetworkConfig,
    attachment: &Attachment,
    wire: &Wire,
) -> Result<Vec<String>, CniError> {
    let mut notes = Vec::new();
    for stale in &wire.stale_mappings {
        match mapping::unmap(&config.mapped(), stale, &attachment.plugins) {
            Ok(_) => {}
            Err(error) if error.concerns(&wire.addresses) => return Err(error.into_cni()),
            Err(error) => notes.push(error.to_string()),
        }
    }
    Ok(notes)
}

/// DEL: with the agent, or without. It fails only if the kernel does not let go of the link, or portmap not of host ports: both
/// would lead to whoever has the pod's address next.
fn del(config: &NetworkConfig, attachment: &Attachment, machine: &dyn Machine) -> Result<Outcome, CniError> {
    let id = endpoint_id(config, attachment);
    let mut host = machine.host().map_err(|error| WiringError::Host(error).into_cni())?;
    take_back(config, attachment, &id, host.as_mut())
}

fn take_back(
    config: &NetworkConfig,
    attachment: &Attachment,
    id: &EndpointId,
    host: &mut dyn Kernel,
) -> Result<Outcome, CniError> {
    mapping::unmap(&config.mapped(), id, &attachment.plugins).map_err(UnmapError::into_cni)?;
    match detach(config, id, host) {
        Ok(()) => {
            // An earlier DEL may have left a tombstone, by which the agent would take a later attachment of this id down.
            let folder = config.tombstones();
            let stays = tombstone::remove(&folder, id).err();
            let notes = stays.map(|error| format!("the tombstone of {id} in {} stays: {error}", folder.display()));
            Ok(Outcome { notes: notes.into_iter().collect(), ..Outcome::success(String::new()) })
        }
        Err(DetachError::Wiring(error)) => Err(error.into_cni()),
        Err(DetachError::Agent(error)) => {
            let group = parked_group::read(&config.run_dir);
            wiring::park(host, &id.host_interface(), group).map_err(WiringError::into_cni)?;
            let mut notes = vec![format!("{error}; {} is left for the agent to reap", id.host_interface())];
            notes.extend(bury(config, id, &error, host));
            Ok(Outcome { notes, ..Outcome::success(String::new()) })
        }
    }
}

fn detach(config: &NetworkConfig, id: &EndpointId, host: &mut dyn Kernel) -> Result<(), DetachError> {
    let mut agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::DEL)?;
    match agent.detach(id.clone())? {
        Some(park) => {
            wiring::park(host, &park.host_interface, park.parked_group)?;
            agent.parked()?;
        }
        None => wiring::delete_orphan(host, &id.host_interface())?,
    }
    Ok(())
}

/// Leaves a tombstone; what went wrong, for stderr. On a full disk there is none: the agent then finds an endpoint
/// without a link when it starts.
fn bury(config: &NetworkConfig, id: &EndpointId, why: &AgentError, host: &mut dyn Kernel) -> Option<String> {
    let folder = config.tombstones();
    if let Err(error) = tombstone::write(&folder, id) {
        return Some(format!("no tombstone for {id} in {}: {error}", folder.display()));
    }
    // An agent that has started meanwhile may have looked for tombstones before this one was there.
    if matches!(why, AgentError::Absent { .. }) && detach(config, id, host).is_ok() {
        // A tombstone that stays behind only makes the agent release what is released already.
        let _ = tombstone::remove(&folder, id);
    }
    None
}

/// Why a DEL did not go through with the agent.
#[derive(Debug, thiserror::Error)]
enum DetachError {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
}

/// STATUS: no output where an ADD would be served, else an error of code 50, or 51 where pods that are there suffer too.
fn status(config: &NetworkConfig) -> Result<(), CniError> {
    since(CniVersion::V1_1_0, config, "STATUS")?;
    let agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::STATUS);
    agent.and_then(|mut agent| agent.status()).map_err(AgentError::into_status)
}

/// GC: nothing is left of the network's attachments but what the runtime lists. What fails does not keep the rest.
fn gc(config: &NetworkConfig) -> Result<(), CniError> {
    since(CniVersion::V1_1_0, config, "GC")?;
    let valid = config.valid_attachments()?;
    // First, as in a DEL: when addresses are free, no host port leads to them any more.
    let stays = mapping::unmap_all(&config.mapped(), |id| {
        id.network == config.name && !valid.contains(&(id.container.clone(), id.interface.clone()))
    });
    let collect = Collect { protocol: PROTOCOL, network: config.name.clone(), valid };
    let agent = Agent::connect(&config.agent_socket, AnswerTimeLimit::GC);
    agent.and_then(|mut agent| agent.collect(collect)).map_err(AgentError::into_cni)?;
    let stays = stays.map_err(|error| CniError::new(Code::Io, error.to_string()))?;
    match stays.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(first.into_cni()),
    }
}

/// Whether the configuration's version has the command (code 1).
fn since(first: CniVersion, config: &NetworkConfig, command: &str) -> Result<(), CniError> {
    if config.version >= first {
        return Ok(());
    }
    let msg = format!("{command} needs cniVersion {first}, the config says {}", config.version);
    Err(CniError::new(Code::IncompatibleVersion, msg))
}

pub(crate) fn endpoint_id(config: &NetworkConfig, attachment: &Attachment) -> EndpointId {
    EndpointId {
        network: config.name.clone(),
        container: attachment.container.clone(),
        interface: attachment.interface.clone(),
    }
}

/// Checks what the agent wants made: DEL without an agent relies on the host interface's name.
fn pairing(wire: Wire, id: &EndpointId, sandbox: Sandbox, mtu: Option<u32>) -> Result<Pairing, CniError> {
    let wrong = |what: String| CniError::new(Code::Protocol, format!("the agent wants {what}"));
    let expected = id.host_interface();
    if wire.host_interface != expected {
        return Err(wrong(format!("host interface {} instead of {expected}", wire.host_interface)));
    }
    let families: Vec<_> = wire.addresses.iter().map(|address| Family::of(*address)).collect();
    if !matches!(families.as_slice(), [_]) && !matches!(families.as_slice(), [one, other] if one != other) {
        return Err(wrong(format!("addresses {:?} instead of one per family", wire.addresses)));
    }
    let Wire { host_interface: host, addresses, mtu: most, .. } = wire;
    let mtu = mtu.unwrap_or(most);
    if mtu > most {
        let msg = format!("mtu={mtu} is not supported: more than {most} octets do not fit through this node's network");
        return Err(CniError::new(Code::UnsupportedField, msg));
    }
    if mtu < IPV6_LEAST_MTU && families.contains(&Family::Ipv6) {
        let msg =
            format!("mtu={mtu} is not supported: the pod has IPv6, which needs {IPV6_LEAST_MTU} octets (RFC 8200)");
        return Err(CniError::new(Code::UnsupportedField, msg));
    }
    Ok(Pairing { host, pod: id.interface.clone(), addresses, mtu, sandbox })
}

#[cfg(test)]
mod tests;
