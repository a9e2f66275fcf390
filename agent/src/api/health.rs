//! `/healthz`, `/readyz` and `/metrics` on a TCP port of the loopback.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics;
use super::status::Status;

/// The routes of the health port.
pub(crate) fn router(status: Status) -> Router {
    Router::new()
        // Whoever answers is alive: a stuck owner of state shows in readiness.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(status)
}

async fn ready(State(status): State<Status>) -> Response {
    let unready = status.unready();
    if unready.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, unready.join("\n") + "\n").into_response()
}

async fn scrape(State(status): State<Status>) -> Response {
    match metrics::render(status.moment().await) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
