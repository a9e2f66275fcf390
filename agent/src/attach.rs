//! The agent's side of `types::cni`: one conversation per connection, each in its own task.
//!
//! An ADD goes through reserve, policy (while the binary wires: until a pod has its policy the kernel drops what it
//! sends), route, commit, answer; whatever ends it early undoes the steps behind it in reverse. A DEL takes the route away,
//! lets the binary park the link, takes policy and addresses back. The steps themselves belong to ipam and felix; this
//! module is their order.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::future::{self, Either};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use felix::acl::Acl;
use felix::routes::Routes;
use ipam::{Description, Ipam, Request as Reservation, ReserveError};
use types::cni::{self, Attach, Detach, FrameError, Park, Refused, Reply, Request, Wire, code};
use types::{EndpointId, WorkloadEndpoint};

use crate::peers::facts;
use crate::pods::Identities;
use crate::readiness::Readiness;
use crate::{released, tasks};

/// What every conversation needs.
#[derive(Clone)]
pub(crate) struct Attachments {
    /// Addresses and endpoints.
    pub(crate) ipam: Ipam,
    /// Routes.
    pub(crate) felix: Routes,
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
    /// Where DELs that were not answered leave tombstones.
    pub(crate) released: PathBuf,
    /// What keeps ADD from being served, if anything.
    pub(crate) readiness: Readiness,
}

/// A binary that says nothing for so long is gone or stuck; wiring takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long policy may take to be in force once the pair is wired: shorter than the binary waits for the answer
/// (`Patience::ADD` in crate `cni`, 15 s), so that the runtime is told why and nothing is left when it comes with the DEL.
const POLICY_PATIENCE: Duration = Duration::from_secs(10);

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
        released::make_good(self, &id).await;
        let reservation = Reservation { pod, labels, ports };
        let endpoint = self.ipam.reserve(id.clone(), reservation).await.map_err(refuse_reservation)?;
        let outcome = self.wire(stream, &endpoint).await;
        if outcome.is_err() {
            self.undo(&endpoint).await;
        } else {
            info!(endpoint = %id, pod = %endpoint.pod, addresses = ?endpoint.addresses, "attached");
            self.identities.attached(id).await;
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
        // Policy comes into force while the binary wires.
        let mut policed = pin!(self.acl.attach(endpoint.id.clone(), facts(endpoint.clone())));
        let (wired, early) = {
            match future::select(pin!(receive(stream)), policed.as_mut()).await {
                Either::Left((wired, _)) => (wired, None),
                Either::Right((policed, wired)) => (wired.await, Some(policed)),
            }
        };
        let Request::Wired = wired? else { return Err(ConversationError::OutOfOrder) };
        let complete = async {
            let policed = match early {
                Some(policed) => policed,
                None => {
                    let policed = tokio::time::timeout(POLICY_PATIENCE, policed).await;
                    policed.map_err(|_| self.not_policed(&endpoint.id))?
                }
            };
            policed.map_err(|error| refuse(code::TRY_AGAIN, &error))?;
            let (interface, addresses) = (endpoint.host_interface.clone(), endpoint.addresses.clone());
            self.felix.attach(interface, addresses).await.map_err(|error| refuse(code::AGENT, &error))?;
            self.ipam.commit(endpoint.id.clone()).await.map_err(|error| refuse(code::TRY_AGAIN, &error))
        };
        tokio::select! {
            completed = complete => completed?,
            // Whatever was asked of ipam, felix and policy by then, they hear before what the caller asks to undo it.
            error = interrupted(stream, &endpoint.id) => return Err(error),
        }
        send(stream, &Reply::Done).await?;
        Ok(())
    }

    fn not_policed(&self, id: &EndpointId) -> Refused {
        let seconds = POLICY_PATIENCE.as_secs();
        let mut msg = format!("policies of endpoint {id} are not in force after {seconds} s");
        for reason in self.acl.readiness().borrow().iter() {
            msg = format!("{msg}; {reason}");
        }
        Refused { code: code::TRY_AGAIN, msg }
    }

    pub(crate) async fn undo(&self, endpoint: &WorkloadEndpoint) {
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
    /// The binary is gone while its answer is being made.
    #[error("the binary left before endpoint {0} was attached")]
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

fn refuse_reservation(error: ReserveError) -> Refused {
    refuse(code::TRY_AGAIN, &error)
}

async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, FrameError> {
    let silent = || FrameError::Io(io::Error::new(io::ErrorKind::TimedOut, "the other end says nothing"));
    tokio::time::timeout(PATIENCE, read(stream)).await.map_err(|_| silent())?
}

async fn read<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, FrameError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; cni::announced(header)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
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
mod tests {
    use felix::policy::PodKey;
    use tokio::sync::mpsc::{Receiver, Sender};
    use types::policy::Labels;
    use types::{Pod, PodRef, Update};

    use super::*;
    use crate::pods::{self, Question};
    use crate::testing::{World, id, pod, reference, soon, tier, until};

    fn attachments(world: &World, identities: Identities) -> Attachments {
        let (_, mtu) = watch::channel(1_500);
        // Whoever is told of parked links has left.
        let (parked, _) = mpsc::channel(1);
        Attachments {
            ipam: world.ipam.clone(),
            felix: world.felix.clone(),
            acl: world.acl.clone(),
            identities,
            mtu,
            parked_group: kernel::ours::LINK_GROUP,
            parked,
            released: PathBuf::from("/nowhere"),
            readiness: Readiness::new(),
        }
    }

    /// The binary's end, and the conversation at the other.
    fn conversation(attachments: &Attachments) -> (UnixStream, impl Future<Output = ()> + use<>) {
        let (binary, agent) = UnixStream::pair().unwrap();
        (binary, attachments.clone().converse(agent))
    }

    fn attach(id: &EndpointId, pod: PodRef, labels: Labels) -> Request {
        Request::Attach(Attach { protocol: cni::PROTOCOL, id: id.clone(), pod, labels, ports: Vec::new() })
    }

    async fn ask(binary: &mut UnixStream, request: &Request) -> Reply {
        send(binary, request).await.unwrap();
        // Its patience is not tested here, and a clock that goes on by itself would end it.
        read(binary).await.unwrap()
    }

    /// A DEL from its beginning to its end.
    async fn delete(attachments: &Attachments, id: &EndpointId) {
        let (mut binary, conversation) = conversation(attachments);
        let detach = Request::Detach(Detach { protocol: cni::PROTOCOL, id: id.clone() });
        let script = async {
            assert!(matches!(ask(&mut binary, &detach).await, Reply::Park(_)));
            assert_eq!(ask(&mut binary, &Request::Parked).await, Reply::Done);
        };
        soon(async { tokio::join!(conversation, script) }).await;
    }

    #[tokio::test]
    async fn an_attachment_is_there_from_its_answer_to_its_del() {
        let world = World::new().await;
        let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let request = attach(&id, reference("a", None), tier("db"));
            assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
            world.wire(&id);
            assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
        };
        soon(async { tokio::join!(conversation, script) }).await;
        assert_eq!(world.ipam.endpoints().await.len(), 1);
        assert_eq!(world.felix.view().await.unwrap().local, 1);
        assert_eq!(world.acl.show(id.clone()).await.unwrap().labels, tier("db"));
        delete(&attachments, &id).await;
        assert!(world.is_gone(&id).await);
    }

    #[tokio::test]
    async fn policy_that_does_not_come_into_force_in_time_refuses_the_pod_and_leaves_nothing() {
        let world = World::new().await;
        world.fail_restores();
        let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let request = attach(&id, reference("a", None), tier("db"));
            assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
            world.wire(&id);
            until(async || !world.acl.readiness().borrow().is_empty()).await;
            // The clock goes on by itself from here, to whatever is waited for.
            tokio::time::pause();
            let reply = ask(&mut binary, &Request::Wired).await;
            let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
            assert_eq!(refused.code, code::TRY_AGAIN);
            let told = refused.msg;
            assert!(told.starts_with("policies of endpoint manx/aaa1/eth0 are not in force after 10 s; "), "{told}");
            assert!(told.contains("rules cannot be changed"), "{told}");
            // Before the binary hears it.
            assert!(world.is_gone(&id).await);
            tokio::time::resume();
        };
        tokio::join!(conversation, script);
        delete(&attachments, &id).await;
        assert!(world.is_gone(&id).await);
    }

    #[tokio::test]
    async fn a_binary_that_leaves_takes_its_attachment_with_it() {
        let world = World::new().await;
        world.fail_restores();
        let attachments = attachments(&world, Identities::Stated);
        for (container, wired) in [("aaa1", false), ("bbb2", true)] {
            let id = id(container);
            let (mut binary, conversation) = conversation(&attachments);
            let script = async {
                let request = attach(&id, reference("a", None), tier("db"));
                assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
                world.wire(&id);
                if wired {
                    send(&mut binary, &Request::Wired).await.unwrap();
                    until(async || world.acl.show(id.clone()).await.is_some()).await;
                }
                drop(binary);
            };
            soon(async { tokio::join!(conversation, script) }).await;
            assert!(world.is_gone(&id).await, "{container}");
        }
    }

    #[tokio::test]
    async fn a_binary_that_speaks_out_of_turn_is_undone() {
        let world = World::new().await;
        world.fail_restores();
        let (attachments, id) = (attachments(&world, Identities::Stated), id("aaa1"));
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let request = attach(&id, reference("a", None), tier("db"));
            assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
            send(&mut binary, &Request::Wired).await.unwrap();
            send(&mut binary, &Request::Wired).await.unwrap();
            assert!(read::<Reply>(&mut binary).await.is_err());
        };
        soon(async { tokio::join!(conversation, script) }).await;
        assert!(world.is_gone(&id).await);
    }

    /// The channels of the task that knows pods.
    type Known = Update<PodKey, Pod>;

    fn channels() -> (Sender<Known>, Receiver<Known>, Identities, Receiver<Question>) {
        let (updates, told) = mpsc::channel(pods::QUESTIONS);
        let (questions, asked) = mpsc::channel(pods::QUESTIONS);
        (updates, told, Identities::Kubernetes(questions), asked)
    }

    #[tokio::test]
    async fn labels_that_change_while_the_binary_wires_are_not_lost() {
        let world = World::new().await;
        let (updates, told, identities, asked) = channels();
        let (attachments, id) = (attachments(&world, identities.clone()), id("aaa1"));
        let task = pods::follow(told, asked, world.ipam.clone(), world.acl.clone());
        let (mut binary, conversation) = conversation(&attachments);
        let (key, web) = pod("a", "u1", tier("web"));
        let script = async {
            updates.send(Update::Set(key.clone(), web.clone())).await.unwrap();
            let request = attach(&id, web.reference.clone(), Labels::new());
            assert!(matches!(ask(&mut binary, &request).await, Reply::Wire(_)));
            world.wire(&id);
            let ended = Pod { labels: tier("db"), finished: true, ..web.clone() };
            updates.send(Update::Set(key, ended)).await.unwrap();
            let stated = || Description { labels: Labels::new(), ports: Vec::new(), finished: false };
            let known = async || identities.of(&web.reference, stated()).await.unwrap().finished;
            until(known).await;
            // With one more answer the task is done with the change.
            assert!(known().await);
            assert_eq!(world.acl.show(id.clone()).await.unwrap().labels, tier("web"));
            assert_eq!(ask(&mut binary, &Request::Wired).await, Reply::Done);
            until(async || world.acl.show(id.clone()).await.unwrap().labels == tier("db")).await;
            let endpoint = world.ipam.endpoint(id.clone()).await.unwrap();
            assert!(endpoint.finished && endpoint.labels == tier("db"));
        };
        let talk = soon(async { tokio::join!(conversation, script) });
        tokio::select! {
            () = task => panic!("the task has ended"),
            _ = talk => {}
        }
    }

    #[tokio::test]
    async fn a_pod_that_the_api_server_has_not_told_of_is_tried_again() {
        let world = World::new().await;
        let (updates, told, identities, asked) = channels();
        let (attachments, id) = (attachments(&world, identities), id("aaa1"));
        let task = pods::follow(told, asked, world.ipam.clone(), world.acl.clone());
        let (mut binary, conversation) = conversation(&attachments);
        let script = async {
            let (key, old) = pod("a", "old", tier("web"));
            updates.send(Update::Set(key, old)).await.unwrap();
            tokio::time::pause();
            let reply = ask(&mut binary, &attach(&id, reference("a", Some("new")), Labels::new())).await;
            let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
            assert_eq!(refused.code, code::TRY_AGAIN);
        };
        tokio::select! {
            () = task => panic!("the task has ended"),
            _ = async { tokio::join!(conversation, script) } => {}
        }
        assert!(world.is_gone(&id).await);
    }
}
