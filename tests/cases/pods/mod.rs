//! What a hostile pod can do to the nodes and routers that carry it.

// The ports of BGP and BFD, and everything else of nodes that pods have no business with.
mod closed;
// Floods.
mod floods;
// What a privileged pod makes by hand.
mod matrix;

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use tests::{Place, Pod, run_in};
use types::Family;

/// So long a connection that must not come about is tried: two attempts of the kernel's.
const CONNECT_TIME: Duration = Duration::from_millis(1_500);

/// The addresses of a node of the mesh, by its number.
pub(crate) fn node_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => [172, 31, number, 3].into(),
        Family::Ipv6 => [0xfd00, 0x31, u16::from(number), 0, 0, 0, 0, 3].into(),
    }
}

/// The router's address on the link of a node.
pub(crate) fn router_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => [172, 31, number, 2].into(),
        Family::Ipv6 => [0xfd00, 0x31, u16::from(number), 0, 0, 0, 0, 2].into(),
    }
}

/// A pod's gateway, with a port there.
pub(crate) fn gateway(pod: &Pod, family: Family, port: u16) -> Result<SocketAddr, Box<dyn Error>> {
    match family {
        Family::Ipv4 => Ok((types::cni::GATEWAY_IPV4, port).into()),
        Family::Ipv6 => {
            let said = pod.exec(&["ip", "-o", "link", "show", "dev", "eth0"])?;
            let index = said.split(':').next().unwrap_or_default().trim().parse()?;
            Ok(SocketAddrV6::new(types::cni::GATEWAY_IPV6, port, 0, index).into())
        }
    }
}

/// A TCP connection from a place; `from` is its source port (0: any).
pub(crate) fn connect(place: &dyn Place, from: u16, to: SocketAddr) -> io::Result<TcpStream> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
    };
    if from == 0 {
        return run_in(&place.netns()?, || TcpStream::connect_timeout(&to, CONNECT_TIME));
    }
    run_in(&place.netns()?, || {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        let time = nix::sys::time::TimeVal::new(1, 500_000);
        // It also bounds connect(2), see socket(7).
        setsockopt(&socket, sockopt::SendTimeout, &time)?;
        match to {
            SocketAddr::V4(to) => {
                bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, from))?;
                nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
            }
            SocketAddr::V6(to) => {
                let any = SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, from, 0, 0);
                bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
                nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn6::from(to))?;
            }
        }
        Ok(TcpStream::from(socket))
    })
}

/// Sends a datagram from a place; `from` is its source port (0: any). That it cannot be sent is as good as its being dropped.
pub(crate) fn send(place: &dyn Place, from: u16, to: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = run_in(&place.netns()?, || UdpSocket::bind((any, from)))?;
    let _ = socket.send_to(b"datagram", to);
    Ok(())
}
