//! The envelope of every value in the shared store: `{"version":1,"spec":...}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

/// Unwraps a value from the store. The version is looked at first, so that a newer value is refused for being newer and
/// not for a field that happens to be unknown.
pub fn decode<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, DecodeError> {
    #[derive(Deserialize)]
    struct Stamp {
        version: u64,
    }
    #[derive(Deserialize)]
    struct Envelope<T> {
        spec: T,
    }
    let malformed = |error: serde_json::Error| DecodeError::Malformed { key: key.clone(), what: error.to_string() };
    let stamp: Stamp = serde_json::from_slice(value).map_err(malformed)?;
    match stamp.version {
        found if found > u64::from(VALUE_VERSION) => Err(DecodeError::Newer { key: key.clone(), found }),
        0 => Err(DecodeError::Malformed { key: key.clone(), what: "value version 0".to_owned() }),
        _ => serde_json::from_slice::<Envelope<T>>(value).map(|envelope| envelope.spec).map_err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("blocks/10.0.0.0-26").unwrap()
    }

    #[test]
    fn a_value_comes_back_as_it_was_wrapped() {
        let bytes = encode(&vec![1_u8, 2]);
        assert_eq!(bytes, br#"{"version":1,"spec":[1,2]}"#);
        assert_eq!(decode::<Vec<u8>>(&key(), &bytes), Ok(vec![1, 2]));
    }

    #[test]
    fn a_newer_value_is_refused_by_name_whatever_it_holds() {
        let error = decode::<u8>(&key(), br#"{"version":2,"specification":{}}"#).unwrap_err();
        assert_eq!(error, DecodeError::Newer { key: key(), found: 2 });
        assert_eq!(
            error.to_string(),
            "blocks/10.0.0.0-26: value version 2 is newer than 1, which is what this build reads"
        );
    }

    #[test]
    fn what_is_not_an_envelope_is_refused_with_its_key() {
        for bad in [&b""[..], b"null", b"7", br#"{"spec":1}"#, br#"{"version":1}"#, br#"{"version":0,"spec":1}"#] {
            let error = decode::<u8>(&key(), bad).unwrap_err().to_string();
            assert!(error.starts_with("blocks/10.0.0.0-26: "), "{error}");
        }
    }
}
