//! UPDATEs to be sent: prefixes packed under attributes that are encoded once.

use std::iter::{self, Peekable};
use std::net::{IpAddr, Ipv6Addr};

use bytes::{BufMut as _, Bytes, BytesMut};
use types::{Family, Prefix};

use super::attributes::{self, MP_REACH_NLRI, MP_UNREACH_NLRI, PathAttributes};
use super::codec::Codec;
use super::family::AfiSafi;
use super::header::{self, HEADER_LENGTH, MAX_LENGTH, MessageType};
use super::nlri;

/// Builds UPDATEs for all sessions of one [`Codec`]: what is packed is one run of octets that all of them share. Nothing
/// is allocated for a prefix.
///
/// ```
/// # use bgp_proto::wire::{Codec, Families, Packer, PathAttributes, PeerType};
/// # use types::Family;
/// let codec = Codec { four_octet_as: true, peer_type: PeerType::External, families: Families::ALL };
/// let mut packer = Packer::new(codec);
/// packer.withdraw(Family::Ipv4, ["10.0.0.0/26".parse()?]);
/// packer.reach("192.0.2.1".parse()?, None, &PathAttributes::default(), ["10.0.0.64/26".parse()?])?;
/// assert_eq!(packer.take().messages, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Packer {
    /// What the sessions have agreed on.
    codec: Codec,
    /// The messages so far.
    out: BytesMut,
    /// How many messages that is.
    messages: usize,
    /// The attributes that the messages of one call share.
    shared: BytesMut,
}

/// Whole UPDATEs, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// The octets.
    pub octets: Bytes,
    /// The number of messages.
    pub messages: usize,
}

/// Attributes that leave no room for a prefix in a message (RFC 4271 section 9.2: the route is not advertised).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("attributes of {length} octets leave no room for a prefix in a message")]
pub struct TooLong {
    /// The attributes' length in octets.
    pub length: usize,
}

impl Packer {
    /// A packer without messages.
    pub fn new(codec: Codec) -> Self {
        Self { codec, out: BytesMut::new(), messages: 0, shared: BytesMut::new() }
    }

    /// Announces prefixes of the next hop's family with the same attributes and next hop; prefixes of the other family are
    /// left out. Nothing is packed for no prefixes. An error is ours or the route's: nothing was packed, and a peer that has
    /// the prefixes with other attributes must be sent their withdrawal.
    pub fn reach(
        &mut self,
        next_hop: IpAddr,
        link_local: Option<Ipv6Addr>,
        attributes: &PathAttributes,
        prefixes: impl IntoIterator<Item = Prefix>,
    ) -> Result<(), TooLong> {
        let family = Family::of(next_hop);
        let mut prefixes = prefixes.into_iter().filter(|prefix| prefix.family() == family).peekable();
        if prefixes.peek().is_none() {
            return Ok(());
        }
        self.shared.clear();
        match next_hop {
            IpAddr::V4(next_hop) => {
                attributes::put(&mut self.shared, &self.codec, attributes, Some(next_hop));
                self.check_room(0)?;
                while prefixes.peek().is_some() {
                    self.classic_reach(&mut prefixes);
                }
            }
            IpAddr::V6(next_hop) => {
                attributes::put(&mut self.shared, &self.codec, attributes, None);
                let head = MpHead::reach(next_hop, link_local);
                self.check_room(MP_HEADER_LENGTH + head.octets().len())?;
                while prefixes.peek().is_some() {
                    self.multiprotocol(MP_REACH_NLRI, &head, &mut prefixes);
                }
            }
        }
        Ok(())
    }

    /// Withdraws prefixes of a family; those of the other are left out.
    pub fn withdraw(&mut self, family: Family, prefixes: impl IntoIterator<Item = Prefix>) {
        let mut prefixes = prefixes.into_iter().filter(|prefix| prefix.family() == family).peekable();
        while prefixes.peek().is_some() {
            self.unreach(family, &mut prefixes);
        }
    }

    /// Says that all routes of a family have been sent (RFC 4724 section 2).
    pub fn end_of_rib(&mut self, family: Family) {
        self.unreach(family, &mut iter::empty().peekable());
    }

    /// The messages since the last call.
    pub fn take(&mut self) -> Packed {
        Packed { octets: self.out.split().freeze(), messages: std::mem::take(&mut self.messages) }
    }

    /// Whether the shared attributes, and `more` octets of one that is not shared, leave room for any prefix.
    fn check_room(&self, more: usize) -> Result<(), TooLong> {
        let length = self.shared.len() + more;
        if UPDATE_LENGTH + length + LONGEST_PREFIX > MAX_LENGTH { Err(TooLong { length }) } else { Ok(()) }
    }

    /// One UPDATE that withdraws as many prefixes as fit; End-of-RIB if there are none.
    fn unreach(&mut self, family: Family, prefixes: &mut Peekable<impl Iterator<Item = Prefix>>) {
        self.shared.clear();
        match family {
            Family::Ipv4 => self.classic_withdraw(prefixes),
            Family::Ipv6 => self.multiprotocol(MP_UNREACH_NLRI, &MpHead::unreach(family), prefixes),
        }
    }

    /// One UPDATE with the shared attributes and as many prefixes in the NLRI field as fit.
    fn classic_reach(&mut self, prefixes: &mut Peekable<impl Iterator<Item = Prefix>>) {
        let start = self.begin();
        self.out.put_u16(0);
        let attributes = self.begin_field();
        self.out.put_slice(&self.shared);
        self.finish_field(attributes);
        put_prefixes(&mut self.out, start + MAX_LENGTH, prefixes);
        self.finish(start);
    }

    /// One UPDATE with as many prefixes in the Withdrawn Routes field as fit, and no attributes.
    fn classic_withdraw(&mut self, prefixes: &mut Peekable<impl Iterator<Item = Prefix>>) {
        let start = self.begin();
        let withdrawn = self.begin_field();
        put_prefixes(&mut self.out, start + MAX_LENGTH - 2, prefixes);
        self.finish_field(withdrawn);
        self.out.put_u16(0);
        self.finish(start);
    }

    /// One UPDATE with as many prefixes as fit in MP_REACH_NLRI or MP_UNREACH_NLRI, which comes first (RFC 7606 section
    /// 5.1), and the shared attributes behind it.
    fn multiprotocol(&mut self, code: u8, head: &MpHead, prefixes: &mut Peekable<impl Iterator<Item = Prefix>>) {
        let start = self.begin();
        self.out.put_u16(0);
        let attributes = self.begin_field();
        self.out.put_slice(&[MP_FLAGS, code]);
        let attribute = self.begin_field();
        self.out.put_slice(head.octets());
        put_prefixes(&mut self.out, start + MAX_LENGTH - self.shared.len(), prefixes);
        self.finish_field(attribute);
        self.out.put_slice(&self.shared);
        self.finish_field(attributes);
        self.finish(start);
    }

    /// Begins a message, and returns where.
    fn begin(&mut self) -> usize {
        let start = self.out.len();
        header::put(&mut self.out, MessageType::Update);
        start
    }

    /// Writes the length of the message that began there.
    fn finish(&mut self, start: usize) {
        if let Some(message) = self.out.get_mut(start..) {
            header::set_length(message);
        }
        self.messages += 1;
    }

    /// Begins a field with a length of two octets, and returns where.
    fn begin_field(&mut self) -> usize {
        let start = self.out.len();
        self.out.put_u16(0);
        start
    }

    /// Writes the length of the field that began there.
    fn finish_field(&mut self, start: usize) {
        let length = self.out.len() - start - 2;
        if let (Some(field), Ok(length)) = (self.out.get_mut(start..start + 2), u16::try_from(length)) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Appends prefixes as long as they end before `end`.
fn put_prefixes(out: &mut BytesMut, end: usize, prefixes: &mut Peekable<impl Iterator<Item = Prefix>>) {
    while let Some(prefix) = prefixes.next_if(|prefix| out.len() + nlri::length(prefix) <= end) {
        nlri::put(out, &prefix);
    }
}

/// What stands in front of the prefixes of MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760 sections 3 and 4).
struct MpHead {
    /// Family, then for MP_REACH_NLRI the length of the next hop, one or two addresses and a reserved octet.
    octets: [u8; 37],
    length: usize,
}

impl MpHead {
    fn reach(next_hop: Ipv6Addr, link_local: Option<Ipv6Addr>) -> Self {
        let mut head = Self::unreach(Family::Ipv6);
        let link_local = link_local.map(|address| address.octets());
        head.push(&[if link_local.is_some() { 32 } else { 16 }]);
        head.push(&next_hop.octets());
        head.push(link_local.as_ref().map_or(&[], |octets| octets.as_slice()));
        head.push(&[0]);
        head
    }

    fn unreach(family: Family) -> Self {
        let mut head = Self { octets: [0; 37], length: 0 };
        let AfiSafi { afi, safi } = AfiSafi::unicast(family);
        head.push(&afi.to_be_bytes());
        head.push(&[safi]);
        head
    }

    fn push(&mut self, more: &[u8]) {
        self.octets.iter_mut().skip(self.length).zip(more).for_each(|(to, from)| *to = *from);
        self.length += more.len();
    }

    fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or(&self.octets)
    }
}

/// The octets of an UPDATE without prefixes and attributes.
const UPDATE_LENGTH: usize = HEADER_LENGTH + 4;

/// The octets of the longest prefix: an IPv6 address and its length.
const LONGEST_PREFIX: usize = 17;

/// The octets of flags, code and length of a multiprotocol attribute.
const MP_HEADER_LENGTH: usize = 4;

/// The flags of a multiprotocol attribute: optional, with a length of two octets.
const MP_FLAGS: u8 = 0x90;
