//! The local API on `agent.sock` (`types::api` lists it). Answers are put together from what the owners of state say; this
//! module keeps none.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use store::{Check, Outcome, Store, Write, keys};
use types::api::{ApiError, IpamView, NodeStatus, RouteView};
use types::resource::{Kind, Resource};
use types::{Family, Prefix, ResourceName, WorkloadEndpoint};

use crate::status::Status;

/// What the handlers ask.
#[derive(Clone)]
pub(crate) struct Api {
    /// The node at a glance, and the tables behind it.
    pub(crate) status: Status,
    /// Where resources are.
    pub(crate) store: Arc<dyn Store>,
}

/// The routes of the API.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ipam", get(ipam))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/routes", get(routes))
        .route("/v1/resources/{kind}", get(list))
        .route("/v1/resources/{kind}/{name}", get(show).put(put).delete(delete))
        .fallback(|| async { Fault::not_found("no such path") })
        .with_state(api)
}

async fn status(State(api): State<Api>) -> Json<NodeStatus> {
    Json(api.status.node().await)
}

async fn ipam(State(api): State<Api>) -> Json<IpamView> {
    Json(api.status.ipam().await)
}

async fn endpoints(State(api): State<Api>) -> Json<Vec<WorkloadEndpoint>> {
    Json(api.status.endpoints().await)
}

/// Which routes are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteQuery {
    family: Option<Family>,
    prefix: Option<Prefix>,
}

async fn routes(State(api): State<Api>, query: Query<RouteQuery>) -> Json<Vec<RouteView>> {
    Json(api.status.routes(query.family, query.prefix).await)
}

async fn list(State(api): State<Api>, Path(kind): Path<String>) -> Result<Json<Vec<Resource>>, Fault> {
    let listing = api.store.list(&keys::resources(parse(&kind)?)).await.map_err(Fault::store)?;
    let decoded = listing.entries.iter().map(|entry| store::decode(&entry.key, &entry.value));
    decoded.collect::<Result<_, _>>().map(Json).map_err(|error| Fault::ours(&error))
}

async fn show(
    State(api): State<Api>,
    Path((kind, name)): Path<(String, ResourceName)>,
) -> Result<Json<Resource>, Fault> {
    let kind = parse(&kind)?;
    let entry = api.store.get(&keys::resource(kind, &name)).await.map_err(Fault::store)?;
    let entry = entry.ok_or_else(|| Fault::not_found(format!("{kind} {name} does not exist")))?;
    store::decode(&entry.key, &entry.value).map(Json).map_err(|error| Fault::ours(&error))
}

async fn put(
    State(api): State<Api>,
    Path((kind, name)): Path<(String, ResourceName)>,
    Json(document): Json<serde_json::Value>,
) -> Result<StatusCode, Fault> {
    let resource = Resource::from_value(document).map_err(|error| Fault::theirs(&error))?;
    if resource.kind() != parse(&kind)? || resource.metadata.name != name {
        let said = format!("the document is {} {}, the path {kind} {name}", resource.kind(), resource.metadata.name);
        return Err(Fault { status: StatusCode::BAD_REQUEST, error: said });
    }
    let write = Write::put(keys::resource(resource.kind(), &name), store::encode(&resource));
    api.store.transact(Vec::new(), vec![write]).await.map_err(Fault::store)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(State(api): State<Api>, Path((kind, name)): Path<(String, ResourceName)>) -> Result<StatusCode, Fault> {
    let kind = parse(&kind)?;
    let key = keys::resource(kind, &name);
    let outcome = api.store.transact(vec![Check::present(key.clone())], vec![Write::delete(key)]).await;
    match outcome.map_err(Fault::store)? {
        Outcome::Committed(_) => Ok(StatusCode::NO_CONTENT),
        Outcome::Conflict => Err(Fault::not_found(format!("{kind} {name} does not exist"))),
    }
}

fn parse(kind: &str) -> Result<Kind, Fault> {
    kind.parse().map_err(|error: types::resource::ResourceError| Fault::theirs(&error))
}

/// An error as it is answered.
struct Fault {
    status: StatusCode,
    error: String,
}

impl Fault {
    fn theirs(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: error.to_string() }
    }

    fn ours(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: error.to_string() }
    }

    fn store(error: store::StoreError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: error.to_string() }
    }

    fn not_found(error: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: error.into() }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status, Json(ApiError { error: self.error })).into_response()
    }
}
