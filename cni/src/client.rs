//! The binary's side of the conversation with the agent ([`types::cni`]). Blocking, with an end to every wait.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use types::EndpointId;
use types::cni::{
    self, Attach, Check, Collect, Detach, FrameError, PROTOCOL, Park, Refused, Reply, Request, Wire, code,
};

use crate::spec::{CniError, Code};

/// How long each answer is waited for.
#[derive(Debug, Clone, Copy)]
pub struct AnswerTimeLimit(Duration);

impl AnswerTimeLimit {
    /// ADD: the agent may wait for a block and for the Pod object, seven seconds together.
    pub const ADD: Self = Self(Duration::from_secs(15));
    /// DEL: the agent waits for nothing; a stuck one must not hold a pod's end up.
    pub const DEL: Self = Self(Duration::from_secs(3));
    /// STATUS: runtimes ask every 5 s, and take the node out of service where nothing comes. An agent that works answers within a
    /// millisecond; on processors with ten times the work that they can do, one answer of a thousand took 10 ms, none of 20,000 more
    /// than 28 ms (docs/benchmarks.md).
    pub const STATUS: Self = Self(Duration::from_millis(100));
    /// CHECK: the agent reads sets of the kernel.
    pub const CHECK: Self = Self(Duration::from_secs(5));
    /// GC: each attachment that goes may have policies of its own.
    pub const GC: Self = Self(Duration::from_secs(60));

    /// Any other limit, for tests.
    pub const fn of(time: Duration) -> Self {
        Self(time)
    }
}

/// A conversation. Dropping it before its end makes the agent undo its part.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    socket: PathBuf,
}

impl Agent {
    /// Connects to the agent.
    pub fn connect(socket: &Path, time_limit: AnswerTimeLimit) -> Result<Self, AgentError> {
        let connect = || {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(time_limit.0))?;
            stream.set_write_timeout(Some(time_limit.0))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Self { stream, socket: socket.to_owned() }),
            Err(error) => Err(AgentError::Absent { socket: socket.to_owned(), error }),
        }
    }

    /// ADD, first half: asks for addresses. The answer is on its way when this returns.
    pub fn attach(&mut self, attach: Attach) -> Sent {
        self.say(&Request::Attach(attach))
    }

    /// The answer: the addresses and how to wire them.
    pub fn wire(&mut self, sent: Sent) -> Result<Wire, AgentError> {
        match self.hear(sent)? {
            Reply::Wire(wire) => Ok(wire),
            other => Err(self.out_of_order("Attach", &other)),
        }
    }

    /// ADD, second half: the host's end is there. The agent installs the routes meanwhile.
    pub fn made(&mut self) -> Sent {
        self.say(&Request::Made)
    }

    /// The pair is wired: the routes are in the kernel when this returns. `made` is what [`Agent::made`] gave; none: it was not
    /// said, as the agent is an older one.
    pub fn wired(&mut self, made: Option<Sent>) -> Result<(), AgentError> {
        let Some(made) = made else { return self.ask_for_done(&Request::Wired, "Wired") };
        match self.hear(made)? {
            Reply::Done => {
                // All is in force. An agent that has been killed in this moment finds the attachment in its journal.
                let Sent(_) = self.say(&Request::Wired);
                Ok(())
            }
            other => Err(self.out_of_order("Made", &other)),
        }
    }

    /// DEL, first half: where to park the link; `None` if the agent knows of nothing to park.
    pub fn detach(&mut self, id: EndpointId) -> Result<Option<Park>, AgentError> {
        match self.ask(&Request::Detach(Detach { protocol: PROTOCOL, id }))? {
            Reply::Park(park) => Ok(Some(park)),
            Reply::Done => Ok(None),
            other => Err(self.out_of_order("Detach", &other)),
        }
    }

    /// DEL, second half: the addresses are released when this returns.
    pub fn parked(&mut self) -> Result<(), AgentError> {
        self.ask_for_done(&Request::Parked, "Parked")
    }

    /// Asks whether an ADD would be served.
    pub fn status(&mut self) -> Result<(), AgentError> {
        self.ask_for_done(&Request::Status { protocol: PROTOCOL }, "Status")
    }

    /// CHECK: what the agent keeps of the attachment, once it has looked that it is in force.
    pub fn check(&mut self, id: EndpointId) -> Result<Wire, AgentError> {
        match self.ask(&Request::Check(Check { protocol: PROTOCOL, id }))? {
            Reply::Wire(wire) => Ok(wire),
            other => Err(self.out_of_order("Check", &other)),
        }
    }

    /// GC: when this returns, nothing is left of the network but what is listed.
    pub fn collect(&mut self, collect: Collect) -> Result<(), AgentError> {
        self.ask_for_done(&Request::Collect(collect), "Collect")
    }

    fn ask_for_done(&mut self, request: &Request, said: &'static str) -> Result<(), AgentError> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => Err(self.out_of_order(said, &other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, AgentError> {
        let sent = self.say(request);
        self.hear(sent)
    }

    fn say(&mut self, request: &Request) -> Sent {
        Sent(cni::write(&mut self.stream, request))
    }

    fn hear(&mut self, Sent(sent): Sent) -> Result<Reply, AgentError> {
        // An agent that has closed the connection may have said why before.
        match (cni::read(&mut self.stream), sent) {
            (Ok(Reply::Refused(refused)), _) => Err(AgentError::Refused(refused)),
            (Ok(reply), Ok(())) => Ok(reply),
            (_, Err(error)) | (Err(error), Ok(())) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: FrameError) -> AgentError {
        AgentError::Broken { socket: self.socket.clone(), error }
    }

    fn out_of_order(&self, said: &'static str, reply: &Reply) -> AgentError {
        let reply = match reply {
            Reply::Wire(_) => "Wire",
            Reply::Park(_) => "Park",
            Reply::Done => "Done",
            Reply::Refused(_) => "Refused",
        };
        AgentError::OutOfOrder { socket: self.socket.clone(), said, reply }
    }
}

/// A message that was sent, if it could be; its answer is still to be heard.
#[derive(Debug)]
#[must_use = "the agent answers, and may have refused"]
pub struct Sent(Result<(), FrameError>);

/// Why the agent was of no help.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody listens on the agent's socket.
    #[error("no agent at {}: {error}", .socket.display())]
    Absent {
        /// The socket on which an agent was looked for.
        socket: PathBuf,
        /// Why there is no connection.
        error: io::Error,
    },
    /// The conversation ended early, timed out, or was no conversation.
    #[error("the agent at {}: {error}", .socket.display())]
    Broken {
        /// The agent's socket.
        socket: PathBuf,
        /// The error of the exchange.
        error: FrameError,
    },
    /// The agent says the right thing at the wrong time.
    #[error("the agent at {} answers {reply} to {said}", .socket.display())]
    OutOfOrder {
        /// The agent's socket.
        socket: PathBuf,
        /// The message that the agent got.
        said: &'static str,
        /// The answer that the agent gave.
        reply: &'static str,
    },
    /// The agent refuses.
    #[error(transparent)]
    Refused(Refused),
}

impl AgentError {
    /// In the terms of CNI, for an ADD: 11 where a later attempt may find a working agent, 101 where the two ends do not
    /// understand each other, else the agent's own code.
    pub fn into_cni(self) -> CniError {
        let code = match &self {
            Self::Absent { .. } | Self::Broken { error: FrameError::Io(_), .. } => Code::TryAgain,
            Self::Broken { .. } | Self::OutOfOrder { .. } => Code::Protocol,
            Self::Refused(refused) => Code::Agent(refused.code),
        };
        CniError::new(code, self.to_string())
    }

    /// In the terms of CNI, for STATUS: 50, or 51 if the agent says so (CNI spec section 2, STATUS).
    pub fn into_status(self) -> CniError {
        let code = match &self {
            Self::Refused(Refused { code: code::LIMITED, .. }) => Code::Agent(code::LIMITED),
            _ => Code::Unavailable,
        };
        CniError::new(code, self.to_string())
    }
}
