//! Frames that are put on a pod's wire as they are, and what arrives of them elsewhere.
//!
//! Every packet that counts carries a [`Token`], again and again, so that each of its fragments has one. A [`Tap`] collects
//! the tokens that come by a place, or that its own sockets would get.

pub mod frame;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::ifaddrs::getifaddrs;
use nix::poll::PollTimeout;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, setsockopt, socket, sockopt,
};

use crate::LabError;
use crate::namespace::run_in;
use crate::place::Place;
use crate::reach::wait;

/// What a packet is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

/// How a token begins: nothing else in a lab has this.
const MAGIC: [u8; 4] = *b"MXRW";

/// How often a tap looks whether to stop, in milliseconds.
const LOOK: u8 = 50;

/// Room for what arrives before a tap reads it.
const BUFFER: usize = 4 << 20;

impl Token {
    /// So many octets (rounded down to a multiple of eight), full of the token.
    pub fn fill(self, octets: usize) -> Vec<u8> {
        let one = [MAGIC, self.0.to_be_bytes()].concat();
        one.repeat(octets / 8)
    }

    /// The first token in a packet.
    fn find(packet: &[u8]) -> Option<Self> {
        packet.windows(8).find_map(|window| {
            let (magic, number) = window.split_first_chunk::<4>()?;
            (*magic == MAGIC).then_some(Self(u32::from_be_bytes(*number.first_chunk()?)))
        })
    }
}

/// An end of a wire, where frames are sent as they are.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    link: LinkAddr,
    /// The Ethernet address of the interface.
    pub mac: [u8; 6],
}

impl Wire {
    /// The wire of an interface of a place.
    pub fn open(place: &dyn Place, interface: &str) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("{interface} of {}", place.name()));
        let netns = place.netns().map_err(failed())?;
        let opened = run_in(&netns, || {
            let mut found = getifaddrs()?.filter(|found| found.interface_name == interface);
            let link = found.find_map(|found| found.address?.as_link_addr().copied());
            let link = link.ok_or(io::ErrorKind::NotFound)?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            Ok((socket, link))
        });
        let (socket, link) = opened.map_err(failed())?;
        Ok(Self { socket, link, mac: link.addr().unwrap_or_default() })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }
}

/// What comes by.
#[derive(Debug)]
pub struct Tap {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<Token>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Sees every packet on the interfaces of a place, also those that its filter drops then.
    pub fn on_the_wire(place: &dyn Place) -> Result<Self, LabError> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let open = || Ok(vec![socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?]);
        Self::of(place, open)
    }

    /// Sees what a place has let pass to itself, of TCP, UDP and ICMP: the copies that raw sockets get (raw(7)).
    pub fn delivered(place: &dyn Place) -> Result<Self, LabError> {
        use SockProtocol::{Icmp, IcmpV6, Tcp, Udp};
        let open = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let one = |(family, protocol)| socket(family, SockType::Raw, flags, protocol);
            let (ipv4, ipv6) = (AddressFamily::Inet, AddressFamily::Inet6);
            let all = [(ipv4, Tcp), (ipv4, Udp), (ipv4, Icmp), (ipv6, Tcp), (ipv6, Udp), (ipv6, IcmpV6)];
            Ok(all.into_iter().map(one).collect::<nix::Result<_>>()?)
        };
        Self::of(place, open)
    }

    fn of(place: &dyn Place, open: impl FnOnce() -> io::Result<Vec<OwnedFd>> + Send) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("a tap in {}", place.name()));
        let netns = place.netns().map_err(failed())?;
        let sockets = run_in(&netns, open).map_err(failed())?;
        for socket in &sockets {
            setsockopt(socket, sockopt::RcvBuf, &BUFFER).map_err(|error| failed()(error.into()))?;
        }
        let sockets: Vec<File> = sockets.into_iter().map(File::from).collect();
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let thread = thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || collect(&sockets, &stop, &seen)
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// The tokens that have come by.
    pub fn seen(&self) -> BTreeSet<Token> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn collect(sockets: &[File], stop: &AtomicBool, seen: &Mutex<BTreeSet<Token>>) {
    let mut bytes = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        if wait(sockets.iter().map(AsFd::as_fd), PollTimeout::from(LOOK)).is_err() {
            return;
        }
        for mut socket in sockets {
            while let Ok(length) = socket.read(&mut bytes) {
                if let Some(token) = Token::find(bytes.get(..length).unwrap_or_default()) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
                }
            }
        }
    }
}
