//! Listening and dialling sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use types::Family;

use crate::security::{SENT_TTL, Security, Terms};

/// Connections that may wait to be accepted: every peer of a large mesh may dial at once when this node comes back.
const ACCEPT_BACKLOG: i32 = 4_096;

/// One listener per family on all addresses, which has the keys of its peers before the first SYN.
pub(crate) fn listeners(port: u16, security: &Security) -> io::Result<Vec<TcpListener>> {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .into_iter()
        .map(|address| listener(SocketAddr::new(address, port), security))
        // A host whose kernel has no IPv6 listens on IPv4 alone.
        .filter(|result| !matches!(result, Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT)))
        .collect()
}

/// The kernel's "address family not supported by protocol".
const EAFNOSUPPORT: i32 = 97;

fn listener(address: SocketAddr, security: &Security) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // So that a restarted agent can listen at once, whatever state the connections of its former life are in.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    let family = Family::of(address.ip());
    sockopt::set_ttl(&socket, family, SENT_TTL, 0)?;
    // A least TTL is a peer's own, not the listener's: the SYN tells how far its sender is.
    sockopt::save_syns(&socket)?;
    for (peer, key) in security.keys().filter(|(peer, _)| Family::of(*peer) == family) {
        sockopt::set_md5_key(&socket, peer, Some(key))?;
    }
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to a peer from `local`, the address that the peer knows us by, on its terms.
pub(crate) async fn dial(remote: SocketAddr, local: Option<IpAddr>, terms: &Terms) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    terms.put_on(&socket, remote.ip())?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let stream = socket.connect(remote).await?;
    prepare(&stream)?;
    Ok(stream)
}

/// Our end of a connection, and the other.
pub(crate) fn ends(stream: &TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

/// Sets the options that every connection has, dialled or accepted.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    // A round is written as a whole, so waiting for more octets (Nagle) would only delay it.
    stream.set_nodelay(true)
}
