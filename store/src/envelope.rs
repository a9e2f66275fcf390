//! The envelope of every value in the shared store: `{"version":1,"spec":...}`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Key;

/// The version that this build writes, and the newest that it reads.
pub const VALUE_VERSION: u32 = 1;

/// A value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer Manx wrote it; what it means is not known here.
    #[error("{key}: value version {found} is newer than {VALUE_VERSION}, which is what this build reads")]
    Newer {
        /// The key.
        key: Key,
        /// The version found.
        found: u64,
    },
    /// Not an envelope, or its content is not what belongs under this key.
    #[error("{key}: {what}")]
    Malformed {
        /// The key.
        key: Key,
        /// What the parser said.
        what: String,
    },
}

/// Wraps a value for the store. A type that has no JSON form (a map whose keys are no texts: our bug) becomes `null`, which
/// no reader accepts.
pub fn encode<T: Serialize>(spec: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        version: u32,
        spec: &'a T,
    }
    serde_json::to_vec(&Envelope { version: VALUE_VERSION, spec }).unwrap_or_else(|_| b"null".to_vec())
}

/// Unwraps a value from the store, in one pass over it. The version counts first, so that a newer value is refused for being
/// newer and not for a field that happens to be unknown.
pub fn decode<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, DecodeError> {
    let malformed = |what: String| DecodeError::Malformed { key: key.clone(), what };
    match serde_json::from_slice(value).map_err(|error| malformed(error.to_string()))? {
        Envelope::Of(spec) => Ok(spec),
        Envelope::Newer(found) => Err(DecodeError::Newer { key: key.clone(), found }),
        Envelope::Older => Err(malformed("value version 0".to_owned())),
    }
}

/// A value of the store, as far as its version lets it be read.
enum Envelope<T> {
    /// Of a version that this build reads.
    Of(T),
    /// Of this version, which is newer.
    Newer(u64),
    /// Of version 0, which nobody has ever written.
    Older,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Version,
    Spec,
    #[serde(other)]
    Unknown,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Envelope<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor(PhantomData))
    }
}

struct EnvelopeVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for EnvelopeVisitor<T> {
    type Value = Envelope<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value with its version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Envelope<T>, A::Error> {
        const NEWEST: u64 = VALUE_VERSION as u64;
        let mut version = None;
        let mut spec = None;
        // What came before its version; nothing that Manx has written.
        let mut unversioned: Option<Value> = None;
        while let Some(field) = fields.next_key()? {
            match (field, version) {
                (Field::Version, None) => version = Some(fields.next_value::<u64>()?),
                (Field::Version, Some(_)) => return Err(A::Error::duplicate_field("version")),
                (Field::Spec, _) if spec.is_some() || unversioned.is_some() => {
                    return Err(A::Error::duplicate_field("spec"));
                }
                (Field::Spec, None) => unversioned = Some(fields.next_value()?),
                (Field::Spec, Some(1..=NEWEST)) => spec = Some(fields.next_value()?),
                (Field::Spec, Some(_)) | (Field::Unknown, _) => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        match version {
            None => Err(A::Error::missing_field("version")),
            Some(0) => Ok(Envelope::Older),
            Some(1..=NEWEST) => match (spec, unversioned) {
                (Some(spec), _) => Ok(Envelope::Of(spec)),
                (None, Some(value)) => T::deserialize(value).map(Envelope::Of).map_err(A::Error::custom),
                (None, None) => Err(A::Error::missing_field("spec")),
            },
            Some(found) => Ok(Envelope::Newer(found)),
        }
    }
}

#[cfg(test)]
mod tests;
