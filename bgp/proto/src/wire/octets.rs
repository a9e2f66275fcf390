//! What nom's parsers have in common here.

use nom::IResult;
use nom::error::{ErrorKind, ParseError};

/// Octets that end before the field does, or that are no such field. The caller knows what that means in RFC terms; the
/// place is told as the number of octets that were left, which stays true whatever part of a message a parser is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Octets from where the parser stopped to the end of its input.
    pub(super) left: usize,
}

impl ParseError<&[u8]> for Unreadable {
    fn from_error_kind(input: &[u8], _: ErrorKind) -> Self {
        Self { left: input.len() }
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

impl From<nom::Err<Self>> for Unreadable {
    fn from(error: nom::Err<Self>) -> Self {
        match error {
            nom::Err::Error(unreadable) | nom::Err::Failure(unreadable) => unreadable,
            // Only streaming parsers ask for more.
            nom::Err::Incomplete(_) => Self { left: 0 },
        }
    }
}

/// What the parsers return: the octets behind the field, and the field.
pub(super) type Parsed<'a, T> = IResult<&'a [u8], T, Unreadable>;

/// The failure of a parser at these octets.
pub(super) fn unreadable(input: &[u8]) -> nom::Err<Unreadable> {
    nom::Err::Error(Unreadable { left: input.len() })
}
