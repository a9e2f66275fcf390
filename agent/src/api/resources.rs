//! The part of the local API that reads and writes resources in the store.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use store::{Check, Outcome, Store, Write, keys};

use types::ResourceName;
use types::resource::{Kind, Resource, ResourceError, ResourceRef};

use super::fault::Fault;

/// The routes of resources.
pub(super) fn router(store: Arc<dyn Store>) -> Router {
    Router::new()
        .route("/v1/resources/{kind}", get(list))
        .route("/v1/resources/{kind}/{name}", get(show).put(put).delete(delete))
        .route("/v1/resources/{kind}/{namespace}/{name}", get(show_in).put(put_in).delete(delete_in))
        .with_state(store)
}

async fn list(State(store): State<Arc<dyn Store>>, Path(kind): Path<String>) -> Result<Json<Vec<Resource>>, Fault> {
    let listing = store.list(&keys::resources(parse(&kind)?)).await.map_err(Fault::store)?;
    let decoded = listing.entries.iter().map(|entry| store::decode(&entry.key, &entry.value));
    decoded.collect::<Result<_, _>>().map(Json).map_err(|error| Fault::ours(&error))
}

async fn show(
    State(store): State<Arc<dyn Store>>,
    Path((kind, name)): Path<(String, ResourceName)>,
) -> Result<Json<Resource>, Fault> {
    read(store.as_ref(), reference(&kind, None, name)?).await
}

async fn show_in(
    State(store): State<Arc<dyn Store>>,
    Path((kind, namespace, name)): Path<(String, ResourceName, ResourceName)>,
) -> Result<Json<Resource>, Fault> {
    read(store.as_ref(), reference(&kind, Some(namespace), name)?).await
}

async fn put(
    State(store): State<Arc<dyn Store>>,
    Path((kind, name)): Path<(String, ResourceName)>,
    Json(document): Json<serde_json::Value>,
) -> Result<StatusCode, Fault> {
    write(store.as_ref(), reference(&kind, None, name)?, document).await
}

async fn put_in(
    State(store): State<Arc<dyn Store>>,
    Path((kind, namespace, name)): Path<(String, ResourceName, ResourceName)>,
    Json(document): Json<serde_json::Value>,
) -> Result<StatusCode, Fault> {
    write(store.as_ref(), reference(&kind, Some(namespace), name)?, document).await
}

async fn delete(
    State(store): State<Arc<dyn Store>>,
    Path((kind, name)): Path<(String, ResourceName)>,
) -> Result<StatusCode, Fault> {
    remove(store.as_ref(), reference(&kind, None, name)?).await
}

async fn delete_in(
    State(store): State<Arc<dyn Store>>,
    Path((kind, namespace, name)): Path<(String, ResourceName, ResourceName)>,
) -> Result<StatusCode, Fault> {
    remove(store.as_ref(), reference(&kind, Some(namespace), name)?).await
}

async fn read(store: &dyn Store, resource: ResourceRef) -> Result<Json<Resource>, Fault> {
    let entry = store.get(&keys::resource_named(&resource)).await.map_err(Fault::store)?;
    let entry = entry.ok_or_else(|| Fault::not_found(format!("{resource} does not exist")))?;
    store::decode(&entry.key, &entry.value).map(Json).map_err(|error| Fault::ours(&error))
}

async fn write(store: &dyn Store, wanted: ResourceRef, document: serde_json::Value) -> Result<StatusCode, Fault> {
    let resource = Resource::from_value(document).map_err(|error| Fault::theirs(&error))?;
    if resource.reference() != wanted {
        let said = format!("the document is {}, the path {wanted}", resource.reference());
        return Err(Fault { status: StatusCode::BAD_REQUEST, error: said });
    }
    let write = Write::put(keys::resource_named(&wanted), store::encode(&resource));
    store.transact(Vec::new(), vec![write]).await.map_err(Fault::store)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(store: &dyn Store, resource: ResourceRef) -> Result<StatusCode, Fault> {
    let key = keys::resource_named(&resource);
    let outcome = store.transact(vec![Check::present(key.clone())], vec![Write::delete(key)]).await;
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
    kind.parse().map_err(|error: ResourceError| Fault::theirs(&error))
}
