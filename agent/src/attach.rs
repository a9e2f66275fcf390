//! The agent's side of `types::cni`: one conversation per connection, each in its own task.
//!
//! An ADD goes through reserve, policy (while the binary wires: until a pod has its policy the kernel drops what it
//! sends), route, commit, answer; whatever ends it early undoes the steps behind it in reverse. A DEL takes the route away,
//! lets the binary park the link, takes policy and addresses back. The steps themselves belong to ipam and felix; this
//! module is their order.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use felix::Felix;
use felix::acl::Acl;
use ipam::{Description, Ipam, Request as Reservation, ReserveError};
use types::cni::{self, Attach, Detach, FrameError, Park, Refused, Reply, Request, Wire, code};
use types::{EndpointId, WorkloadEndpoint};

use crate::peers::facts;
use crate::pods::Identities;
use crate::readiness::Readiness;
use crate::tasks;

/// What every conversation needs.
#[derive(Clone)]
pub(crate) struct Attachments {
    /// Addresses and endpoints.
    pub(crate) ipam: Ipam,
    /// Routes.
    pub(crate) felix: Felix,
    /// Policy.
    pub(crate) acl: Acl,
    /// Who the pods are.
    pub(crate) identities: Identities,
    /// The MTU for pods' interfaces.
    pub(crate) mtu: watch::Receiver<u32>,
    /// The group of parked links.
    pub(crate) parked_group: u32,
    /// Told when a link was parked.
    pub(crate) parked: mpsc::Sender<()>,
    /// What keeps ADD from being served, if anything.
    pub(crate) readiness: Readiness,
}

/// A binary that says nothing for so long is gone or stuck; wiring takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(30);

impl Attachments {
    /// Holds one conversation to its end.
    pub(crate) async fn converse(self, mut stream: UnixStream) {
        let outcome = match receive(&mut stream).await {
            Ok(Request::Attach(attach)) => self.attach(&mut stream, attach).await,
            Ok(Request::Detach(detach)) => self.detach(&mut stream, detach).await,
            Ok(Request::Status { protocol }) => self.status(&mut stream, protocol).await,
            Ok(Request::Wired | Request::Parked) => Err(ConversationError::OutOfOrder),
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(()) => {}
            Err(ConversationError::Refused(refused)) => {
                warn!(code = refused.code, reason = %refused, "refused");
                // If the binary is gone, nobody waits for the refusal.
                let _ = send(&mut stream, &Reply::Refused(refused)).await;
            }
            Err(error) => warn!(%error, "conversation ended early"),
        }
    }

    async fn attach(&self, stream: &mut UnixStream, attach: Attach) -> Result<(), ConversationError> {
        speak_same(attach.protocol)?;
        let Attach { id, pod, labels, ports, .. } = attach;
        let stated = Description { labels, ports, finished: false };
        let Some(Description { labels, ports, .. }) = self.identities.of(&pod, stated).await else {
            let msg = format!("the API server has not told this node of pod {pod} yet");
            return Err(ConversationError::Refused(Refused { code: code::TRY_AGAIN, msg }));
        };
        let reservation = Reservation { pod, labels, ports };
        let endpoint = self.ipam.reserve(id.clone(), reservation).await.map_err(refuse_reservation)?;
        let outcome = self.wire(stream, &endpoint).await;
        if outcome.is_err() {
            self.undo(&endpoint).await;
        } else {
            info!(endpoint = %id, pod = %endpoint.pod, addresses = ?endpoint.addresses, "attached");
        }
        outcome
    }

    /// From the reservation to the answer; the caller undoes on failure.
    async fn wire(&self, stream: &mut UnixStream, endpoint: &WorkloadEndpoint) -> Result<(), ConversationError> {
        let wire = Wire {
            host_interface: endpoint.host_interface.clone(),
            addresses: endpoint.addresses.clone(),
            mtu: *self.mtu.borrow(),
            parked_group: self.parked_group,
        };
        send(stream, &Reply::Wire(wire)).await?;
        let policed = self.acl.attach(endpoint.id.clone(), facts(endpoint.clone()));
        let (wired, policed) = tokio::join!(receive(stream), policed);
        let Request::Wired = wired? else { return Err(ConversationError::OutOfOrder) };
        policed.map_err(|error| refuse(code::TRY_AGAIN, &error))?;
        self.felix
            .attach(endpoint.host_interface.clone(), endpoint.addresses.clone())
            .await
            .map_err(|error| refuse(code::AGENT, &error))?;
        self.ipam.commit(endpoint.id.clone()).await.map_err(|error| refuse(code::TRY_AGAIN, &error))?;
        send(stream, &Reply::Done).await?;
        Ok(())
    }

    async fn undo(&self, endpoint: &WorkloadEndpoint) {
        if let Err(error) = self.felix.detach(endpoint.addresses.clone()).await {
            warn!(endpoint = %endpoint.id, %error, "routes of an abandoned attachment stay until the next resync");
        }
        // Before the release: from then on another ADD of the same attachment may make a link of the same name.
        if let Err(error) = tasks::park(endpoint.host_interface.clone(), self.parked_group).await {
            warn!(endpoint = %endpoint.id, %error, "the link of an abandoned attachment stays until its DEL");
        }
        if let Err(error) = self.acl.detach(endpoint.id.clone()).await {
            warn!(endpoint = %endpoint.id, %error, "policy of an abandoned attachment stays until the next resync");
        }
        if let Err(error) = self.ipam.release(endpoint.id.clone()).await {
            warn!(endpoint = %endpoint.id, %error, "addresses of an abandoned attachment stay taken");
        }
        self.reap();
    }

    async fn detach(&self, stream: &mut UnixStream, detach: Detach) -> Result<(), ConversationError> {
        speak_same(detach.protocol)?;
        let id = detach.id;
        let endpoint = self.ipam.endpoint(id.clone()).await;
        if let Some(endpoint) = &endpoint {
            let detached = self.felix.detach(endpoint.addresses.clone()).await;
            detached.map_err(|error| refuse(code::AGENT, &error))?;
        }
        let outcome = self.park(stream, &id).await;
        match (&outcome, endpoint) {
            // The link is still up: the pod keeps what it has until the runtime asks again.
            (Err(_), Some(endpoint)) => {
                let restored = self.felix.attach(endpoint.host_interface.clone(), endpoint.addresses.clone()).await;
                if let Err(error) = restored {
                    debug!(endpoint = %id, %error, "routes of an abandoned detachment are not restored");
                }
            }
            (Ok(()), endpoint) => {
                // Before the release: nothing of this pod is in a set when its address can be another's.
                self.acl.detach(id.clone()).await.map_err(|error| refuse(code::AGENT, &error))?;
                self.ipam.release(id.clone()).await.map_err(|error| refuse(code::AGENT, &error))?;
                self.reap();
                send(stream, &Reply::Done).await?;
                if let Some(endpoint) = endpoint {
                    info!(endpoint = %id, pod = %endpoint.pod, "detached");
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

    fn reap(&self) {
        // A full queue means that the reaper has been told already.
        let _ = self.parked.try_send(());
    }

    async fn status(&self, stream: &mut UnixStream, protocol: u32) -> Result<(), ConversationError> {
        speak_same(protocol)?;
        let unready = self.readiness.reasons();
        if unready.is_empty() {
            return Ok(send(stream, &Reply::Done).await?);
        }
        Err(ConversationError::Refused(Refused { code: code::UNAVAILABLE, msg: unready.join("; ") }))
    }
}

/// Why a conversation did not end with `Done`.
#[derive(Debug, thiserror::Error)]
enum ConversationError {
    /// The binary is told why.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The binary is gone, or speaks nonsense.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The binary says the right thing at the wrong time.
    #[error("the other end spoke out of order")]
    OutOfOrder,
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

fn refuse_reservation(error: ReserveError) -> Refused {
    refuse(code::TRY_AGAIN, &error)
}

async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, FrameError> {
    let read = async {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await?;
        let mut body = vec![0; cni::announced(header)?];
        stream.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    };
    let silent = || FrameError::Io(io::Error::new(io::ErrorKind::TimedOut, "the other end says nothing"));
    tokio::time::timeout(PATIENCE, read).await.map_err(|_| silent())?
}

async fn send<T: Serialize + Sync>(stream: &mut UnixStream, message: &T) -> Result<(), FrameError> {
    Ok(stream.write_all(&cni::frame(message)?).await?)
}
