//! What a TCP socket has sent and the other end has not acknowledged.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The octets of a TCP connection that its other end has not acknowledged, those that have not been sent yet among them
/// (SIOCOUTQ, tcp(7)).
#[expect(unsafe_code, reason = "neither std nor nix has SIOCOUTQ")]
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<u64> {
    let mut octets: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and SIOCOUTQ writes one int to where the pointer leads.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut octets)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::try_from(octets).unwrap_or(0)) }
}
