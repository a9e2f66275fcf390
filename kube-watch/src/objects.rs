//! Single objects, as JSON: for a program that has something to tell the API server before there is an agent, and follows
//! nothing.

use std::sync::Arc;

use serde_json::Value;

use crate::call::{CallError, Calls};
use crate::{WatchConfig, WatchError, WriteError};

/// Reads and changes objects by their paths. Nothing is remembered, and nothing is tried twice.
pub struct Objects {
    calls: Calls,
}

impl Objects {
    /// With the credentials that a watch would have. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// [`WatchError::Config`], naming the file or variable, where it cannot be told which API server to ask, or with what
    /// credentials.
    pub async fn new(config: WatchConfig) -> Result<Self, WatchError> {
        Ok(Self { calls: Calls::new(Arc::new(config)).await? })
    }

    /// The object of this name in a collection, such as `/api/v1/namespaces/default/secrets`; none where there is no such
    /// object.
    ///
    /// # Errors
    ///
    /// [`WatchError`] where the API server does not answer, or refuses.
    pub async fn get(&mut self, collection: &str, name: &str) -> Result<Option<Value>, WatchError> {
        match self.calls.get(collection, name).await {
            Ok(object) => Ok(Some(object)),
            Err(CallError::Gone) => Ok(None),
            Err(CallError::Failed(error)) => Err(error),
        }
    }

    /// Whether an object of a collection has this label, with whatever value.
    ///
    /// # Errors
    ///
    /// [`WatchError`] where the API server does not answer, or refuses.
    pub async fn is_any_labelled(&mut self, collection: &str, label: &str) -> Result<bool, WatchError> {
        match self.calls.is_any_labelled(collection, label).await {
            Ok(is_any) => Ok(is_any),
            Err(CallError::Gone) => Ok(false),
            Err(CallError::Failed(error)) => Err(error),
        }
    }

    /// Changes an object by a JSON merge patch (RFC 7396). One with a `metadata.resourceVersion` in it is taken only while
    /// the object is in that version.
    ///
    /// # Errors
    ///
    /// [`WriteError::Outdated`] where the object is in another version, or there is none of that name;
    /// [`WriteError::Failed`] where the API server does not answer, or refuses.
    pub async fn patch(&mut self, collection: &str, name: &str, patch: &Value) -> Result<(), WriteError> {
        match self.calls.patch(collection, name, patch).await {
            Ok(()) => Ok(()),
            Err(CallError::Gone) => Err(WriteError::Outdated { object: format!("{collection}/{name}") }),
            Err(CallError::Failed(error)) => Err(error.into()),
        }
    }
}
