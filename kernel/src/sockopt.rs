//! Options of TCP sockets that socket2 lacks, for the BGP speaker.
//!
//! None yet. GTSM (RFC 5082, IP_MINTTL) and TCP MD5 signatures (RFC 2385) belong here.
