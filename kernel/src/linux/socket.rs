//! A netlink socket: requests go out, answers are matched to them by sequence number.
//!
//! The kernel handles a request inside the `send` call, so its answer is in the receive queue when `send` returns, and
//! waiting for it never hangs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkSerializable, NlasIterator, parse_i32, parse_string,
};
use rtnetlink::sys::{self, SocketAddr};

use crate::KernelError;

/// How many messages go out in one `send`: more than 64 gain nothing (2.3 us a route either way), and the errors of
/// that many messages fit into the smallest receive buffer.
const BATCH_MESSAGES: usize = 64;

/// How many bytes go out in one `send`; a socket's default send buffer takes about 200 KiB.
const BATCH_BYTES: usize = 32 * 1024;

/// Room for an answer. The kernel fills a dump's datagrams up to 32 KiB if the reader offers that much.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How many times a dump is begun again because changes interrupted it.
const DUMP_ATTEMPTS: usize = 16;

/// The header of a netlink message (struct nlmsghdr).
const HEADER_BYTES: usize = 16;

/// NLMSGERR_ATTR_MSG: the attribute with the kernel's own words (linux/netlink.h).
const ERROR_ATTRIBUTE_MESSAGE: u16 = 1;

/// A socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: sys::Socket,
    /// The sequence number of the newest request.
    sequence: u32,
    /// The messages that are sent next; the buffer is kept for its capacity.
    outgoing: Vec<u8>,
    /// The datagram received last; the buffer is kept for its capacity and never zeroed.
    incoming: Vec<u8>,
    /// Whether dumps are filtered by the kernel (NETLINK_GET_STRICT_CHK).
    strict: bool,
}

/// A message of the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    /// The message's type: RTM_* or NLMSG_*.
    pub(crate) kind: u16,
    /// The message's flags: NLM_F_*.
    pub(crate) flags: u16,
    /// The sequence number of the request that is answered.
    pub(crate) sequence: u32,
    /// The port of the socket that caused a notification.
    pub(crate) port: u32,
    /// The payload behind the header.
    pub(crate) payload: &'a [u8],
}

/// A message of a batch that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The place of the message in the batch.
    pub(crate) index: usize,
    pub(crate) errno: i32,
    pub(crate) message: Option<String>,
    /// The request as the error repeats it, behind its header. Empty unless the subsystem does that by itself.
    pub(crate) echo: Vec<u8>,
}

impl Socket {
    /// Opens a socket of a netlink protocol (NETLINK_*).
    pub(crate) fn open(protocol: isize) -> Result<Self, KernelError> {
        let open = || {
            let socket = sys::Socket::new(protocol)?;
            // Errors come with the kernel's words and without a copy of the request.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| KernelError::io("cannot open a netlink socket", &error))?;
        Ok(Self { socket, sequence: 0, outgoing: Vec::new(), incoming: Vec::new(), strict: false })
    }

    /// The port by which notifications name this socket as their cause.
    pub(crate) fn port(&mut self) -> Result<u32, KernelError> {
        let mut port = || {
            let mut address = SocketAddr::new(0, 0);
            self.socket.get_address(&mut address)?;
            match address.port_number() {
                // The socket has no port until it is bound, which the first send would do.
                0 => Ok(self.socket.bind_auto()?.port_number()),
                port => Ok(port),
            }
        };
        port().map_err(|error: io::Error| KernelError::io("cannot bind a netlink socket", &error))
    }

    /// Asks for a change and waits until the kernel has made it.
    pub(crate) fn change(
        &mut self,
        message: impl NetlinkSerializable,
        flags: u16,
        operation: impl Fn() -> String,
    ) -> Result<(), KernelError> {
        self.change_heard(message, flags, operation, |_| {})
    }

    /// The same; `heard` is given what the kernel says beside its acknowledgement (NLM_F_ECHO).
    pub(crate) fn change_heard(
        &mut self,
        message: impl NetlinkSerializable,
        flags: u16,
        operation: impl Fn() -> String,
        mut heard: impl FnMut(&Reply<'_>),
    ) -> Result<(), KernelError> {
        self.outgoing.clear();
        let sequence = self.push(&message, NLM_F_REQUEST | NLM_F_ACK | flags);
        self.send(&operation)?;
        self.each_reply(&operation, |reply| {
            if reply.sequence != sequence {
                return Ok(Flow::More);
            }
            if reply.kind == NLMSG_ERROR {
                return refusal(&reply, &operation).map_or(Ok(Flow::Done), Err);
            }
            heard(&reply);
            Ok(Flow::More)
        })
    }

    /// Asks for one object; `parse` reads the answer.
    pub(crate) fn query<T>(
        &mut self,
        message: impl NetlinkSerializable,
        operation: impl Fn() -> String,
        mut parse: impl FnMut(&Reply<'_>) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        self.outgoing.clear();
        let sequence = self.push(&message, NLM_F_REQUEST);
        self.send(&operation)?;
        let mut found = None;
        self.each_reply(&operation, |reply| {
            if reply.sequence != sequence {
                return Ok(Flow::More);
            }
            match refusal(&reply, &operation) {
                Some(error) => Err(error),
                None => {
                    found = Some(parse(&reply)?);
                    Ok(Flow::Done)
                }
            }
        })?;
        found.ok_or_else(|| KernelError::malformed(operation(), "no object in it"))
    }

    /// Reads a whole table. `begin` is called before each attempt, `each` for every object. The result is consistent: a
    /// dump that a change interrupted is thrown away and taken again.
    pub(crate) fn dump<S>(
        &mut self,
        message: &impl NetlinkSerializable,
        operation: impl Fn() -> String,
        begin: impl Fn() -> S,
        mut each: impl FnMut(&mut S, &Reply<'_>) -> Result<(), KernelError>,
    ) -> Result<S, KernelError> {
        if !self.strict {
            // Without strict checking (before Linux 4.20) the kernel sends more than was asked for; the callers filter
            // again.
            self.strict = self.socket.set_netlink_get_strict_chk(true).is_ok();
        }
        for _ in 0..DUMP_ATTEMPTS {
            self.outgoing.clear();
            let sequence = self.push(message, NLM_F_REQUEST | NLM_F_DUMP);
            self.send(&operation)?;
            let mut found = begin();
            let mut interrupted = false;
            // The rest of an interrupted dump is read too: the kernel takes no new dump while one is unfinished.
            let mut unreadable = None;
            self.each_reply(&operation, |reply| {
                if reply.sequence != sequence {
                    return Ok(Flow::More);
                }
                interrupted |= reply.flags & NLM_F_DUMP_INTR != 0;
                if let Some(error) = refusal(&reply, &operation) {
                    return Err(error);
                }
                if reply.kind == NLMSG_DONE {
                    return Ok(Flow::Done);
                }
                if let Err(error) = each(&mut found, &reply) {
                    unreadable.get_or_insert(error);
                }
                Ok(Flow::More)
            })?;
            if let Some(error) = unreadable {
                return Err(error);
            }
            if !interrupted {
                return Ok(found);
            }
        }
        let message = "the table changed each time it was read".to_owned();
        Err(KernelError::refused(operation(), libc::EAGAIN, Some(message)))
    }

    /// Sends many changes, [`BATCH_MESSAGES`] at a time, and returns those that were refused. Only the last message of
    /// each send asks for an acknowledgement; the kernel reports refusals by itself.
    pub(crate) fn batch(
        &mut self,
        messages: impl ExactSizeIterator<Item = (impl NetlinkSerializable, u16)>,
        operation: impl Fn() -> String,
    ) -> Result<Vec<Refusal>, KernelError> {
        let mut refusals = Vec::new();
        let total = messages.len();
        let mut first = 0;
        self.outgoing.clear();
        for (index, (message, flags)) in messages.enumerate() {
            let count = index - first + 1;
            let last = count == BATCH_MESSAGES || self.outgoing.len() >= BATCH_BYTES || index + 1 == total;
            let sequence = self.push(&message, NLM_F_REQUEST | flags | if last { NLM_F_ACK } else { 0 });
            if !last {
                continue;
            }
            self.send(&operation)?;
            self.each_reply(&operation, |reply| {
                let behind = usize::try_from(sequence.wrapping_sub(reply.sequence)).unwrap_or(usize::MAX);
                if reply.kind == NLMSG_ERROR && behind < count {
                    match error_of(&reply) {
                        Some((0, _)) => {}
                        Some((errno, message)) => {
                            let echo = reply.payload.get(4 + HEADER_BYTES..).unwrap_or_default().to_vec();
                            refusals.push(Refusal { index: index - behind, errno, message, echo });
                        }
                        None => return Err(KernelError::malformed(operation(), "an error without number")),
                    }
                }
                Ok(if behind == 0 { Flow::Done } else { Flow::More })
            })?;
            first = index + 1;
            self.outgoing.clear();
        }
        Ok(refusals)
    }

    /// Appends a message to those that are sent next; returns its sequence number.
    fn push(&mut self, message: &impl NetlinkSerializable, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER_BYTES + message.buffer_len();
        // A message whose length does not fit the field does not fit into the socket's buffer either, so sending it
        // fails.
        self.outgoing.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.outgoing.extend(message.message_type().to_ne_bytes());
        self.outgoing.extend(flags.to_ne_bytes());
        self.outgoing.extend(self.sequence.to_ne_bytes());
        // The sender's port stays 0, as the kernel knows it.
        self.outgoing.extend(0_u32.to_ne_bytes());
        let start = self.outgoing.len();
        self.outgoing.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(room) = self.outgoing.get_mut(start..start + message.buffer_len()) {
            message.serialize(room);
        }
        self.sequence
    }

    /// Sends the messages that were appended.
    fn send(&self, operation: &impl Fn() -> String) -> Result<(), KernelError> {
        loop {
            match self.socket.send(&self.outgoing, 0) {
                Ok(sent) if sent == self.outgoing.len() => return Ok(()),
                Ok(_) => return Err(KernelError::io(operation(), &io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(KernelError::io(operation(), &error)),
            }
        }
    }

    /// Receives one datagram of notifications.
    pub(crate) fn receive(&self, buffer: &mut Vec<u8>, flags: i32) -> io::Result<()> {
        receive(&self.socket, buffer, flags)
    }

    /// Receives answers until `each` says that it has all of them.
    fn each_reply(
        &mut self,
        operation: &impl Fn() -> String,
        mut each: impl FnMut(Reply<'_>) -> Result<Flow, KernelError>,
    ) -> Result<(), KernelError> {
        loop {
            receive(&self.socket, &mut self.incoming, 0).map_err(|error| KernelError::io(operation(), &error))?;
            for reply in replies(&self.incoming) {
                let reply = reply.map_err(|why| KernelError::malformed(operation(), why))?;
                if matches!(each(reply)?, Flow::Done) {
                    return Ok(());
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether more replies are to come.
enum Flow {
    More,
    Done,
}

/// Receives one datagram of the kernel into `buffer`, whose capacity is made large enough and is not zeroed.
pub(crate) fn receive(socket: &sys::Socket, buffer: &mut Vec<u8>, flags: i32) -> io::Result<()> {
    buffer.reserve_exact(RECEIVE_BYTES.saturating_sub(buffer.len()));
    loop {
        buffer.clear();
        match socket.recv_from(buffer, flags | libc::MSG_TRUNC) {
            // Any process may send to our port; only the kernel has port 0.
            Ok((_, from)) if from.port_number() != 0 => {}
            Ok((length, _)) if length > buffer.len() => {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The messages that a datagram holds.
pub(crate) fn replies(datagram: &[u8]) -> impl Iterator<Item = Result<Reply<'_>, String>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = split_reply(rest);
        rest = parsed.as_ref().map_or(&[][..], |(_, rest)| *rest);
        Some(parsed.map(|(reply, _)| reply))
    })
}

fn split_reply(datagram: &[u8]) -> Result<(Reply<'_>, &[u8]), String> {
    let buffer = NetlinkBuffer::new_checked(&datagram).map_err(|error| error.to_string())?;
    let length = usize::try_from(buffer.length()).map_err(|error| error.to_string())?;
    let payload = datagram.get(HEADER_BYTES..length).ok_or("a message shorter than its header")?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    let (kind, flags) = (buffer.message_type(), buffer.flags());
    Ok((Reply { kind, flags, sequence: buffer.sequence_number(), port: buffer.port_number(), payload }, rest))
}

/// The error that a message carries, if it is of a type that can carry one: NLMSG_ERROR, and NLMSG_DONE of a failed
/// dump.
fn refusal(reply: &Reply<'_>, operation: &impl Fn() -> String) -> Option<KernelError> {
    if reply.kind != NLMSG_ERROR && reply.kind != NLMSG_DONE {
        return None;
    }
    match error_of(reply) {
        Some((0, _)) => None,
        Some((errno, message)) => Some(KernelError::refused(operation(), errno, message)),
        None => Some(KernelError::malformed(operation(), "an error without number")),
    }
}

/// The error number (0: success) and the words of NLMSG_ERROR or NLMSG_DONE; `None` if the message is too short.
fn error_of(reply: &Reply<'_>) -> Option<(i32, Option<String>)> {
    let (number, rest) = reply.payload.split_at_checked(4)?;
    let errno = parse_i32(number).ok()?.checked_neg()?;
    if reply.flags & NLM_F_ACK_TLVS == 0 {
        return Some((errno, None));
    }
    // NLMSG_ERROR repeats the request's header (its payload was capped) before the attributes.
    let skipped = if reply.kind == NLMSG_ERROR { HEADER_BYTES } else { 0 };
    let words = NlasIterator::new(rest.get(skipped..).unwrap_or_default())
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ERROR_ATTRIBUTE_MESSAGE)
        .and_then(|attribute| parse_string(attribute.value()).ok());
    Some((errno, words))
}

#[cfg(test)]
mod tests;
