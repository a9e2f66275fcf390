//! AS_PATH (RFC 4271 sections 4.3 and 5.1.2) and what becomes of it between speakers of two and of four octets (RFC 6793).

use std::fmt;

use bytes::{BufMut, BytesMut};
use nom::bytes::complete::take;
use nom::number::complete::be_u8;
use nom::{Parser as _, error::ParseError as _};
use types::Asn;

use super::octets::{Parsed, Unreadable, unreadable};

/// A path of AS numbers, kept as the octets that a four-octet AS_PATH has (one allocation, compared and sent as it is).
///
/// It is well-formed: its segments are sequences and sets of 1 to 255 AS numbers, none of them zero (RFC 7607).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(Box<[u8]>);

/// The kinds of segments; those of confederations (RFC 5065) are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// 1: in no order.
    Set,
    /// 2: in the order in which a packet meets them.
    Sequence,
}

/// A segment of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence or set.
    pub kind: SegmentKind,
    /// Its AS numbers, four octets each.
    asns: &'a [[u8; 4]],
}

/// How many octets an AS number has in the attribute at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

/// Whether segments of confederations make the attribute malformed (AS_PATH, RFC 5065 section 5) or are passed over
/// (AS4_PATH, RFC 6793 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confederation {
    Malformed,
    PassedOver,
}

impl AsPath {
    /// A path without segments, as an internal peer's own routes have it.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The segments as given; those without AS numbers are left out, those with more than 255 become several.
    pub fn new(segments: impl IntoIterator<Item = (SegmentKind, Vec<Asn>)>) -> Self {
        let mut builder = Builder::default();
        for (kind, asns) in segments {
            let asns: Vec<_> = asns.into_iter().map(|asn| asn.number().to_be_bytes()).collect();
            builder.push(kind, &asns);
        }
        builder.finish()
    }

    /// One sequence, or several where it is longer than 255.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let mut builder = Builder::default();
        for asn in asns {
            builder.append(SegmentKind::Sequence, &[asn.number().to_be_bytes()]);
        }
        builder.finish()
    }

    /// The path with an AS number in front (RFC 4271 section 5.1.2).
    #[must_use]
    pub fn prepended(&self, asn: Asn) -> Self {
        let mut builder = Builder::default();
        let mut segments = self.segments();
        let own = asn.number().to_be_bytes();
        match segments.clone().next() {
            Some(Segment { kind: SegmentKind::Sequence, asns }) if asns.len() < SEGMENT_LIMIT => {
                segments.next();
                let longer: Vec<_> = std::iter::once(own).chain(asns.iter().copied()).collect();
                builder.push(SegmentKind::Sequence, &longer);
            }
            _ => builder.push(SegmentKind::Sequence, &[own]),
        }
        segments.for_each(|segment| builder.push(segment.kind, segment.asns));
        builder.finish()
    }

    /// The segments in the order in which they stand.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> + Clone {
        Segments(&self.0)
    }

    /// The length that best path compares: a set counts as one (RFC 4271 section 9.1.2.2 a).
    pub fn length(&self) -> usize {
        self.segments().map(|segment| segment.length()).sum()
    }

    /// Whether there is no AS number in it.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The AS that the route was received from: the first one, unless the path begins with a set.
    pub fn first(&self) -> Option<Asn> {
        let first = self.segments().next()?;
        (first.kind == SegmentKind::Sequence).then(|| first.asns().next())?
    }

    /// The AS that the route began in: the last one, or all of a set that stands last. None for a route of our own AS.
    pub fn last(&self) -> impl Iterator<Item = Asn> + use<'_> {
        let last = self.segments().last();
        let skipped = last.as_ref().map_or(0, |last| match last.kind {
            SegmentKind::Set => 0,
            SegmentKind::Sequence => last.asns.len().saturating_sub(1),
        });
        let octets = last.map_or(&[][..], |last| last.asns);
        octets.iter().skip(skipped).map(|octets| asn(*octets))
    }

    /// Whether the AS number is anywhere in it: a loop, if it is our own (RFC 4271 section 9.1.2).
    pub fn contains(&self, asn: Asn) -> bool {
        let octets = asn.number().to_be_bytes();
        self.segments().any(|segment| segment.asns.contains(&octets))
    }

    /// The value of an AS_PATH or AS4_PATH; an error is a malformed one (RFC 7606 section 7.2, RFC 7607).
    pub(super) fn parse(value: &[u8], width: Width, confederation: Confederation) -> Result<Self, Unreadable> {
        let mut builder = Builder(Vec::with_capacity(match width {
            Width::Two => value.len() * 2,
            Width::Four => value.len(),
        }));
        let mut rest = value;
        while !rest.is_empty() {
            let (behind, (kind, asns)) = segment(rest, width)?;
            let at = || Unreadable::from_error_kind(rest, nom::error::ErrorKind::Verify);
            match kind {
                SET | SEQUENCE => {
                    let kind = if kind == SET { SegmentKind::Set } else { SegmentKind::Sequence };
                    builder.push_wire(kind, asns, width).ok_or_else(at)?;
                }
                CONFED_SEQUENCE | CONFED_SET if confederation == Confederation::PassedOver => {}
                _ => return Err(at()),
            }
            rest = behind;
        }
        Ok(builder.finish())
    }

    /// The value of a four-octet AS_PATH.
    pub(super) const fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Whether an AS number does not fit two octets, so that AS4_PATH must go with it.
    pub(super) fn needs_four_octets(&self) -> bool {
        self.segments().any(|segment| segment.asns.iter().any(|[high, middle, ..]| (*high, *middle) != (0, 0)))
    }

    /// The length of the value of a two-octet AS_PATH.
    pub(super) fn two_octet_length(&self) -> usize {
        self.segments().map(|segment| 2 + 2 * segment.asns.len()).sum()
    }

    /// The value of a two-octet AS_PATH, with AS_TRANS for what does not fit (RFC 6793 section 4.2.2).
    pub(super) fn put_two_octets(&self, out: &mut BytesMut) {
        for segment in self.segments() {
            out.put_u8(segment.kind.number());
            out.put_u8(u8::try_from(segment.asns.len()).unwrap_or(u8::MAX));
            segment.asns().for_each(|asn| out.put_u16(asn.two_octets()));
        }
    }

    /// The path that an AS_PATH of two octets and the AS4_PATH beside it mean (RFC 6793 section 4.2.3): AS4_PATH, and in
    /// front of it those AS numbers that speakers of two octets have added since.
    pub(super) fn merged(self, as4_path: &Self) -> Self {
        let Some(mut added) = self.length().checked_sub(as4_path.length()) else { return self };
        let mut builder = Builder::default();
        let mut is_cut = false;
        for segment in self.segments() {
            if added == 0 {
                break;
            }
            is_cut = segment.length() > added;
            let asns = if is_cut { segment.asns.get(..added) } else { None };
            builder.push(segment.kind, asns.unwrap_or(segment.asns));
            added = added.saturating_sub(segment.length());
        }
        for segment in as4_path.segments() {
            // The rest of the sequence that was cut.
            if std::mem::take(&mut is_cut) {
                builder.append(segment.kind, segment.asns);
            } else {
                builder.push(segment.kind, segment.asns);
            }
        }
        builder.finish()
    }
}

impl fmt::Display for AsPath {
    /// `64512 64513 {64514,64515}`; nothing for the empty path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for segment in self.segments() {
            f.write_str(separator)?;
            let (open, between, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
            };
            separator = open;
            for asn in segment.asns() {
                write!(f, "{separator}{asn}")?;
                separator = between;
            }
            f.write_str(close)?;
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsPath({self})")
    }
}

impl Segment<'_> {
    /// The AS numbers in the order in which they stand.
    pub fn asns(&self) -> impl DoubleEndedIterator<Item = Asn> + ExactSizeIterator {
        self.asns.iter().map(|octets| asn(*octets))
    }

    /// What it adds to the length of the path.
    const fn length(&self) -> usize {
        match self.kind {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => self.asns.len(),
        }
    }
}

fn asn(octets: [u8; 4]) -> Asn {
    Asn::new(u32::from_be_bytes(octets)).unwrap_or(Asn::TRANS)
}

impl SegmentKind {
    const fn number(self) -> u8 {
        match self {
            Self::Set => SET,
            Self::Sequence => SEQUENCE,
        }
    }
}

/// Over the octets of a well-formed path.
#[derive(Clone)]
struct Segments<'a>(&'a [u8]);

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let (behind, (kind, asns)) = segment(self.0, Width::Four).ok()?;
        self.0 = behind;
        let kind = if kind == SET { SegmentKind::Set } else { SegmentKind::Sequence };
        Some(Segment { kind, asns: asns.as_chunks().0 })
    }
}

/// A segment's type, and the octets of its AS numbers: at least one (RFC 7606 section 7.2).
fn segment(input: &[u8], width: Width) -> Parsed<'_, (u8, &[u8])> {
    let octets = match width {
        Width::Two => 2,
        Width::Four => 4,
    };
    let (rest, (kind, count)) = (be_u8, be_u8).parse(input)?;
    if count == 0 {
        return Err(unreadable(input));
    }
    let (rest, asns) = take(usize::from(count) * octets).parse(rest)?;
    Ok((rest, (kind, asns)))
}

/// A path being built.
#[derive(Default)]
struct Builder(Vec<u8>);

impl Builder {
    /// A segment of its own.
    fn push(&mut self, kind: SegmentKind, asns: &[[u8; 4]]) {
        for part in asns.chunks(SEGMENT_LIMIT) {
            self.0.push(kind.number());
            self.0.extend(u8::try_from(part.len()));
            self.0.extend_from_slice(part.as_flattened());
        }
    }

    /// The AS numbers of a segment as they came, none of which may be zero.
    fn push_wire(&mut self, kind: SegmentKind, asns: &[u8], width: Width) -> Option<()> {
        let count = match width {
            Width::Two => asns.len() / 2,
            Width::Four => asns.len() / 4,
        };
        self.0.push(kind.number());
        self.0.push(u8::try_from(count).ok()?);
        match width {
            Width::Two => asns.as_chunks::<2>().0.iter().for_each(|[high, low]| self.0.extend([0, 0, *high, *low])),
            Width::Four => self.0.extend_from_slice(asns),
        }
        let added = self.0.len().checked_sub(count * 4).and_then(|start| self.0.get(start..))?;
        (!added.as_chunks::<4>().0.contains(&[0; 4])).then_some(())
    }

    /// AS numbers that continue the last segment, if that is of the same kind, as far as it has room.
    fn append(&mut self, kind: SegmentKind, asns: &[[u8; 4]]) {
        let last = Segments(&self.0).last().filter(|last| last.kind == kind);
        let room = last.map_or(0, |last| SEGMENT_LIMIT - last.asns.len());
        let (joined, rest) = asns.split_at(room.min(asns.len()));
        if let Some(last) = last.filter(|_| !joined.is_empty()) {
            let count = last.asns.len() + joined.len();
            let at = self.0.len() - last.asns.len() * 4 - 1;
            if let (Some(field), Ok(count)) = (self.0.get_mut(at), u8::try_from(count)) {
                *field = count;
            }
            self.0.extend_from_slice(joined.as_flattened());
        }
        self.push(kind, rest);
    }

    fn finish(self) -> AsPath {
        AsPath(self.0.into_boxed_slice())
    }
}

/// AS numbers in one segment.
const SEGMENT_LIMIT: usize = 255;

const SET: u8 = 1;
const SEQUENCE: u8 = 2;
const CONFED_SEQUENCE: u8 = 3;
const CONFED_SET: u8 = 4;

#[cfg(test)]
mod tests;
