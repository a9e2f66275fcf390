//! The local API on `agent.sock` (`types::api` lists it). Answers are put together from what the owners of state say; this
//! module keeps none.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use felix::acl::Acl;
use ipam::{Description, Ipam};
use serde::Deserialize;
use store::{Check, Outcome, Store, Write, keys};
use tokio::sync::broadcast::error::RecvError;

use types::api::{
    ApiError, Drain, DropRecord, ExplainQuery, IpamView, NodeStatus, RelabelRequest, RouteView, ShowQuery,
};
use types::policy::{EffectivePolicy, Explanation};
use types::resource::{Kind, Resource, ResourceRef};
use types::{Family, Prefix, ResourceName, WorkloadEndpoint};

use super::status::Status;
use crate::policy::drop_log::Denied;
use crate::policy::pods;

/// What the handlers ask.
#[derive(Clone)]
pub(crate) struct Api {
    /// The node at a glance, and the tables behind it.
    pub(crate) status: Status,
    /// Where resources are.
    pub(crate) store: Arc<dyn Store>,
    /// Policy.
    pub(crate) acl: Acl,
    /// Endpoints.
    pub(crate) ipam: Ipam,
    /// Denied packets.
    pub(crate) denied: Denied,
    /// Whether labels are changed here: not where an API server has them.
    pub(crate) relabels: bool,
}

/// The routes of the API.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ipam", get(ipam))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/routes", get(routes))
        .route("/v1/endpoints/labels", post(label))
        .route("/v1/drain", post(drain))
        .route("/v1/policy/explain", get(explain))
        .route("/v1/policy/show", get(effective))
        .route("/v1/policy/log", get(denied))
        .route("/v1/resources/{kind}", get(list))
        .route("/v1/resources/{kind}/{name}", get(show).put(put).delete(delete))
        .route("/v1/resources/{kind}/{namespace}/{name}", get(show_in).put(put_in).delete(delete_in))
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

/// Other labels for an endpoint, where no API server says what they are.
async fn label(State(api): State<Api>, Json(request): Json<RelabelRequest>) -> Result<Json<WorkloadEndpoint>, Fault> {
    let RelabelRequest { endpoint: id, change } = request;
    if !api.relabels {
        let error = "labels come from the API server: use kubectl label pod".to_owned();
        return Err(Fault { status: StatusCode::CONFLICT, error });
    }
    let unknown = || Fault::not_found(format!("endpoint {id} is not on this node"));
    let endpoint = api.ipam.endpoint(id.clone()).await.ok_or_else(unknown)?;
    let WorkloadEndpoint { mut labels, ports, finished, .. } = endpoint.clone();
    change.apply(&mut labels);
    pods::redescribe(endpoint, Description { labels, ports, finished }, &api.ipam, &api.acl).await;
    api.ipam.endpoint(id.clone()).await.map(Json).ok_or_else(unknown)
}

/// Takes what is originated back, or announces it again.
async fn drain(State(api): State<Api>, Json(drain): Json<Drain>) -> Json<Drain> {
    api.status.drained.send_replace(drain.drained);
    Json(drain)
}

async fn explain(State(api): State<Api>, query: Query<ExplainQuery>) -> Result<Json<Explanation>, Fault> {
    api.acl.explain_entries(query.0.into()).await.map(Json).ok_or_else(Fault::ending)
}

async fn effective(State(api): State<Api>, query: Query<ShowQuery>) -> Result<Json<EffectivePolicy>, Fault> {
    let ShowQuery { endpoint } = query.0;
    let shown = api.acl.show(endpoint.clone()).await;
    shown.map(Json).ok_or_else(|| Fault::not_found(format!("endpoint {endpoint} is not on this node")))
}

/// Denied packets, one JSON object a line, for as long as the asker listens.
async fn denied(State(api): State<Api>) -> Result<Response, Fault> {
    let records = api.denied.look().await.ok_or_else(Fault::ending)?.map_err(|error| Fault::ours(&error))?;
    let lines = futures::stream::unfold((records, 0), async |(mut records, mut missed)| {
        loop {
            match records.recv().await {
                Ok(record) => {
                    let record = DropRecord { missed: record.missed + missed, ..record };
                    let line = serde_json::to_vec(&record).map(|mut line| {
                        line.push(b'\n');
                        line
                    });
                    return Some((line, (records, 0)));
                }
                Err(RecvError::Lagged(more)) => missed += more,
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
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
    read(&api, reference(&kind, None, name)?).await
}

async fn show_in(
    State(api): State<Api>,
    Path((kind, namespace, name)): Path<(String, ResourceName, ResourceName)>,
) -> Result<Json<Resource>, Fault> {
    read(&api, reference(&kind, Some(namespace), name)?).await
}

async fn put(
    State(api): State<Api>,
    Path((kind, name)): Path<(String, ResourceName)>,
    Json(document): Json<serde_json::Value>,
) -> Result<StatusCode, Fault> {
    write(&api, reference(&kind, None, name)?, document).await
}

async fn put_in(
    State(api): State<Api>,
    Path((kind, namespace, name)): Path<(String, ResourceName, ResourceName)>,
    Json(document): Json<serde_json::Value>,
) -> Result<StatusCode, Fault> {
    write(&api, reference(&kind, Some(namespace), name)?, document).await
}

async fn delete(State(api): State<Api>, Path((kind, name)): Path<(String, ResourceName)>) -> Result<StatusCode, Fault> {
    remove(&api, reference(&kind, None, name)?).await
}

async fn delete_in(
    State(api): State<Api>,
    Path((kind, namespace, name)): Path<(String, ResourceName, ResourceName)>,
) -> Result<StatusCode, Fault> {
    remove(&api, reference(&kind, Some(namespace), name)?).await
}

async fn read(api: &Api, resource: ResourceRef) -> Result<Json<Resource>, Fault> {
    let entry = api.store.get(&keys::resource_named(&resource)).await.map_err(Fault::store)?;
    let entry = entry.ok_or_else(|| Fault::not_found(format!("{resource} does not exist")))?;
    store::decode(&entry.key, &entry.value).map(Json).map_err(|error| Fault::ours(&error))
}

async fn write(api: &Api, wanted: ResourceRef, document: serde_json::Value) -> Result<StatusCode, Fault> {
    let resource = Resource::from_value(document).map_err(|error| Fault::theirs(&error))?;
    if resource.reference() != wanted {
        let said = format!("the document is {}, the path {wanted}", resource.reference());
        return Err(Fault { status: StatusCode::BAD_REQUEST, error: said });
    }
    let write = Write::put(keys::resource_named(&wanted), store::encode(&resource));
    api.store.transact(Vec::new(), vec![write]).await.map_err(Fault::store)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(api: &Api, resource: ResourceRef) -> Result<StatusCode, Fault> {
    let key = keys::resource_named(&resource);
    let outcome = api.store.transact(vec![Check::present(key.clone())], vec![Write::delete(key)]).await;
    match outcome.map_err(Fault::store)? {
        Outcome::Committed(_) => Ok(StatusCode::NO_CONTENT),
        Outcome::Conflict => Err(Fault::not_found(format!("{resource} does not exist"))),
    }
}

/// What a path names. A kind that lies in namespaces needs one, another must have none.
fn reference(kind: &str, namespace: Option<ResourceName>, name: ResourceName) -> Result<ResourceRef, Fault> {
    let kind = parse(kind)?;
    if kind.is_namespaced() != namespace.is_some() {
        let needs = if kind.is_namespaced() { "lies in a namespace" } else { "lies in no namespace" };
        return Err(Fault { status: StatusCode::BAD_REQUEST, error: format!("a {kind} {needs}") });
    }
    Ok(ResourceRef { kind, namespace, name })
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

    fn ending() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: "the agent is ending".to_owned() }
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
