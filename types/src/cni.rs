//! What the CNI binary and the agent say to each other over `/run/manx/cni.sock`.
//!
//! One connection per invocation; each message is a JSON object behind its length (four octets, big-endian).
//!
//! ```text
//! ADD      binary: Attach   agent: Wire | Refused     (address reserved, policy joined)
//!          binary: Made                               (the host's end is there; the pod's is being set up meanwhile)
//!                           agent: Done | Refused     (route in the kernel, journal committed)
//!          binary: Wired                              (the pod's end is there too)
//! DEL      binary: Detach   agent: Park | Done        (route gone; Done where the agent knows no such link)
//!          binary: Parked   agent: Done               (address released)
//! CHECK    binary: Check    agent: Wire | Refused     (what the agent has of the attachment, which is in force)
//! GC       binary: Collect  agent: Done | Refused     (nothing is left of what is not listed)
//! STATUS   binary: Status   agent: Done | Refused
//! ```
//!
//! An agent that does not say in `Wire` that it hears `Made` is an older one: it waits for `Wired`, and answers that with `Done`.
//! The agent of today answers the binary before this one in the same way.
//!
//! A connection that ends before its last message is an abort: the agent undoes what the conversation had reached. Every first
//! message carries the protocol's version; an agent speaks its own and the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host_ports::HostPort;
use crate::{ContainerId, EndpointId, EndpointPort, InterfaceName, LinkKind, NetworkName, PodRef, Subnet};

/// The version of the conversation that this build speaks.
pub const PROTOCOL: u32 = 1;

/// The longest message, in octets. Whoever announces a longer one is broken.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Where the socket lies under the agent's run folder (`/run/manx`).
pub const SOCKET: &str = "cni.sock";

/// The CNI configuration that is ours in the runtime's folder (`/etc/cni/net.d`), by its place among others' there.
pub const CONFLIST: &str = "10-manx.conflist";

/// What the agent calls such a file once it has put aside one that was damaged: no runtime reads it.
pub const DAMAGED_CONFLIST: &str = "10-manx.conflist.damaged";

/// The name of the binary, which is the `type` of its plugin objects too.
pub const PLUGIN: &str = "manx";

/// What the binary's answer to VERSION says beside what the CNI spec wants: its own version, and [`PROTOCOL`].
pub const VERSION_KEY: &str = "manx.io/version";

/// See [`VERSION_KEY`].
pub const PROTOCOL_KEY: &str = "manx.io/protocol";

/// The folder of tombstones under the agent's run folder: one file per attachment that a DEL ended without an agent.
/// The file's name is the host interface's, its content the [`EndpointId`] as text.
pub const RELEASED: &str = "released";

/// The folder under the agent's run folder that says which host ports are mapped: one file per attachment, named after the host's
/// interface.
pub const MAPPED: &str = "mapped";

/// The file under the run folder that has the number of the group of parked links (`kernel.linkGroup`), for DELs that no agent
/// answers.
pub const PARKED_GROUP: &str = "parked-group";

/// The next hop that pods have on IPv4: answered by proxy ARP on every host interface.
pub const GATEWAY_IPV4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);

/// The MAC address of the host's end of every pair. The same everywhere, so that a pod's neighbour entry stays true.
pub const HOST_MAC: [u8; 6] = [0xee; 6];

/// The link-local address that follows from [`HOST_MAC`] (RFC 4291 appendix A): the pods' next hop on IPv6.
pub const GATEWAY_IPV6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// What the binary says to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Request {
    /// ADD: reserve addresses for this attachment.
    Attach(Attach),
    /// ADD: the host's end is up; install the routes while the pod's end is set up.
    Made,
    /// ADD: the pair is up. Where [`Request::Made`] was not said before: install the routes.
    Wired,
    /// DEL: take the routes away and say where to park the link.
    Detach(Detach),
    /// DEL: the link is down and in its group, or was gone already.
    Parked,
    /// CHECK: is the attachment in force?
    Check(Check),
    /// GC: release what is not listed.
    Collect(Collect),
    /// STATUS: would ADD work?
    Status {
        /// See [`PROTOCOL`].
        protocol: u32,
    },
}

/// What an ADD asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// The attachment to make.
    pub id: EndpointId,
    /// The pod that the runtime named.
    pub pod: PodRef,
    /// Labels from `args.cni.labels` (without Kubernetes).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Named ports from `args.cni["manx.io/ports"]` (without Kubernetes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// Whether the binary maps host ports that the agent names ([`Wire::host_ports`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maps_host_ports: bool,
    /// Another plugin makes a link of this kind, and asks for addresses alone (CNI spec section 4): there is nothing to wire, and
    /// `Wired` follows at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses_for: Option<LinkKind>,
}

/// What a DEL asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// The attachment to undo.
    pub id: EndpointId,
}

/// What a CHECK asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// The attachment to look at.
    pub id: EndpointId,
}

/// What a GC asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// The network whose attachments are meant.
    pub network: NetworkName,
    /// Those of the network that stay: container and interface.
    pub valid: BTreeSet<(ContainerId, InterfaceName)>,
}

/// What the agent answers to the binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Reply {
    /// ADD: make the pair like this. CHECK: so it was made.
    Wire(Wire),
    /// DEL: set the link down and put it into this group.
    Park(Park),
    /// What was asked for is in force.
    Done,
    /// What was asked for is not in force, and nothing is left of the attempt.
    Refused(Refused),
}

/// How the pair is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// The host's end.
    pub host_interface: InterfaceName,
    /// The pod's addresses: one per family that the node's pools serve.
    pub addresses: Vec<IpAddr>,
    /// The subnets of the addresses, in their order, where another plugin wires ([`Attach::addresses_for`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// The MTU of both ends, in octets.
    pub mtu: u32,
    /// The link group that parked links are in: a link of this name found there is the remains of an earlier DEL.
    pub parked_group: u32,
    /// The host ports to be mapped to the pod once its routes are in the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// Attachments that are gone, but whose host ports are still mapped: to be unmapped first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale_mappings: Vec<EndpointId>,
    /// Whether the agent hears [`Request::Made`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hears_made: bool,
}

/// Where a detached link waits to be deleted with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    /// The host's end.
    pub host_interface: InterfaceName,
    /// The link group to put the link into.
    pub parked_group: u32,
}

/// An error in the terms of the CNI spec (section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}")]
pub struct Refused {
    /// The CNI error code.
    pub code: u32,
    /// What went wrong, naming the culprit.
    pub msg: String,
}

/// CNI error codes (CNI spec section 5) that cross the socket.
pub mod code {
    /// The failure is transient: the runtime may try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// The plugin cannot serve ADD now.
    pub const UNAVAILABLE: u32 = 50;
    /// ADD cannot be served now, and pods that are there may be cut off from a part of the network.
    pub const LIMITED: u32 = 51;
    /// Our own code: the agent failed for a reason that another attempt may not cure.
    pub const AGENT: u32 = 100;
    /// Our own code: binary and agent do not speak the same version of the protocol.
    pub const PROTOCOL: u32 = 101;
}

/// One message, as it goes over the socket.
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).ok().filter(|len| *len as usize <= MAX_MESSAGE);
    let len = len.ok_or(FrameError::TooLong(body.len()))?;
    let mut framed = Vec::with_capacity(4 + body.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(&body);
    Ok(framed)
}

/// The length that the first four octets of a message announce.
pub fn announced(header: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(header) as usize;
    if len > MAX_MESSAGE { Err(FrameError::TooLong(len)) } else { Ok(len) }
}

/// Reads one message from a blocking stream.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; announced(header)?];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// Writes one message to a blocking stream.
pub fn write<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), FrameError> {
    Ok(stream.write_all(&frame(message)?)?)
}

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed or ended.
    #[error("the conversation broke: {0}")]
    Io(#[from] io::Error),
    /// The body of a message is not what was expected.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("message of {0} octets is longer than {MAX_MESSAGE}")]
    TooLong(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_socket_and_a_huge_announcement_is_refused() {
        let request = Request::Detach(Detach { protocol: PROTOCOL, id: "net/c1/eth0".parse().unwrap() });
        let framed = frame(&request).unwrap();
        assert_eq!(read::<Request>(&mut framed.as_slice()).unwrap(), request);
        assert!(matches!(read::<Request>(&mut &[0xff; 8][..]), Err(FrameError::TooLong(_))));
        assert!(matches!(read::<Request>(&mut &framed[..10]), Err(FrameError::Io(_))));
    }
}
