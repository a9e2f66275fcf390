//! Options of TCP sockets that the standard library, nix and socket2 do not have: signatures of segments (TCP MD5, RFC 2385),
//! the TTL of packets (RFC 5082), and the SYN that a connection began with.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use types::Family;
use zeroize::Zeroize as _;

/// Octets of a key that the kernel takes at most (TCP_MD5SIG_MAXKEYLEN, linux/tcp.h).
const LONGEST_KEY: usize = libc::TCP_MD5SIG_MAXKEYLEN;

/// Options of linux/tcp.h that libc does not have.
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    /// The peer's address, with port 0.
    address: libc::sockaddr_storage,
    /// Extensions; none.
    flags: u8,
    /// For an extension that is not used.
    prefix_length: u8,
    /// Octets of `key`; 0 takes the key away.
    key_length: u16,
    /// For an extension that is not used.
    interface: libc::c_int,
    /// The key.
    key: [u8; LONGEST_KEY],
}

/// The key is in this memory only as long as the kernel copies it.
impl Drop for TcpMd5Sig {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Signs what the socket sends to the peer, and drops what comes from it unsigned or with another key (RFC 2385); without a
/// key, neither. The port of the peer does not matter.
///
/// On a listening socket this is for connections to come: each takes the key of its peer along, and keeps it when the
/// listener's changes. On a connected socket it holds from the next segment on; what is sent again is signed anew.
/// Taking away a key that is not there is success.
///
/// # Errors
///
/// `InvalidInput` for a key of more than 80 octets or none; ENOPROTOOPT from a kernel that cannot sign; ENOMEM where the
/// socket has as many keys as `net.core.optmem_max` has room for.
pub fn set_md5_key(socket: impl AsFd, peer: IpAddr, key: Option<&[u8]>) -> io::Result<()> {
    let octets = key.unwrap_or_default();
    if octets.len() > LONGEST_KEY || key.is_some_and(<[u8]>::is_empty) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a TCP MD5 key has 1 to 80 octets"));
    }
    let mut option = TcpMd5Sig {
        address: storage(peer),
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(octets.len()).unwrap_or_default(),
        interface: 0,
        key: [0; LONGEST_KEY],
    };
    option.key.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
    match set(&socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &option) {
        Err(error) if key.is_none() && matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => Ok(()),
        done => done,
    }
}

/// Sends with this TTL, or hop limit, and drops what comes with less than the least one; 0 drops nothing. A listening socket
/// hands both on to its connections.
pub fn set_ttl(socket: impl AsFd, family: Family, ttl: u8, least: u8) -> io::Result<()> {
    let (level, of_sent, of_received) = match family {
        Family::Ipv4 => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_MINTTL),
        Family::Ipv6 => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_MINHOPCOUNT),
    };
    set(&socket, level, of_sent, &libc::c_int::from(ttl))?;
    set(&socket, level, of_received, &libc::c_int::from(least))
}

/// Waits at most so long (1 to 120 s) before it sends again what was not acknowledged. Kernels before 6.15 do not know this
/// and answer ENOPROTOOPT.
pub fn set_longest_retransmission_timeout(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    let milliseconds = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    set(&socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, &milliseconds)
}

/// A listening socket keeps the SYN of each connection for [`saved_syn`].
pub fn save_syns(listener: impl AsFd) -> io::Result<()> {
    set(&listener, libc::IPPROTO_TCP, TCP_SAVE_SYN, &1)
}

/// What the SYN of an accepted connection says, once: the kernel forgets it then. None where the kernel has not kept it, as
/// while it answers a flood of SYNs with cookies.
pub fn saved_syn(accepted: impl AsFd) -> io::Result<Option<Syn>> {
    let mut octets = [0_u8; 512];
    let length = get(&accepted, TCP_SAVED_SYN, &mut octets)?;
    let kept = octets.get(..length).unwrap_or_default();
    Ok(Syn::read(kept))
}

/// Whether the connection sends again and again what its other end does not acknowledge (`tcpi_retransmits` of linux/tcp.h).
pub fn is_resending(connected: impl AsFd) -> io::Result<bool> {
    // The first fields of struct tcp_info: the state, that of congestion control, and how often in a row the retransmission
    // timer has run out since something was acknowledged last.
    let mut fields = [0_u8; 8];
    get(&connected, libc::TCP_INFO, &mut fields)?;
    Ok(fields[2] > 0)
}

/// What the packet says that a connection began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// The TTL, or hop limit, that it arrived with.
    pub ttl: u8,
    /// Whether it bears a signature (RFC 2385). That the signature is right is for the kernel to check, and it has where it
    /// had the peer's key by then.
    pub is_signed: bool,
}

/// TCP's options (RFC 9293 section 3.1, RFC 2385 section 3.0).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MD5_SIGNATURE: u8 = 19;

impl Syn {
    /// Reads an IP header with the TCP header behind it.
    fn read(packet: &[u8]) -> Option<Self> {
        let (ttl, segment) = match packet.first()? >> 4 {
            4 => (*packet.get(8)?, packet.get(usize::from(packet.first()? & 0xf) * 4..)?),
            6 => (*packet.get(7)?, behind_extensions(packet)?),
            _ => return None,
        };
        let header_length = usize::from(segment.get(12)? >> 4) * 4;
        Some(Self { ttl, is_signed: has_option(segment.get(20..header_length)?, MD5_SIGNATURE) })
    }
}

/// What is behind the extension headers of an IPv6 packet (RFC 8200 section 4), where it is TCP.
fn behind_extensions(packet: &[u8]) -> Option<&[u8]> {
    let (mut next, mut rest) = (i32::from(*packet.get(6)?), packet.get(40..)?);
    while next != libc::IPPROTO_TCP {
        if ![libc::IPPROTO_HOPOPTS, libc::IPPROTO_ROUTING, libc::IPPROTO_DSTOPTS].contains(&next) {
            return None;
        }
        next = i32::from(*rest.first()?);
        rest = rest.get((usize::from(*rest.get(1)?) + 1) * 8..)?;
    }
    Some(rest)
}

fn has_option(mut options: &[u8], wanted: u8) -> bool {
    while let Some((kind, rest)) = options.split_first() {
        match *kind {
            END_OF_OPTIONS => return false,
            NO_OPERATION => options = rest,
            kind if kind == wanted => return true,
            _ => {
                // The length counts the octets of kind and length.
                let length = rest.first().map_or(0, |length| usize::from(*length));
                let Some(behind) = options.get(length.max(2)..) else { return false };
                options = behind;
            }
        }
    }
    false
}

/// The address as the kernel takes it, with port 0.
#[expect(unsafe_code, reason = "neither std nor nix gives a sockaddr_storage")]
fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let family = |family: libc::c_int| libc::sa_family_t::try_from(family).unwrap_or_default();
    // SAFETY: a sockaddr_storage is numbers and padding, for which all zeros is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match address {
        IpAddr::V4(address) => {
            let octets = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            let address = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: 0,
                sin_addr: octets,
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage has room for every address of a socket and is aligned for each.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(address) };
        }
        IpAddr::V6(address) => {
            let address = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(address) };
        }
    }
    storage
}

/// Reads an option of TCP into the octets; how many the kernel has written.
#[expect(unsafe_code, reason = "nix and socket2 do not have these options")]
fn get(socket: &impl AsFd, option: libc::c_int, octets: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(octets.len()).unwrap_or_default();
    // SAFETY: the pointer is to octets that live through the call, and `length` holds how many there are, which the kernel
    // does not write beyond; the descriptor is open as long as it is borrowed.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            octets.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer == 0 { Ok(usize::try_from(length).unwrap_or_default()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option to a value of C's layout.
#[expect(unsafe_code, reason = "nix and socket2 do not have these options")]
fn set<T>(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the pointer is to a value that lives through the call, and the length is its size in octets, which the kernel
    // reads and does not read beyond; the descriptor is open as long as it is borrowed.
    let answer = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
