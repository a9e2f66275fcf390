//! Denied packets, shown while somebody looks: only then do rules log, and only then is the log read.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use felix::acl::Acl;
use ipam::Ipam;
use kernel::KernelError;
use kernel::acl::{DropLog, LogEvent, LoggedPacket, Tuple};
use kernel::events::{Wait, Waker};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::warn;

use types::WorkloadEndpoint;
use types::api::DropRecord;
use types::policy::{Direction, End, Flow, Protocol, Reason};

/// Packets that wait to be explained; more than that at a time are counted and not shown.
const QUEUED_PACKETS: usize = 256;

/// The request of a viewer who wants to see denied packets.
#[derive(Debug)]
pub(crate) struct Look {
    reply: oneshot::Sender<Result<broadcast::Receiver<DropRecord>, KernelError>>,
}

/// The way to look.
#[derive(Debug, Clone)]
pub(crate) struct Denied {
    looks: mpsc::Sender<Look>,
}

/// The way to look, and where the one who serves hears of it.
pub(crate) fn channel() -> (Denied, mpsc::Receiver<Look>) {
    let (looks, looked) = mpsc::channel(1);
    (Denied { looks }, looked)
}

impl Denied {
    /// Denied packets from now on; none when the agent is ending. The kernel may refuse the log: its group may have
    /// another reader.
    pub(crate) async fn look(&self) -> Option<Result<broadcast::Receiver<DropRecord>, KernelError>> {
        let (reply, answer) = oneshot::channel();
        self.looks.send(Look { reply }).await.ok()?;
        answer.await.ok()
    }
}

/// Serves those who look: reads the log from the first one's coming to the last one's going.
pub(crate) async fn serve(group: u16, mut looks: mpsc::Receiver<Look>, acl: Acl, ipam: Ipam) {
    while let Some(first) = looks.recv().await {
        let (packets, mut read) = mpsc::channel(QUEUED_PACKETS);
        let waker = match open(group, packets).await {
            Ok(waker) => waker,
            Err(error) => {
                // If whoever asked has left, nobody is to be told.
                let _ = first.reply.send(Err(error));
                continue;
            }
        };
        let (records, receiver) = broadcast::channel(QUEUED_PACKETS);
        let _ = first.reply.send(Ok(receiver));
        acl.log(true).await;
        loop {
            tokio::select! {
                packet = read.recv() => match packet {
                    Some(Logged { packet, missed }) => {
                        // Nobody hears it if the last one has just left.
                        let _ = records.send(explain(packet, missed, &acl, &ipam).await);
                    }
                    None => break,
                },
                Some(Look { reply }) = looks.recv() => drop(reply.send(Ok(records.subscribe()))),
                () = records.closed() => break,
            }
        }
        acl.log(false).await;
        waker.wake();
    }
}

/// A thread that reads denied packets until it is woken.
async fn open(group: u16, packets: mpsc::Sender<Logged>) -> Result<Waker, KernelError> {
    let log = DropLog::open(group)?;
    let waker = log.waker();
    // The runtime's threads for blocking work: one such reader at a time.
    tokio::task::spawn_blocking(move || read(log, &packets));
    Ok(waker)
}

/// A packet, and how many before it were not taken.
#[derive(Debug)]
struct Logged {
    packet: LoggedPacket,
    missed: u64,
}

/// Reads the log until woken; blocks.
fn read(mut log: DropLog, packets: &mpsc::Sender<Logged>) {
    let mut missed = 0;
    loop {
        match log.next(None) {
            Ok(Wait::Event(LogEvent::Packet(packet))) => match packets.try_send(Logged { packet, missed }) {
                Ok(()) => missed = 0,
                Err(mpsc::error::TrySendError::Full(_)) => missed += 1,
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            },
            Ok(Wait::Event(LogEvent::Lost)) => missed += 1,
            Ok(Wait::TimedOut) => {}
            Ok(Wait::Woken) => return,
            Err(error) => {
                warn!(%error, "the kernel's log of denied packets cannot be read any more; whoever looks sees no more of them");
                return;
            }
        }
    }
}

async fn explain(logged: LoggedPacket, missed: u64, acl: &Acl, ipam: &Ipam) -> DropRecord {
    // The prefix is `manx-i5` or `manx-e5`: direction and class.
    let direction = if logged.prefix.starts_with("manx-e") { Direction::Egress } else { Direction::Ingress };
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let nothing =
        Tuple { source: unspecified, destination: unspecified, protocol: 0, source_port: 0, destination_port: 0 };
    let tuple = logged.packet.map_or(nothing, |packet| packet.tuple);
    let own = match direction {
        Direction::Ingress => tuple.destination,
        Direction::Egress => tuple.source,
    };
    let has_address = |endpoint: &WorkloadEndpoint| endpoint.addresses.contains(&own);
    let endpoint = ipam.endpoints().await.into_iter().find(has_address);
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == tuple.protocol);
    let flow = Flow { source: tuple.source, destination: tuple.destination, protocol, port: tuple.destination_port };
    let policies = acl.explain(flow).await.map(|explanation| match direction {
        Direction::Ingress => isolating(explanation.destination),
        Direction::Egress => isolating(explanation.source),
    });
    let ports = protocol.map(|_| (tuple.source_port, tuple.destination_port));
    DropRecord {
        time_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        direction,
        pod: endpoint.as_ref().map(|endpoint| endpoint.pod.clone()),
        endpoint: endpoint.map(|endpoint| endpoint.id),
        source: tuple.source,
        destination: tuple.destination,
        protocol: tuple.protocol,
        source_port: ports.map(|(source, _)| source),
        destination_port: ports.map(|(_, destination)| destination),
        policies: policies.unwrap_or_default(),
        missed,
    }
}

fn isolating(end: End) -> Vec<types::policy::PolicyId> {
    match end.reason {
        Reason::Isolated { policies } => policies,
        Reason::Rule(decision) => vec![decision.policy],
        Reason::NotAnEndpoint | Reason::NotGoverned | Reason::Itself | Reason::OwnNode | Reason::Infrastructure => {
            Vec::new()
        }
    }
}
