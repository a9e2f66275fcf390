//! The local API on `agent.sock` (`types::api` lists it). Answers are put together from what the owners of state say; nothing
//! is kept here.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures::StreamExt as _;
use ipam::Description;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use types::api::{Drain, DropRecord, ExplainQuery, IpamView, NodeStatus, RejectedRoute, RelabelRequest, ShowQuery};
use types::policy::{EffectivePolicy, Explanation};
use types::{Family, Prefix, WorkloadEndpoint};

use super::fault::Fault;
use super::resources;
use super::status::Status;
use crate::policy::drop_log::Denied;
use crate::policy::relabels;

/// The owners and streams that the handlers ask.
#[derive(Clone)]
pub(crate) struct Api {
    /// The node at a glance, and the tables behind it.
    pub(crate) status: Status,
    /// The stream of denied packets.
    pub(crate) denied: Denied,
    /// Whether labels are changed here: not where an API server has them.
    pub(crate) relabels: bool,
}

/// The routes of the API.
pub(crate) fn router(api: Api) -> Router {
    let resources = resources::router(api.status.store.clone());
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ipam", get(ipam))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/rejected", get(rejected_routes))
        .route("/v1/endpoints/labels", post(label))
        .route("/v1/drain", post(drain))
        .route("/v1/policy/explain", get(explain))
        .route("/v1/policy/show", get(effective))
        .route("/v1/policy/log", get(denied))
        .fallback(|| async { Fault::not_found("no such path") })
        .with_state(api)
        .merge(resources)
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

/// The query for routes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteQuery {
    family: Option<Family>,
    prefix: Option<Prefix>,
}

/// Routes, as one JSON array that is written piece by piece: a table of a million prefixes is never in one answer of the
/// speaker's, and never whole in memory.
async fn routes(State(api): State<Api>, query: Query<RouteQuery>) -> Response {
    if let Some(prefix) = query.prefix {
        let is_meant = query.family.is_none_or(|family| family == prefix.family());
        let route = if is_meant { api.status.route(prefix).await } else { None };
        return Json(Vec::from_iter(route)).into_response();
    }
    let families: Vec<Family> = query.family.map_or_else(|| Family::ALL.to_vec(), |family| vec![family]);
    let pages = futures::stream::iter(families).flat_map(move |family| {
        let status = api.status.clone();
        futures::stream::unfold(None, move |after| {
            let status = status.clone();
            async move {
                let page = status.routes(family, after).await;
                let last = page.last()?.prefix;
                Some((page, Some(last)))
            }
        })
    });
    let mut separator = "";
    let items = pages.map(move |page| -> Result<String, serde_json::Error> {
        let mut text = String::new();
        for route in &page {
            text.push_str(std::mem::replace(&mut separator, ","));
            text.push_str(&serde_json::to_string(route)?);
        }
        Ok(text)
    });
    let bracket = |text: &str| futures::stream::iter([Ok(text.to_owned())]);
    let body = bracket("[").chain(items).chain(bracket("]"));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

async fn rejected_routes(State(api): State<Api>) -> Json<Vec<RejectedRoute>> {
    Json(api.status.rejected_routes().await)
}

/// Other labels for an endpoint, where no API server says what they are.
async fn label(State(api): State<Api>, Json(request): Json<RelabelRequest>) -> Result<Json<WorkloadEndpoint>, Fault> {
    let RelabelRequest { endpoint: id, change } = request;
    if !api.relabels {
        let error = "labels come from the API server: use kubectl label pod".to_owned();
        return Err(Fault { status: StatusCode::CONFLICT, error });
    }
    let unknown = || Fault::not_found(format!("endpoint {id} is not on this node"));
    let endpoint = api.status.owners.ipam.endpoint(id.clone()).await.ok_or_else(unknown)?;
    let WorkloadEndpoint { mut labels, ports, finished, .. } = endpoint.clone();
    change.apply(&mut labels);
    relabels::redescribe(
        endpoint,
        Description { labels, ports, finished },
        &api.status.owners.ipam,
        &api.status.owners.acl,
    )
    .await;
    api.status.owners.ipam.endpoint(id.clone()).await.map(Json).ok_or_else(unknown)
}

/// Takes what is originated back, or announces it again.
async fn drain(State(api): State<Api>, Json(drain): Json<Drain>) -> Json<Drain> {
    api.status.drained.send_replace(drain.drained);
    Json(drain)
}

async fn explain(State(api): State<Api>, query: Query<ExplainQuery>) -> Result<Json<Explanation>, Fault> {
    api.status.owners.acl.explain_entries(query.0.into()).await.map(Json).ok_or_else(Fault::ending)
}

async fn effective(State(api): State<Api>, query: Query<ShowQuery>) -> Result<Json<EffectivePolicy>, Fault> {
    let ShowQuery { endpoint } = query.0;
    let shown = api.status.owners.acl.show(endpoint.clone()).await;
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
