//! Packets that rules log: NFLOG, by nfnetlink_log (linux/netfilter/nfnetlink_log.h).

use std::os::fd::AsFd;
use std::time::Duration;

use super::nfnetlink::{self, Request, attribute, be32, message, message_type, text};
use super::packet::Packet;
use crate::events::{Wait, Waker};
use crate::inbox::Inbox;
use crate::linux::socket::{Reply, Socket, replies};
use crate::netns::run_in;
use crate::{Failure, KernelError, Netns};

/// Reads what rules with `-j NFLOG --nflog-group N` log in a namespace. A group has one reader.
#[derive(Debug)]
pub struct DropLog {
    socket: Socket,
    inbox: Inbox<LogEvent>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A packet.
    Packet(LoggedPacket),
    /// Packets were logged faster than they were read; some are missing here.
    Lost,
}

/// A packet that met a rule with NFLOG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedPacket {
    /// The rule's `--nflog-prefix`.
    pub prefix: String,
    /// The index of the interface by which it came.
    pub in_interface: Option<u32>,
    /// The index of the interface by which it would have gone.
    pub out_interface: Option<u32>,
    /// Its mark.
    pub mark: u32,
    /// What it is; none if it is not IP.
    pub packet: Option<Packet>,
}

/// How much of a packet is copied: IPv6 with extension headers, and the ports.
const COPIED_OCTETS: u32 = 128;

/// How long the kernel gathers packets for one datagram, in hundredths of a second.
const GATHERING: u32 = 10;

const CONFIG: u16 = message_type(libc::NFNL_SUBSYS_ULOG, libc::NFULNL_MSG_CONFIG);
const PACKET: u16 = message_type(libc::NFNL_SUBSYS_ULOG, libc::NFULNL_MSG_PACKET);

impl DropLog {
    /// Becomes the reader of a group in the calling thread's namespace. [`KernelError::Denied`] if it has one: the kernel
    /// says the same as to a process that may not read at all.
    pub fn open(group: u16) -> Result<Self, KernelError> {
        let mut socket = nfnetlink::open()?;
        let operation = || format!("cannot read NFLOG group {group}");
        // A message of its own: the rest is about a group that is there.
        let mut bind = Request::new(CONFIG, 0, 0, group);
        bind.put(attribute_kind(libc::NFULA_CFG_CMD), &[nfnetlink::octet(libc::NFULNL_CFG_CMD_BIND)]);
        socket.change(bind, 0, operation).map_err(|error| match error {
            KernelError::Denied(failure) => {
                let message = Some("perhaps another program reads it".to_owned());
                KernelError::Denied(Failure { message, ..failure })
            }
            other => other,
        })?;
        let mut configure = Request::new(CONFIG, 0, 0, group);
        // struct nfulnl_msg_config_mode: range, mode, a pad.
        let [a, b, c, d] = COPIED_OCTETS.to_be_bytes();
        configure
            .put(attribute_kind(libc::NFULA_CFG_MODE), &[a, b, c, d, nfnetlink::octet(libc::NFULNL_COPY_PACKET), 0]);
        configure.put(attribute_kind(libc::NFULA_CFG_TIMEOUT), &GATHERING.to_be_bytes());
        socket.change(configure, 0, operation)?;
        // One datagram holds many packets.
        Ok(Self { socket, inbox: Inbox::new(1, || LogEvent::Lost)? })
    }

    /// The same in another namespace.
    pub fn open_in(netns: &Netns, group: u16) -> Result<Self, KernelError> {
        run_in(netns, || Self::open(group))?
    }

    /// Waits for the next entry, for a waker, or until `timeout` has passed (none: for ever). Wakes come before entries.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Wait<LogEvent>, KernelError> {
        let socket = &self.socket;
        self.inbox.next(
            socket.as_fd(),
            timeout,
            "cannot read logged packets",
            |datagram| socket.receive(datagram, libc::MSG_DONTWAIT),
            |datagram, events| {
                for reply in replies(datagram) {
                    let read = match reply {
                        Ok(reply) if reply.kind == PACKET => parse(&reply).map(LogEvent::Packet),
                        Ok(_) => continue,
                        Err(_) => None,
                    };
                    events.push_back(read.unwrap_or(LogEvent::Lost));
                }
            },
        )
    }

    /// A handle that ends the wait from another thread.
    pub fn waker(&self) -> Waker {
        self.inbox.waker()
    }
}

fn parse(reply: &Reply<'_>) -> Option<LoggedPacket> {
    let attributes = message(reply)?.attributes;
    let number = |kind| attribute(attributes, attribute_kind(kind)).and_then(be32);
    Some(LoggedPacket {
        prefix: attribute(attributes, attribute_kind(libc::NFULA_PREFIX)).and_then(text).unwrap_or_default(),
        in_interface: number(libc::NFULA_IFINDEX_INDEV),
        out_interface: number(libc::NFULA_IFINDEX_OUTDEV),
        mark: number(libc::NFULA_MARK).unwrap_or(0),
        packet: attribute(attributes, attribute_kind(libc::NFULA_PAYLOAD)).and_then(Packet::parse),
    })
}

/// The type of an attribute, which libc has as C does.
const fn attribute_kind(kind: i32) -> u16 {
    nfnetlink::octet(kind) as u16
}
