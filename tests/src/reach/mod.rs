//! What can reach what: many questions asked at once from inside a network namespace, with a deadline.
//!
//! A [`Listener`] answers in one place: TCP, UDP and SCTP on given ports, in both families. [`ask()`] asks from another
//! place: each [`Question`] opens a flow of its own, from a source port that no earlier question used, so that no answer
//! comes from what the kernel remembers of an earlier flow. A question that is not answered is asked once more, as a new
//! flow: one packet lost on a busy machine is not a drop.
//!
//! SCTP is spoken with hand-made packets, as kernels without SCTP sockets are common: an INIT goes out, and the listener
//! answers with an INIT ACK (RFC 9260 section 5.1). Both ends are threads of this process in the places' namespaces; by
//! hand, `manx-lab probe` does the same in the namespace that it is run in.

mod ask;
mod listen;
mod packet;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::policy::Protocol;

use crate::LabError;
use crate::namespace::run_in;
use crate::place::Place;

pub use ask::ask_here;
pub use listen::listen_here;

pub(crate) use listen::wait;

/// How long one attempt waits for its answer. There are two.
pub const REACH_TIME_LIMIT: Duration = Duration::from_millis(250);

/// One question: does a flow to this address come about?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// The protocol; none means ICMP echo.
    pub protocol: Option<Protocol>,
    /// The destination.
    pub address: IpAddr,
    /// The destination port, for protocols that have ports.
    #[serde(default)]
    pub port: u16,
}

impl Question {
    /// Asks about a port of a protocol.
    pub const fn new(protocol: Protocol, address: IpAddr, port: u16) -> Self {
        Self { protocol: Some(protocol), address, port }
    }

    /// Asks for an ICMP echo.
    pub const fn echo(address: IpAddr) -> Self {
        Self { protocol: None, address, port: 0 }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(protocol) => write!(f, "{} {protocol}/{}", self.address, self.port),
            None => write!(f, "{} ICMP", self.address),
        }
    }
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The other end answered.
    Passed,
    /// Nothing was answered, which is what a drop looks like.
    Silent,
    /// The question was refused, or could not even be sent: the way is neither open nor dropped.
    Failed(String),
}

impl Verdict {
    /// Whether the other end answered.
    pub fn passed(&self) -> bool {
        *self == Self::Passed
    }
}

/// Answers in a place until it is dropped.
#[derive(Debug)]
pub struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Listener {
    /// Starts to answer on these ports, of TCP and UDP at any address of the place and of SCTP at the given ones. Returns
    /// once every port is open.
    pub fn start(place: &dyn Place, addresses: &[IpAddr], ports: &[u16]) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("a listener in {}", place.name()));
        let netns = place.netns().map_err(failed())?;
        let sockets = run_in(&netns, || listen::Sockets::open(addresses, ports)).map_err(failed())?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || sockets.answer(&stop)
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks from one place; one verdict for each question.
pub fn ask(from: &dyn Place, questions: &[Question]) -> Result<Vec<Verdict>, LabError> {
    let failed = || LabError::io(format!("asking from {}", from.name()));
    let netns = from.netns().map_err(failed())?;
    run_in(&netns, || ask_here(questions, REACH_TIME_LIMIT)).map_err(failed())
}

/// Asks from many places at the same time, each its own questions; the verdicts come in the same order.
pub fn ask_all(from: &[(&dyn Place, Vec<Question>)]) -> Result<Vec<Vec<Verdict>>, LabError> {
    thread::scope(|scope| {
        let asked: Vec<_> = from.iter().map(|(place, questions)| scope.spawn(move || ask(*place, questions))).collect();
        let answers = asked.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(LabError::io("asking")(io::Error::other("a thread panicked"))))
        });
        answers.collect()
    })
}
