//! Errors of the local API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use types::api::ApiError;

/// An error as it is answered.
pub(super) struct Fault {
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// What is said in its body.
    pub(super) error: String,
}

impl Fault {
    /// The fault of a request that is wrong by itself.
    pub(super) fn theirs(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: error.to_string() }
    }

    /// The agent, or what it reads, is at fault.
    pub(super) fn ours(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: error.to_string() }
    }

    /// The datastore does not answer, or refuses.
    pub(super) fn store(error: store::StoreError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: error.to_string() }
    }

    /// The owner of what was asked for has ended.
    pub(super) fn ending() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: "the agent is ending".to_owned() }
    }

    /// The fault of a request for something that does not exist.
    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: error.into() }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status, Json(ApiError { error: self.error })).into_response()
    }
}
