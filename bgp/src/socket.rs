//! Listening and dialling sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Every peer of a large mesh may dial at once when this node comes back.
const BACKLOG: i32 = 4_096;

/// One listener per family on all addresses.
pub(crate) fn listeners(port: u16) -> io::Result<Vec<TcpListener>> {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .into_iter()
        .map(|address| listener(SocketAddr::new(address, port)))
        // A host without IPv6 has one listener.
        .filter(|result| !matches!(result, Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT)))
        .collect()
}

/// Address family not supported by protocol.
const EAFNOSUPPORT: i32 = 97;

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted agent listens at once, whatever state its old connections are in.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A connection to a peer, from the address that the peer knows us by.
pub(crate) async fn dial(remote: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let stream = socket.connect(remote).await?;
    prepare(&stream)?;
    Ok(stream)
}

/// What holds for every connection, dialled or accepted.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Whole rounds are written at once; waiting for more (Nagle) only delays them.
    stream.set_nodelay(true)
}
