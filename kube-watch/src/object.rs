//! An object of the API server, read into the little that is kept of it.

use std::fmt::Debug;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Resource;

/// A kind of object that is watched.
pub(crate) trait Kind: Clone + Debug + Send + Sync + 'static {
    /// What identifies one.
    type Key: Clone + Debug + Ord + Send + Sync;
    /// What is kept of one.
    type Value: Clone + Debug + Send + Sync;
    /// Which resource it is.
    const RESOURCE: Resource;

    /// The path of all of them.
    fn path() -> String;

    /// The ones that this node needs, as a field selector; none: all.
    fn fields(node_name: &str) -> Option<String>;

    /// The ones that are needed, as a label selector; none: all.
    fn labels() -> Option<String> {
        None
    }

    /// The key of the object of this namespace and name.
    fn key(namespace: &str, name: &str) -> Self::Key;

    /// Reads an object.
    fn read(key: &Self::Key, object: Value) -> Result<Self::Value, serde_json::Error>;

    /// What tells it from an earlier object of the same name, where that matters.
    fn incarnation(value: &Self::Value) -> Option<&str>;
}

/// One object of an answer. Reading it never fails, so that one that cannot be read does not take the others along.
#[derive(Debug, Clone)]
pub(crate) struct Object<K: Kind> {
    /// `metadata.resourceVersion`; empty if there is none.
    pub(crate) version: String,
    /// What could be read of it.
    pub(crate) content: Content<K>,
}

/// What an object holds.
#[derive(Debug, Clone)]
pub(crate) enum Content<K: Kind> {
    /// Its key, and what is kept of it.
    Read(K::Key, K::Value),
    /// Its name is all that could be read of it.
    Unreadable { key: K::Key, name: String, what: String },
    /// It does not even have a name.
    Nameless,
}

impl<'de, K: Kind> Deserialize<'de> for Object<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Only the one object in hand is held with all its fields, for a moment; a list is never held like that.
        Ok(Self::read(Value::deserialize(deserializer)?))
    }
}

impl<K: Kind> Object<K> {
    fn read(object: Value) -> Self {
        let metadata = |field: &str| {
            let text = object.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let (version, namespace, name) = (metadata("resourceVersion"), metadata("namespace"), metadata("name"));
        if name.is_empty() {
            return Self { version, content: Content::Nameless };
        }
        let key = K::key(&namespace, &name);
        let content = match K::read(&key, object) {
            Ok(value) => Content::Read(key, value),
            Err(error) => Content::Unreadable { key, name: format!("{namespace}/{name}"), what: error.to_string() },
        };
        Self { version, content }
    }
}
