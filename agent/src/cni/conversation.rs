//! The agent's side of `types::cni`: one conversation per connection, each in its own task.
//!
//! An ADD goes through reserve, policy (while the binary wires: until a pod has its policy the kernel drops what it
//! sends), route and commit (while the binary sets up the pod's end), answer, and ends when the binary is done; whatever ends it
//! early undoes the steps behind it in reverse. A DEL takes the route away, lets the binary park the link, takes policy and
//! addresses back. The steps themselves belong to ipam and felix; this module is their order. Conversations about one attachment
//! take turns.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::future::{self, Either};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use ipam::{Description, Request as Reservation, ReserveError};
use types::cni::{self, Attach, Check, Collect, Detach, FrameError, Park, Refused, Reply, Request, Wire, code};
use types::host_ports::{HostPort, WISH_ANNOTATION, Wanted};
use types::{EndpointId, LinkKind, WorkloadEndpoint};

use super::attachments::Attachments;
use super::host_ports::{Ask, HostPortError};
use super::links::Presence;
use super::tombstones;
use crate::policy::facts;
use crate::policy::pods::Identity;

/// How long the binary may say nothing: then it is gone or stuck, as wiring takes a millisecond.
const BINARY_SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// How long policy may take to be in force once the pair is wired: shorter than the binary waits for the answer
/// (`AnswerTimeLimit::ADD` in crate `cni`, 15 s), so that the runtime is told why and nothing is left when it comes with the DEL.
const POLICY_WAIT: Duration = Duration::from_secs(10);

/// The interface that host ports lead to: the one that runtimes give every pod. A pod may have others, by other networks.
const HOST_PORTS_INTERFACE: &str = "eth0";

impl Attachments {
    /// Holds one conversation to its end.
    pub(crate) async fn converse(self, mut stream: UnixStream) {
        let outcome = match receive(&mut stream).await {
            Ok(Request::Attach(attach)) => self.attach(&mut stream, attach).await,
            Ok(Request::Detach(detach)) => self.detach(&mut stream, detach).await,
            Ok(Request::Check(Check { protocol, id })) => self.check(&mut stream, protocol, &id).await,
            Ok(Request::Collect(collect)) => self.gc(&mut stream, collect).await,
            Ok(Request::Status { protocol }) => self.status(&mut stream, protocol).await,
            Ok(Request::Made | Request::Wired | Request::Parked) => Err(ConversationError::OutOfOrder),
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(()) => {}
            Err(ConversationError::Refused(refused)) => {
                warn!(code = refused.code, reason = %refused, "a request of the CNI binary is refused");
                // If the binary is gone, nobody waits for the refusal.
                let _ = send(&mut stream, &Reply::Refused(refused)).await;
            }
            Err(error) => warn!(%error, "a conversation with the CNI binary ended early"),
        }
    }

    async fn attach(&self, stream: &mut UnixStream, attach: Attach) -> Result<(), ConversationError> {
        speak_same(attach.protocol)?;
        let Attach { id, pod, labels, ports, maps_host_ports, addresses_for: link, .. } = attach;
        let stated = Description { labels, ports, finished: false };
        let Some(identity) = self.identities.of(&pod, stated).await else {
            let msg = format!("the API server has not told this node of pod {pod} yet");
            return Err(ConversationError::Refused(Refused { code: code::TRY_AGAIN, msg }));
        };
        let wish = host_ports_of(&id, &identity, maps_host_ports, link)?;
        let Identity { description: Description { labels, ports, .. }, uid, named_host_ports, .. } = identity;
        let _turn = self.turns.at(&id.host_interface()).await;
        still_there(stream, &id)?;
        tombstones::make_good(self, &id).await;
        let reservation = Reservation { pod, labels, ports, link };
        let reserved = match self.ipam.reserve(id.clone(), reservation.clone()).await {
            Err(ReserveError::AlreadyAttached(_) | ReserveError::UnderWay(_)) => {
                self.clear(&id).await?;
                self.ipam.reserve(id.clone(), reservation).await
            }
            reserved => reserved,
        };
        let endpoint = reserved.map_err(refuse_reservation)?;
        let outcome = async {
            let host_ports = match wish {
                None => Vec::new(),
                Some(wanted) => {
                    let ask = Ask { endpoint: endpoint.clone(), uid, wanted, named: named_host_ports };
                    self.host_ports.give(ask).await.map_err(refuse_host_ports)?
                }
            };
            self.wire(stream, &endpoint, host_ports).await
        }
        .await;
        if outcome.is_err() {
            self.undo(&endpoint).await;
        } else {
            info!(endpoint = %id, pod = %endpoint.pod, addresses = ?endpoint.addresses, "a pod is attached");
            self.identities.attached(id).await;
        }
        outcome
    }

    /// An attachment of before, of which no DEL has told: one that serves a pod stays, of any other nothing does.
    async fn clear(&self, id: &EndpointId) -> Result<(), Refused> {
        let Some(endpoint) = self.ipam.endpoint(id.clone()).await else { return Ok(()) };
        if endpoint.is_wired_elsewhere() {
            // Nothing tells whether it serves a pod.
            let msg = format!("endpoint {id} has addresses already, by another plugin: delete it first");
            return Err(Refused { code: code::AGENT, msg });
        }
        let link = self.host.link(endpoint.host_interface.clone()).await;
        match link.map_err(|error| Refused { code: code::AGENT, msg: error.to_string() })? {
            Presence::Up => {
                let msg = format!("endpoint {id} is attached already, to {}: delete it first", endpoint.host_interface);
                Err(Refused { code: code::AGENT, msg })
            }
            Presence::Down | Presence::Gone => {
                self.undo(&endpoint).await;
                Ok(())
            }
        }
    }

    /// From the reservation to the answer; the caller undoes on failure.
    async fn wire(
        &self,
        stream: &mut UnixStream,
        endpoint: &WorkloadEndpoint,
        host_ports: Vec<HostPort>,
    ) -> Result<(), ConversationError> {
        let stale_mappings = self.host_ports.stale().await;
        let wire = Wire {
            host_interface: endpoint.host_interface.clone(),
            addresses: endpoint.addresses.clone(),
            subnets: endpoint.subnets.clone(),
            mtu: *self.mtu.borrow(),
            parked_group: self.parked_group,
            host_ports,
            stale_mappings,
            hears_made: true,
        };
        send(stream, &Reply::Wire(wire)).await?;
        // Policy comes into force while the binary wires.
        let mut policed = pin!(self.acl.attach(endpoint.id.clone(), facts::of_endpoint(endpoint.clone())));
        let (wired, early) = {
            match future::select(pin!(receive(stream)), policed.as_mut()).await {
                Either::Left((wired, _)) => (wired, None),
                Either::Right((policed, wired)) => (wired.await, Some(policed)),
            }
        };
        let is_wired = match wired? {
            Request::Made => false,
            Request::Wired => true,
            _ => return Err(ConversationError::OutOfOrder),
        };
        let policed = async {
            let policed = match early {
                Some(policed) => policed,
                None => {
                    let policed = tokio::time::timeout(POLICY_WAIT, policed).await;
                    policed.map_err(|_| self.not_policed(&endpoint.id))?
                }
            };
            policed.map_err(|error| refuse(code::TRY_AGAIN, &error))
        };
        let routed = async { self.route(endpoint).await.map_err(|error| refuse(code::AGENT, &error)) };
        let committed =
            async { self.ipam.commit(endpoint.id.clone()).await.map_err(|error| refuse(code::TRY_AGAIN, &error)) };
        tokio::select! {
            completed = future::try_join3(policed, routed, committed) => completed?,
            // Whatever was asked of ipam, felix and policy by then, they hear before what the caller asks to undo it.
            error = interrupted(stream, &endpoint.id) => return Err(error),
        };
        send(stream, &Reply::Done).await?;
        if is_wired {
            return Ok(());
        }
        match receive(stream).await? {
            Request::Wired => Ok(()),
            _ => Err(ConversationError::OutOfOrder),
        }
    }

    fn not_policed(&self, id: &EndpointId) -> Refused {
        let seconds = POLICY_WAIT.as_secs();
        let mut msg = format!("policies of endpoint {id} are not in force after {seconds} s");
        for reason in self.acl.readiness().borrow().iter() {
            msg = format!("{msg}; {reason}");
        }
        Refused { code: code::TRY_AGAIN, msg }
    }

    async fn detach(&self, stream: &mut UnixStream, detach: Detach) -> Result<(), ConversationError> {
        speak_same(detach.protocol)?;
        let id = detach.id;
        let _turn = self.turns.at(&id.host_interface()).await;
        still_there(stream, &id)?;
        let endpoint = self.ipam.endpoint(id.clone()).await;
        if let Some(endpoint) = &endpoint {
            let detached = self.routes.detach(endpoint.addresses.clone()).await;
            detached.map_err(|error| refuse(code::AGENT, &error))?;
        }
        let outcome = self.park(stream, &id).await;
        match (&outcome, endpoint) {
            // The link is still up: the pod keeps what it has until the runtime asks again.
            (Err(_), Some(endpoint)) => {
                if let Err(error) = self.route(&endpoint).await {
                    debug!(endpoint = %id, %error, "routes of an abandoned detachment are not restored");
                }
            }
            (Ok(()), endpoint) => {
                // Before the release: nothing of this pod is in a set when its address can be another's.
                self.acl.detach(id.clone()).await.map_err(|error| refuse(code::AGENT, &error))?;
                self.ipam.release(id.clone()).await.map_err(|error| refuse(code::AGENT, &error))?;
                self.host_ports.release(&id).await;
                self.reap();
                send(stream, &Reply::Done).await?;
                if let Some(endpoint) = endpoint {
                    info!(endpoint = %id, pod = %endpoint.pod, "a pod is detached");
                }
            }
            (Err(_), None) => {}
        }
        outcome
    }

    async fn park(&self, stream: &mut UnixStream, id: &EndpointId) -> Result<(), ConversationError> {
        let park = Park { host_interface: id.host_interface(), parked_group: self.parked_group };
        send(stream, &Reply::Park(park)).await?;
        match receive(stream).await? {
            Request::Parked => Ok(()),
            _ => Err(ConversationError::OutOfOrder),
        }
    }

    async fn status(&self, stream: &mut UnixStream, protocol: u32) -> Result<(), ConversationError> {
        speak_same(protocol)?;
        let unready = self.readiness.reasons();
        if unready.is_empty() {
            return Ok(send(stream, &Reply::Done).await?);
        }
        let code = if self.readiness.limits_pods() { code::LIMITED } else { code::UNAVAILABLE };
        Err(ConversationError::Refused(Refused { code, msg: unready.join("; ") }))
    }

    async fn check(&self, stream: &mut UnixStream, protocol: u32, id: &EndpointId) -> Result<(), ConversationError> {
        speak_same(protocol)?;
        let wire = self.verify(id).await?;
        Ok(send(stream, &Reply::Wire(wire)).await?)
    }

    async fn gc(&self, stream: &mut UnixStream, collect: Collect) -> Result<(), ConversationError> {
        speak_same(collect.protocol)?;
        self.collect(collect).await?;
        Ok(send(stream, &Reply::Done).await?)
    }
}

/// Why a conversation did not end with `Done`.
#[derive(Debug, thiserror::Error)]
enum ConversationError {
    /// The binary is told why.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The binary has gone, or has sent something that is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The binary says the right thing at the wrong time.
    #[error("the CNI binary has sent a message that may not come at this point of the conversation")]
    OutOfOrder,
    /// The binary is gone while its answer is being made.
    #[error("the binary left before it was done with endpoint {0}")]
    Left(EndpointId),
}

fn speak_same(protocol: u32) -> Result<(), Refused> {
    if protocol == cni::PROTOCOL {
        return Ok(());
    }
    let msg =
        format!("the binary speaks protocol {protocol}, the agent {}; install both of one version", cni::PROTOCOL);
    Err(Refused { code: code::PROTOCOL, msg })
}

fn refuse(code: u32, error: &dyn std::error::Error) -> Refused {
    Refused { code, msg: error.to_string() }
}

/// The container ports that are to have host ports; none: the pod asks for none, or this is not its interface for them.
fn host_ports_of(
    id: &EndpointId,
    identity: &Identity,
    can_map: bool,
    link: Option<LinkKind>,
) -> Result<Option<Wanted>, Refused> {
    if id.interface.as_str() != HOST_PORTS_INTERFACE {
        return Ok(None);
    }
    let wanted = identity.host_ports.wanted().map_err(|error| refuse(code::AGENT, &error))?;
    if wanted.is_some() && link.is_some() {
        let msg = format!(
            "the pod has the annotation {WISH_ANNOTATION}, but another plugin makes its interface, to which Manx maps no host ports"
        );
        return Err(Refused { code: code::AGENT, msg });
    }
    if wanted.is_some() && !can_map {
        let msg = format!(
            "the pod has the annotation {WISH_ANNOTATION}, but the CNI binary is older than the agent and maps no host ports"
        );
        return Err(Refused { code: code::PROTOCOL, msg });
    }
    Ok(wanted)
}

fn refuse_host_ports(error: HostPortError) -> Refused {
    refuse(code::TRY_AGAIN, &error)
}

fn refuse_reservation(error: ReserveError) -> Refused {
    refuse(code::TRY_AGAIN, &error)
}

async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, FrameError> {
    let silent = || FrameError::Io(io::Error::new(io::ErrorKind::TimedOut, "the other end says nothing"));
    tokio::time::timeout(BINARY_SILENCE_LIMIT, read(stream)).await.map_err(|_| silent())?
}

async fn read<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, FrameError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; cni::announced(header)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// After a wait: a binary that has left meanwhile is done for, and whatever it asked for may be of a life that is over.
fn still_there(stream: &UnixStream, id: &EndpointId) -> Result<(), ConversationError> {
    match stream.try_read(&mut [0]) {
        Ok(0) => Err(ConversationError::Left(id.clone())),
        Ok(_) => Err(ConversationError::OutOfOrder),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(FrameError::Io(error).into()),
    }
}

/// Ends when the binary leaves, or speaks though it is not its turn.
async fn interrupted(stream: &mut UnixStream, id: &EndpointId) -> ConversationError {
    match stream.read_u8().await {
        Ok(_) => ConversationError::OutOfOrder,
        Err(_) => ConversationError::Left(id.clone()),
    }
}

async fn send<T: Serialize + Sync>(stream: &mut UnixStream, message: &T) -> Result<(), FrameError> {
    Ok(stream.write_all(&cni::frame(message)?).await?)
}

#[cfg(test)]
mod tests;
