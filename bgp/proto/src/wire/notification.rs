//! NOTIFICATION (RFC 4271 section 4.5): why a session ends, in the codes that both sides know.

use std::fmt;

use bytes::{BufMut as _, Bytes};
use types::Family;

use super::header::{self, MessageType};
use super::{AfiSafi, MAX_LENGTH};

/// A NOTIFICATION: the last message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What is wrong.
    pub error: ErrorCode,
    /// What helps to diagnose it; its form depends on the error.
    pub data: Vec<u8>,
}

/// Error code and subcode (RFC 4271 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 1: the header of a message.
    Header(HeaderError),
    /// 2: OPEN.
    Open(OpenError),
    /// 3: UPDATE.
    Update(UpdateError),
    /// 4: nothing was heard within the hold time.
    HoldTimerExpired,
    /// 5: a message that the state does not expect (RFC 6608).
    Fsm(FsmError),
    /// 6: the session ends without any fault (RFC 4486).
    Cease(Cease),
    /// 7: ROUTE-REFRESH (RFC 7313 section 5).
    RouteRefresh(RouteRefreshError),
    /// Any other pair.
    Other {
        /// The error code.
        code: u8,
        /// The error subcode.
        subcode: u8,
    },
}

/// Declares the subcodes of one error code: a variant, its number and its words each.
macro_rules! subcodes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A subcode that is not known here.
            Other(u8),
        }

        impl $name {
            /// The subcode on the wire.
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }
        }

        impl From<u8> for $name {
            fn from(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    number => Self::Other(number),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(number) => write!(f, "subcode {number}"),
                }
            }
        }
    };
}

subcodes! {
    /// Subcodes of Message Header Error (RFC 4271 section 6.1).
    HeaderError {
        /// No particular one.
        Unspecific = 0 "unspecific",
        /// The marker is not all ones.
        NotSynchronized = 1 "connection not synchronized",
        /// The length is outside what the message type allows.
        BadLength = 2 "bad message length",
        /// The message type is unknown.
        BadType = 3 "bad message type",
    }
}

subcodes! {
    /// Subcodes of OPEN Message Error (RFC 4271 section 6.2, RFC 5492 section 5).
    OpenError {
        /// No particular one, or a malformed optional parameter.
        Unspecific = 0 "unspecific",
        /// The version is not 4.
        UnsupportedVersion = 1 "unsupported version number",
        /// The AS number is not the one that is configured.
        BadPeerAs = 2 "bad peer AS",
        /// The identifier is zero, or our own.
        BadIdentifier = 3 "bad BGP identifier",
        /// The parameter is not Capabilities.
        UnsupportedParameter = 4 "unsupported optional parameter",
        /// The hold time is one or two seconds.
        UnacceptableHoldTime = 6 "unacceptable hold time",
        /// A capability that we require is missing.
        UnsupportedCapability = 7 "unsupported capability",
    }
}

subcodes! {
    /// Subcodes of UPDATE Message Error (RFC 4271 section 6.3).
    UpdateError {
        /// No particular one.
        Unspecific = 0 "unspecific",
        /// Lengths do not add up, or an attribute that may be there once is there twice.
        MalformedAttributeList = 1 "malformed attribute list",
        /// An unknown attribute that says it is well-known.
        UnrecognizedWellKnown = 2 "unrecognized well-known attribute",
        /// A mandatory attribute is missing.
        MissingWellKnown = 3 "missing well-known attribute",
        /// Flags that do not fit the attribute.
        AttributeFlags = 4 "attribute flags error",
        /// A length that does not fit the attribute.
        AttributeLength = 5 "attribute length error",
        /// The origin is not IGP, EGP or INCOMPLETE.
        InvalidOrigin = 6 "invalid ORIGIN attribute",
        /// The next hop is not the address of a host.
        InvalidNextHop = 8 "invalid NEXT_HOP attribute",
        /// A malformed optional attribute.
        OptionalAttribute = 9 "optional attribute error",
        /// A prefix that cannot be read.
        InvalidNetworkField = 10 "invalid network field",
        /// A malformed AS_PATH.
        MalformedAsPath = 11 "malformed AS_PATH",
    }
}

subcodes! {
    /// Subcodes of Finite State Machine Error (RFC 6608 section 3).
    FsmError {
        /// The message came in a state without a subcode of its own.
        Unspecific = 0 "unspecific",
        /// The message came in OpenSent.
        InOpenSent = 1 "unexpected message in OpenSent state",
        /// The message came in OpenConfirm.
        InOpenConfirm = 2 "unexpected message in OpenConfirm state",
        /// The message came in Established.
        InEstablished = 3 "unexpected message in Established state",
    }
}

subcodes! {
    /// Subcodes of Cease (RFC 4486 section 3).
    Cease {
        /// No particular one.
        Unspecific = 0 "unspecific",
        /// The data says family and limit.
        MaximumPrefixes = 1 "maximum number of prefixes reached",
        /// An operator's decision; the data may say why (RFC 9003).
        AdministrativeShutdown = 2 "administrative shutdown",
        /// The peer is no longer configured.
        PeerDeConfigured = 3 "peer de-configured",
        /// An operator's decision, and the session may come back; the data may say why (RFC 9003).
        AdministrativeReset = 4 "administrative reset",
        /// The speaker takes no connection from this peer, at least not now.
        ConnectionRejected = 5 "connection rejected",
        /// A change that needs a new session.
        ConfigurationChange = 6 "other configuration change",
        /// Another connection of the same two speakers stays (RFC 4271 section 6.8).
        CollisionResolution = 7 "connection collision resolution",
        /// Out of memory, or the like.
        OutOfResources = 8 "out of resources",
        /// An end that also ends graceful restart (RFC 8538 section 3).
        HardReset = 9 "hard reset",
    }
}

subcodes! {
    /// Subcodes of ROUTE-REFRESH Message Error (RFC 7313 section 5).
    RouteRefreshError {
        /// The length does not fit.
        InvalidLength = 1 "invalid message length",
    }
}

impl ErrorCode {
    /// The pair of octets.
    pub const fn numbers(self) -> (u8, u8) {
        match self {
            Self::Header(error) => (1, error.number()),
            Self::Open(error) => (2, error.number()),
            Self::Update(error) => (3, error.number()),
            Self::HoldTimerExpired => (4, 0),
            Self::Fsm(error) => (5, error.number()),
            Self::Cease(error) => (6, error.number()),
            Self::RouteRefresh(error) => (7, error.number()),
            Self::Other { code, subcode } => (code, subcode),
        }
    }

    /// The error that a pair of octets means.
    pub fn new(code: u8, subcode: u8) -> Self {
        match code {
            1 => Self::Header(subcode.into()),
            2 => Self::Open(subcode.into()),
            3 => Self::Update(subcode.into()),
            4 if subcode == 0 => Self::HoldTimerExpired,
            5 => Self::Fsm(subcode.into()),
            6 => Self::Cease(subcode.into()),
            7 => Self::RouteRefresh(subcode.into()),
            code => Self::Other { code, subcode },
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => write!(f, "message header error: {error}"),
            Self::Open(error) => write!(f, "OPEN message error: {error}"),
            Self::Update(error) => write!(f, "UPDATE message error: {error}"),
            Self::HoldTimerExpired => f.write_str("hold timer expired"),
            Self::Fsm(error) => write!(f, "finite state machine error: {error}"),
            Self::Cease(error) => write!(f, "cease: {error}"),
            Self::RouteRefresh(error) => write!(f, "ROUTE-REFRESH message error: {error}"),
            Self::Other { code, subcode } => write!(f, "error {code}/{subcode}"),
        }
    }
}

impl Notification {
    /// A NOTIFICATION without data.
    pub const fn new(error: ErrorCode) -> Self {
        Self { error, data: Vec::new() }
    }

    /// A NOTIFICATION with data.
    pub const fn with_data(error: ErrorCode, data: Vec<u8>) -> Self {
        Self { error, data }
    }

    /// A shutdown or reset with words for the operator at the other end (RFC 9003 section 2), cut to 255 octets of UTF-8.
    pub fn shutdown(subcode: Cease, words: &str) -> Self {
        let mut end = words.len().min(usize::from(u8::MAX));
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        let words = words.as_bytes().get(..end).unwrap_or_default();
        let mut data = Vec::with_capacity(1 + words.len());
        if !words.is_empty() {
            data.extend(u8::try_from(words.len()));
            data.extend_from_slice(words);
        }
        Self::with_data(ErrorCode::Cease(subcode), data)
    }

    /// More prefixes of a family than the peer may send (RFC 4486 section 4).
    pub fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let AfiSafi { afi, safi } = AfiSafi::unicast(family);
        let mut data = afi.to_be_bytes().to_vec();
        data.push(safi);
        data.extend(limit.to_be_bytes());
        Self::with_data(ErrorCode::Cease(Cease::MaximumPrefixes), data)
    }

    /// The words of a shutdown or reset (RFC 9003 section 2); `None` where there are none or they are not UTF-8.
    pub fn words(&self) -> Option<&str> {
        let ErrorCode::Cease(Cease::AdministrativeShutdown | Cease::AdministrativeReset) = self.error else {
            return None;
        };
        let (length, rest) = self.data.split_first()?;
        let words = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        (!words.is_empty()).then_some(words)
    }

    /// The body, everything behind the header, which has made sure of code and subcode.
    pub(super) fn parse(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => Self::with_data(ErrorCode::new(*code, *subcode), data.to_vec()),
            short => Self::with_data(ErrorCode::Other { code: 0, subcode: 0 }, short.to_vec()),
        }
    }

    /// The message; data that does not fit is cut.
    pub fn encode(&self) -> Bytes {
        let (code, subcode) = self.error.numbers();
        let data = self.data.get(..MAX_LENGTH - 21).unwrap_or(&self.data);
        let mut out = header::begin(MessageType::Notification);
        out.put_u8(code);
        out.put_u8(subcode);
        out.put_slice(data);
        header::finish(out)
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.words() {
            // Words of a stranger may hold anything: control characters are shown escaped (RFC 9003 section 6).
            Some(words) => write!(f, " ({:?})", words),
            None => Ok(()),
        }
    }
}
