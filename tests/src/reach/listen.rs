//! The end of a flow that answers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};

use super::packet::Init;

/// How often a listener looks whether it is to stop.
const LOOK: u8 = 100;

/// Answers on these ports in the network namespace of the calling thread until `stop`. Calls `ready` once every port is
/// open.
pub fn listen_here(addresses: &[IpAddr], ports: &[u16], ready: impl FnOnce(), stop: &AtomicBool) -> io::Result<()> {
    let sockets = Sockets::open(addresses, ports)?;
    ready();
    sockets.answer(stop)
}

/// The sockets of a listener.
#[derive(Debug)]
pub(crate) struct Sockets {
    streams: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    /// A socket that sees every packet of the namespace: it takes the place of an SCTP socket.
    packets: File,
    /// The sockets that send SCTP's answers, one per family.
    raw: RawSenders,
    /// The addresses at which SCTP is answered: a packet that only passes through is not for this place.
    addresses: Vec<IpAddr>,
    /// The ports at which SCTP is answered.
    ports: Vec<u16>,
}

impl Sockets {
    pub(crate) fn open(addresses: &[IpAddr], ports: &[u16]) -> io::Result<Self> {
        // Sockets of IPv6 take IPv4 too, by default of Linux (net.ipv6.bindv6only).
        let any = |port: &u16| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), *port);
        let streams: Vec<TcpListener> = ports.iter().map(any).map(TcpListener::bind).collect::<io::Result<_>>()?;
        let datagrams: Vec<UdpSocket> = ports.iter().map(any).map(UdpSocket::bind).collect::<io::Result<_>>()?;
        for socket in &streams {
            socket.set_nonblocking(true)?;
        }
        for socket in &datagrams {
            socket.set_nonblocking(true)?;
        }
        let raw = RawSenders::open()?;
        let (addresses, ports) = (addresses.to_vec(), ports.to_vec());
        Ok(Self { streams, datagrams, packets: packets()?, raw, addresses, ports })
    }

    pub(crate) fn answer(self, stop: &AtomicBool) -> io::Result<()> {
        let mut bytes = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let all = self.streams.iter().map(AsFd::as_fd).chain(self.datagrams.iter().map(AsFd::as_fd));
            wait(all.chain([self.packets.as_fd()]), PollTimeout::from(LOOK))?;
            for socket in &self.streams {
                while let Ok((mut stream, _)) = socket.accept() {
                    // The greeting tells the other end that it speaks with this one. If that end has gone, nobody
                    // misses it.
                    let _ = stream.write_all(b"m");
                }
            }
            for socket in &self.datagrams {
                while let Ok((length, source)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(bytes.get(..length).unwrap_or_default(), source);
                }
            }
            while let Ok(length) = (&self.packets).read(&mut bytes) {
                let init = Init::parse(bytes.get(..length).unwrap_or_default());
                if let Some(answer) = init.and_then(|init| self.acknowledge(init)) {
                    let _ = self.raw.send(&answer);
                }
            }
        }
        Ok(())
    }

    fn acknowledge(&self, init: Init) -> Option<Init> {
        let ours = !init.acknowledges
            && self.addresses.contains(&init.destination)
            && self.ports.contains(&init.destination_port);
        ours.then_some(Init {
            source: init.destination,
            destination: init.source,
            source_port: init.destination_port,
            destination_port: init.source_port,
            verification_tag: init.initiate_tag,
            initiate_tag: 1,
            acknowledges: true,
        })
    }
}

/// A socket that sends whole IP packets.
#[derive(Debug)]
pub(crate) struct RawSenders {
    ipv4: OwnedFd,
    ipv6: OwnedFd,
}

impl RawSenders {
    pub(crate) fn open() -> io::Result<Self> {
        let open = |family| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        Ok(Self { ipv4: open(AddressFamily::Inet)?, ipv6: open(AddressFamily::Inet6)? })
    }

    pub(crate) fn send(&self, init: &Init) -> io::Result<()> {
        let socket = if init.destination.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        // Raw sockets of IPv6 take no port here (ipv6(7)).
        let target = SockaddrStorage::from(SocketAddr::new(init.destination, 0));
        sendto(socket.as_raw_fd(), &init.packet(), &target, MsgFlags::empty())?;
        Ok(())
    }
}

/// A socket that sees every packet of the namespace, without link-layer headers (packet(7)).
pub(crate) fn packets() -> io::Result<File> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?.into())
}

/// Waits until one of the sockets has something to read.
pub(crate) fn wait<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>, timeout: PollTimeout) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
