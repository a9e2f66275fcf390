//! What happens in the kernel without our doing.
//!
//! Events are a hint, not a record: the kernel drops them when the reader is slow ([`Event::Lost`]), and tells nothing
//! at all of IPv4 routes that vanish because their link went down or away. Who needs certainty reads the table again.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use rtnetlink::packet_core::DecodeError;
use rtnetlink::sys::{self, SocketAddr, protocols::NETLINK_ROUTE};

use crate::inbox::Inbox;
use crate::linux::socket::{Reply, receive, replies};
use crate::linux::{parse_address, parse_link, parse_route};
use crate::netns::run_in;
use crate::{InterfaceAddress, KernelError, Link, Netns, PortId, Route};

/// A change that happened in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A route was put, in its canonical form.
    RouteChanged(Route),
    /// A route was deleted.
    RouteDeleted(Route),
    /// A link appeared or changed.
    LinkChanged(Link),
    /// A link is gone.
    LinkDeleted(Link),
    /// An address was added or changed (its flags too).
    AddressChanged(InterfaceAddress),
    /// An address is gone.
    AddressDeleted(InterfaceAddress),
    /// Events were lost, or one could not be read: what was known is stale.
    Lost,
}

/// Why a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait<E = Event> {
    /// An event has come.
    Event(E),
    /// A [`Waker`] was used.
    Woken,
    /// The timeout has passed.
    TimedOut,
}

/// A source of events that one thread waits on.
pub trait EventSource: Send {
    /// Waits for the next event, for a waker, or until `timeout` has passed (none: for ever). Wakes come before events.
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait, KernelError>;

    /// Lets events gather, for as long or until a waker is used; the next call of [`EventSource::next`] tells of either. Who is
    /// woken for each of many events that belong together spends more on that than on them. Where events cost no wait, it returns
    /// at once.
    fn gather(&mut self, _at_most: Duration) -> Result<(), KernelError> {
        Ok(())
    }

    /// A handle by which another thread ends the wait.
    fn waker(&self) -> Waker;
}

/// A kind of events to subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Events of links.
    Links,
    /// Events of addresses, of both families.
    Addresses,
    /// Events of routes, of both families and of all tables.
    Routes,
}

/// The kernel's events of one namespace, by an rtnetlink multicast socket.
#[derive(Debug)]
pub struct Events {
    socket: sys::Socket,
    inbox: Inbox<Event>,
    /// The sockets whose changes are not reported.
    own: Vec<PortId>,
}

/// The receive buffer asked for, which the kernel doubles: some 20,000 events, each counted with its overhead.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// How many datagrams are taken in before the first of their events is handed out.
const DATAGRAMS_AT_ONCE: usize = 256;

impl Events {
    /// Everything that happens in the calling thread's namespace from now on. Subscribing before the tables are read
    /// leaves no gap.
    pub fn subscribe() -> Result<Self, KernelError> {
        Self::subscribe_to(&[Group::Links, Group::Addresses, Group::Routes])
    }

    /// The events of some groups only.
    pub fn subscribe_to(groups: &[Group]) -> Result<Self, KernelError> {
        let mask = groups.iter().fold(0, |mask, group| mask | group.mask());
        let open = || {
            let mut socket = sys::Socket::new(NETLINK_ROUTE)?;
            // The kernel grants more than net.core.rmem_max only to a process with CAP_NET_ADMIN.
            if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
            }
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, mask))?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| KernelError::io("cannot subscribe to kernel events", &error))?;
        Ok(Self { socket, inbox: Inbox::new(DATAGRAMS_AT_ONCE, || Event::Lost)?, own: Vec::new() })
    }

    /// The events of some groups in another namespace.
    pub fn subscribe_in(netns: &Netns, groups: &[Group]) -> Result<Self, KernelError> {
        run_in(netns, || Self::subscribe_to(groups))?
    }

    /// The same events without those that this handle of the kernel causes itself. They are told by the message's
    /// header, so that ten thousand routes of our own cost next to nothing.
    #[must_use]
    pub fn except(mut self, port: PortId) -> Self {
        self.own.push(port);
        self
    }
}

impl EventSource for Events {
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait, KernelError> {
        let (socket, own) = (&self.socket, &self.own);
        self.inbox.next(
            socket.as_fd(),
            timeout,
            "cannot receive kernel events",
            |datagram| receive(socket, datagram, libc::MSG_DONTWAIT),
            |datagram, events| {
                for reply in replies(datagram) {
                    let event = match reply {
                        Ok(reply) if own.contains(&PortId(reply.port)) => Ok(None),
                        Ok(reply) => event_of(&reply),
                        Err(why) => Err(DecodeError::from(why)),
                    };
                    // If the tables cannot be read either, whoever reads them again learns why.
                    events.extend(event.unwrap_or(Some(Event::Lost)));
                }
            },
        )
    }

    fn gather(&mut self, at_most: Duration) -> Result<(), KernelError> {
        self.inbox.gather(at_most)
    }

    fn waker(&self) -> Waker {
        self.inbox.waker()
    }
}

impl Group {
    /// The group's bit (RTMGRP_*, linux/rtnetlink.h).
    const fn mask(self) -> u32 {
        let mask = match self {
            Self::Links => libc::RTMGRP_LINK,
            Self::Addresses => libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR,
            Self::Routes => libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE,
        };
        mask.cast_unsigned()
    }
}

/// The event that a notification tells of; none if it is of a kind that is not reported.
fn event_of(reply: &Reply<'_>) -> Result<Option<Event>, DecodeError> {
    let payload = reply.payload;
    Ok(match reply.kind {
        libc::RTM_NEWROUTE => parse_route(payload)?.map(Event::RouteChanged),
        libc::RTM_DELROUTE => parse_route(payload)?.map(Event::RouteDeleted),
        libc::RTM_NEWADDR => parse_address(payload)?.map(Event::AddressChanged),
        libc::RTM_DELADDR => parse_address(payload)?.map(Event::AddressDeleted),
        // A port of a bridge is announced once more in the bridge's family, also when it only leaves the bridge.
        libc::RTM_NEWLINK | libc::RTM_DELLINK if payload.first() != Some(&0) => None,
        libc::RTM_NEWLINK => Some(Event::LinkChanged(parse_link(payload)?)),
        libc::RTM_DELLINK => Some(Event::LinkDeleted(parse_link(payload)?)),
        _ => None,
    })
}

/// Ends a wait of an [`EventSource`], now or the next one. Several wakes before a wait are one.
#[derive(Debug, Clone)]
pub struct Waker {
    /// The end of a pipe that is written to. It does not block: when the pipe is full, a wake is under way already.
    bell: Arc<UnixStream>,
}

impl Waker {
    /// Ends the wait. It never blocks, and it is no error if the source is gone.
    pub fn wake(&self) {
        // A full pipe means that the bell rings already, a closed one that nobody listens: neither is an error.
        let _ = (&*self.bell).write(&[1]);
    }
}

/// The end of the bell that a thread waits on.
#[derive(Debug)]
pub(crate) struct Bell(UnixStream);

impl Bell {
    /// A bell, and the waker that rings it.
    pub(crate) fn new() -> Result<(Self, Waker), KernelError> {
        let pair = || {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            Ok((Self(read), Waker { bell: Arc::new(write) }))
        };
        pair().map_err(|error: io::Error| KernelError::io("cannot make a pair of sockets to wake a thread", &error))
    }

    /// Stops the ringing; returns whether the bell rang.
    pub(crate) fn silence(&self) -> bool {
        let mut rang = false;
        let mut scratch = [0; 64];
        while (&self.0).read(&mut scratch).is_ok_and(|read| read > 0) {
            rang = true;
        }
        rang
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors is readable (or broken); `false` if the time has passed.
pub(crate) fn wait_readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> Result<bool, KernelError> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        // The time is rounded up, so that a wait never ends a moment early and spins.
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match poll(&mut polled, left.unwrap_or(PollTimeout::NONE)) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(KernelError::io("cannot wait for kernel events", &errno.into())),
        }
    }
}
