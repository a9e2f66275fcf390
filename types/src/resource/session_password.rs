//! Where a BGP session's password is, as resources say it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{PasswordSource, ResourceName};

/// `password` of a BGPPeer, and `nodeMeshPassword` of the BGPConfiguration: where the password is, never the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPassword {
    /// A key of a Secret of Kubernetes, in the namespace of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret.
    pub name: ResourceName,
    /// The key in its data.
    pub key: String,
    /// Always false: without its password a session is not opened.
    #[serde(default, skip_serializing)]
    pub optional: bool,
}

/// Where the password is, of what is said in these two fields.
pub(super) fn source(password: Option<&BgpPassword>, file: Option<&Path>) -> Option<PasswordSource> {
    let secret = password.and_then(|password| password.secret_key_ref.as_ref());
    secret.map_or_else(
        || file.map(|path| PasswordSource::File(path.to_owned())),
        |SecretKeyRef { name, key, .. }| Some(PasswordSource::Secret { name: name.clone(), key: key.clone() }),
    )
}

/// What is wrong with these two fields of these names.
pub(super) fn problem(
    (field, password): (&str, Option<&BgpPassword>),
    (file_field, file): (&str, Option<&PathBuf>),
) -> Option<String> {
    let secret = password.and_then(|password| password.secret_key_ref.as_ref());
    match (password, secret, file) {
        (Some(_), _, Some(_)) => Some(format!("{field} and {file_field} exclude each other")),
        (Some(_), None, None) => Some(format!("{field} needs secretKeyRef")),
        (_, Some(secret), _) if !is_key(&secret.key) => Some(format!(
            "{field}.secretKeyRef.key: {:?} is not a key of a Secret: letters, digits, '-', '_' and '.'",
            secret.key
        )),
        (_, _, Some(file)) if !file.is_absolute() => {
            Some(format!("{file_field}: {:?} is not a path that begins with /", file.display().to_string()))
        }
        _ => None,
    }
}

fn is_key(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
