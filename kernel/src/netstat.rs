//! What the kernel counts of segments that it drops before a socket sees them.

use std::{fs, io};

/// Segments that were dropped, of all sockets of the network namespace together, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpDrops {
    /// They bore no signature (RFC 2385), where a key says that they should (TCPMD5NotFound).
    pub unsigned: u64,
    /// They bore a signature, where no key is (TCPMD5Unexpected).
    pub unexpectedly_signed: u64,
    /// Their signature was of another key (TCPMD5Failure).
    pub wrongly_signed: u64,
    /// Their TTL was lower than a socket asks for (TCPMinTTLDrop, since Linux 5.16).
    pub low_ttl: u64,
}

impl TcpDrops {
    /// The counts now. What a kernel does not count is 0.
    pub fn now() -> io::Result<Self> {
        fs::read_to_string("/proc/thread-self/net/netstat").map(|text| Self::read(&text))
    }

    /// What was dropped since an earlier count.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            unsigned: self.unsigned.saturating_sub(earlier.unsigned),
            unexpectedly_signed: self.unexpectedly_signed.saturating_sub(earlier.unexpectedly_signed),
            wrongly_signed: self.wrongly_signed.saturating_sub(earlier.wrongly_signed),
            low_ttl: self.low_ttl.saturating_sub(earlier.low_ttl),
        }
    }

    /// Of each group there are two lines: names, then numbers.
    fn read(text: &str) -> Self {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut drops = Self::default();
        for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()) {
            let Ok(number) = number.parse() else { continue };
            match name {
                "TCPMD5NotFound" => drops.unsigned = number,
                "TCPMD5Unexpected" => drops.unexpectedly_signed = number,
                "TCPMD5Failure" => drops.wrongly_signed = number,
                "TCPMinTTLDrop" => drops.low_ttl = number,
                _ => {}
            }
        }
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name_wherever_they_stand() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected X TCPMD5Failure TCPMinTTLDrop\n\
                    TcpExt: 7 1 2 9 3 4\nIpExt: InNoRoutes TCPMD5Failure\nIpExt: 0 99\n";
        let drops = TcpDrops::read(text);
        assert_eq!(drops, TcpDrops { unsigned: 1, unexpectedly_signed: 2, wrongly_signed: 3, low_ttl: 4 });
        assert_eq!(drops.since(TcpDrops { unsigned: 1, ..drops }), TcpDrops::default());
        assert_eq!(TcpDrops::read("TcpExt: A\n"), TcpDrops::default());
    }
}
