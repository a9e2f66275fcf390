//! Type codes and flags of path attributes (RFC 4271 section 4.3).

/// The attribute is not well-known: a speaker need not know it.
pub(super) const OPTIONAL: u8 = 0x80;
/// Speakers that do not know the attribute send it on.
pub(super) const TRANSITIVE: u8 = 0x40;
/// A speaker that did not know the attribute has sent it on.
pub(super) const PARTIAL: u8 = 0x20;
/// The length has two octets.
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
pub(super) const MULTI_EXIT_DISC: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
pub(super) const ATOMIC_AGGREGATE: u8 = 6;
pub(super) const AGGREGATOR: u8 = 7;
pub(super) const COMMUNITIES: u8 = 8;
pub(super) const ORIGINATOR_ID: u8 = 9;
pub(super) const CLUSTER_LIST: u8 = 10;
pub(in crate::wire) const MP_REACH_NLRI: u8 = 14;
pub(in crate::wire) const MP_UNREACH_NLRI: u8 = 15;
pub(super) const AS4_PATH: u8 = 17;
pub(super) const AS4_AGGREGATOR: u8 = 18;

/// The Optional and Transitive bits that an attribute has; `None` for those that are not known here.
pub(super) const fn flags(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MULTI_EXIT_DISC | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH_NLRI | MP_UNREACH_NLRI => Some(OPTIONAL),
        AGGREGATOR | COMMUNITIES | AS4_PATH | AS4_AGGREGATOR => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}
