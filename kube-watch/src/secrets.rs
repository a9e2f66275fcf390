//! Secrets, each by its name, and the passwords in them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use serde_json::Value;
use types::{SessionPassword, SessionPasswordError};

use crate::Resource;
use crate::kinds::path_of;
use crate::object::Kind;

/// What is in a Secret, by key: a password, or why it is none.
pub type Secret = BTreeMap<String, Result<SessionPassword, SessionPasswordError>>;

/// Secrets.
#[derive(Debug, Clone)]
pub(crate) enum Secrets {}

/// A Secret as the API server has it.
#[derive(Deserialize)]
struct SecretObject {
    data: Option<BTreeMap<String, ByteString>>,
}

impl Kind for Secrets {
    type Key = String;
    type Value = Secret;
    const RESOURCE: Resource = Resource::Secrets;

    fn path() -> String {
        path_of::<core::Secret>()
    }

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn key(_: &str, name: &str) -> String {
        name.to_owned()
    }

    fn read(_: &String, object: Value) -> Result<Secret, serde_json::Error> {
        let SecretObject { data } = serde_json::from_value(object)?;
        let entries = data.into_iter().flatten();
        Ok(entries.map(|(key, ByteString(octets))| (key, SessionPassword::new(&octets))).collect())
    }

    fn incarnation(_: &Secret) -> Option<&str> {
        None
    }
}
