//! The file and, over it, the environment.

use std::collections::BTreeMap;

use figment::Figment;
use figment::error::Kind;
use figment::providers::Serialized;
use serde_json::Value;
use types::config::ConfigError;

use crate::keys::{KEYS, is_group, variable};

/// Both layers as one. A variable is a text as it stands: whether it is a number is for its key to say (a password `007` stays
/// one of three letters), which is why figment's own reader of variables is not used.
pub(crate) fn merged(file: &Value, environment: &BTreeMap<String, String>) -> Result<Figment, ConfigError> {
    let mut layers = Figment::new();
    let file = match file {
        Value::Object(file) => Some(file),
        Value::Null => None,
        _ => return Err(ConfigError::new("(file)", "must be a mapping")),
    };
    for (name, value) in file.into_iter().flatten() {
        let is_mistaken = is_group(name) && !value.is_object() && !value.is_null();
        if is_mistaken || name.split('.').any(str::is_empty) {
            return Err(unknown(name));
        }
        // A group without keys sets nothing.
        if !(is_group(name) && value.is_null()) {
            layers = layers.merge(Serialized::default(name, value));
        }
    }
    for key in KEYS {
        if let Some(text) = environment.get(&variable(key)).filter(|text| !text.is_empty()) {
            layers = layers.merge(Serialized::default(key, text));
        }
    }
    Ok(layers)
}

/// What figment found, by the key.
pub(crate) fn error(error: figment::Error) -> ConfigError {
    let path = error.path.join(".");
    match error.kind {
        Kind::UnknownField(..) => unknown(&path),
        // The values of keys are read by this crate, which says what is wrong with them in its own words.
        Kind::Message(problem) => ConfigError::new(path, problem),
        other => ConfigError::new(path, other.to_string()),
    }
}

fn unknown(name: &str) -> ConfigError {
    ConfigError::new(name.to_owned(), "does not exist")
}
