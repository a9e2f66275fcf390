//! What can go wrong with the API server, split by who can mend it.

use std::error::Error;
use std::time::Duration;

/// A request to the API server failed, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The settings, or the files they name, cannot be used; found before anything was sent.
    #[error("{key}: {what}")]
    Config {
        /// The key, variable or file concerned.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The API server was not reached, or cannot answer just now (the environment).
    #[error("{server} unavailable: {what}")]
    Unavailable {
        /// The URL of the API server.
        server: String,
        /// The reason why it cannot be reached.
        what: String,
        /// The time for which the API server has asked not to be asked again.
        retry_after: Option<Duration>,
    },
    /// The API server does not know us (401), or does not let us read this (403, RBAC).
    #[error("{server} refuses: {what}")]
    Refused {
        /// The URL of the API server.
        server: String,
        /// What the API server has answered.
        what: String,
        /// It does not know who asks: the credentials are wrong or have expired.
        unknown: bool,
    },
    /// The answer is not what the Kubernetes API says it is (the API server, or what stands before it).
    #[error("{server}: malformed answer: {what}")]
    Malformed {
        /// The URL of the API server.
        server: String,
        /// What is wrong with the answer.
        what: String,
    },
}

/// An error and its causes. Some errors repeat their cause in their own text; it is then said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
