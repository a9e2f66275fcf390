//! What is answered while the agent waits for something of its host and nothing of it runs yet: that it lives, that it is not
//! ready, and why.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};

use types::api::{NodeStatus, RouteCounts};
use types::{Asn, NodeName};

use super::fault::Fault;
use crate::node::readiness::{Part, Readiness};

/// The sources of those answers.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    node: NodeName,
    datastore: String,
    readiness: Readiness,
}

impl Waiting {
    /// A node whose datastore, in words, is not asked yet.
    pub(crate) const fn new(node: NodeName, datastore: String, readiness: Readiness) -> Self {
        Self { node, datastore, readiness }
    }

    /// The routes of the health port.
    pub(super) fn health(self) -> Router {
        let router = Router::new().route("/healthz", get(|| async { "ok\n" })).fallback(unready).with_state(self);
        router.layer(middleware::map_response(last))
    }

    /// The routes of the local API.
    pub(super) fn local(self) -> Router {
        let router = Router::new().route("/v1/status", get(status)).fallback(later).with_state(self);
        router.layer(middleware::map_response(last))
    }

    /// What is waited for. All else that keeps the node from being ready follows from it.
    fn reason(&self) -> String {
        let reason = self.readiness.reason(Part::OwnAddress);
        reason.unwrap_or_else(|| "the agent is starting".to_owned())
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: false,
            problems: vec![self.reason()],
            datastore: self.datastore.clone(),
            datastore_connected: false,
            datastore_confirmed_secs: None,
            asn: Asn::DEFAULT,
            router_id: None,
            addresses: Vec::new(),
            peers: Vec::new(),
            routes: RouteCounts::default(),
            endpoints: 0,
        }
    }
}

async fn unready(State(waiting): State<Waiting>) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, waiting.reason() + "\n").into_response()
}

async fn status(State(waiting): State<Waiting>) -> Json<NodeStatus> {
    Json(waiting.status())
}

async fn later(State(waiting): State<Waiting>) -> Fault {
    Fault { status: StatusCode::SERVICE_UNAVAILABLE, error: waiting.reason() }
}

/// A connection that stayed open would go on hearing of the wait after its end.
async fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
