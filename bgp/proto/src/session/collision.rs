//! Which of two connections with the same peer stays.

use types::{Asn, RouterId};

/// The connection that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivor {
    /// The one that we dialled.
    Dialled,
    /// The one that the peer dialled.
    Accepted,
}

/// The connection that the speaker with the higher identifier dialled (RFC 4271 section 6.8); of equal identifiers, the
/// one with the higher AS number (RFC 6286 section 2.3). Both sides come to the same answer.
pub fn survivor(local: (RouterId, Asn), peer: (RouterId, Asn)) -> Survivor {
    let rank = |(id, asn): (RouterId, Asn)| (id.number(), asn.number());
    if rank(local) > rank(peer) { Survivor::Dialled } else { Survivor::Accepted }
}
